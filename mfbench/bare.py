"""The command line where packages that it needs are missing, as on a borrowed machine: `gpu-check` alone."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mfbench import log
from mfbench.errors import MfbenchError
from mfbench.gpu_check.options import OPTIONS, CheckOptions
from mfbench.installation import missing_packages

NEEDED = ("torch", "triton", "numpy")  # without which there is nothing to check
USAGE = 2  # exit codes
INTERRUPTED = 130


def main() -> None:
    """Run the command that the process was started with, and end it with the exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run `gpu-check` with these arguments; return the exit code."""
    missing = missing_packages()
    if arguments[:1] != ["gpu-check"] or set(missing) & set(NEEDED):
        needed = "gpu-check runs with PyTorch, Triton and NumPy alone"
        print(f"mfbench: not installed: {', '.join(missing)}; {needed} [missing-package]", file=sys.stderr)
        return USAGE
    parser = argparse.ArgumentParser("mfbench gpu-check", description="Check and time the fused kernel on this GPU.")
    for option in OPTIONS:
        parser.add_argument(
            f"--{option.name}", type=option.kind, default=option.default, metavar=option.metavar, help=option.help
        )
    given = vars(parser.parse_args(arguments[1:]))
    for option in OPTIONS:
        if option.bounds and not option.bounds.hold(given[option.name]):
            parser.error(f"--{option.name}: expected {option.bounds}, got {given[option.name]}")
    from mfbench.commands.gpu_check import command

    log.set_level(0)
    try:
        return command(CheckOptions(**given))
    except MfbenchError as error:
        print(f"mfbench: {error.for_command_line}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
