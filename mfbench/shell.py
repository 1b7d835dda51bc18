"""How a command ends: errors as one line on stderr, exit codes, interruption and unwritable output."""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import click

from mfbench import log
from mfbench.errors import MfbenchError, UsageError
from mfbench.installation import foreign_packages, installed_from

INTERRUPTED = 128 + signal.SIGINT  # exit codes as a shell reports signals
TERMINATED = 128 + signal.SIGTERM
NO_READER = 128 + 13  # SIGPIPE, which Windows lacks
STORE_S = 5  # longest wait for the store of torchrun's processes


class UnwritableOutput(click.ClickException):
    """Standard output is closed or full; click itself would return 1, which is a verdict of some commands."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(f"cannot write the output: {cause.strerror}")
        self.has_no_reader = cause.errno == errno.EPIPE


class CommandGroup(click.Group):
    """A group whose commands all take --quiet and --verbose."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        shared: dict[str, Any] = {"is_flag": True, "expose_value": False, "callback": _set_level}
        cmd.params += [
            click.Option(["-q", "--quiet"], help="Print only the result and errors.", **shared),
            click.Option(["-v", "--verbose"], help="Print each step, and where an error came from.", **shared),
        ]
        super().add_command(cmd, name)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            code = super().invoke(ctx)
            if sys.stdout:
                sys.stdout.flush()
            return code
        except OSError as error:
            if error.filename is not None:
                raise
            if isinstance(error, FileNotFoundError):  # by `tempfile`, where no folder can be written
                message = f"{error.strerror}; set TMPDIR to a folder that can be written"
                raise UsageError(message, code="unwritable-file") from error
            raise UnwritableOutput(error) from error


def _set_level(_: click.Context, parameter: click.Parameter, given: bool) -> None:
    if given:
        log.set_level(1 if parameter.name == "verbose" else -1)


def run_command(group: click.Group) -> NoReturn:
    """Run the command that the process was started with, and end the process with its exit code."""
    log.set_level(0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an ASCII terminal gets its table, too
    if foreign := foreign_packages():
        _print_error("; ".join(foreign), code="foreign-package")
        sys.exit(2)
    try:
        folder = Path.cwd()
    except OSError as error:
        _print_error(f"the current folder cannot be read: {error.strerror}", code="unreadable-file")
        sys.exit(2)
    if not installed_from(folder):
        log.note("the current folder has another mfbench, which `python -m mfbench` would run")
    try:
        code = group.main(standalone_mode=False) or 0
    except click.exceptions.NoArgsIsHelpError as help_text:
        click.echo(help_text.format_message(), err=True)
        code = 2
    except UnwritableOutput as error:
        _print_traceback(error)
        if error.has_no_reader:
            _leave_at_once(NO_READER)
        _print_error(error.message, code="unwritable-output")
        _leave_at_once(2)
    except click.ClickException as error:
        bad_value = isinstance(error, click.BadParameter) and not isinstance(error, click.MissingParameter)
        _print_error(error.format_message(), code="bad-value" if bad_value else "bad-usage")
        code = error.exit_code
    except MfbenchError as error:
        _print_traceback(error)
        _print_line(f"mfbench: {error.for_command_line}")
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):  # Abort is a RuntimeError
        code = INTERRUPTED
    except MemoryError as error:
        _print_traceback(error)
        _print_error("out of memory, or over this process's limit", code="out-of-memory")
        code = UsageError.exit_code
    except RuntimeError as error:
        if not _memory_is_exhausted(error):
            raise
        _print_traceback(error)
        _print_error("out of memory: the problem is too large for this machine", code="out-of-memory")
        code = UsageError.exit_code
    if code == INTERRUPTED or "TORCHELASTIC_RUN_ID" in os.environ:  # of torchrun
        _leave_at_once(code)
    sys.exit(code)


def import_uninterrupted(name: str) -> ModuleType:
    """Import a module; Ctrl-C in between ends the process, as PyTorch's import aborts on an exception."""
    with _interruption_ends_process():
        return importlib.import_module(name)


def _memory_is_exhausted(error: RuntimeError) -> bool:
    """Return whether PyTorch could not allocate memory."""
    if "torch" not in sys.modules:
        return False
    from mfbench.measure.devices.memory import exhausted

    return exhausted(error)


@contextlib.contextmanager
def _interruption_ends_process() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # ignored, as in a script's background
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: _leave_at_once(INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _leave_at_once(code: int) -> NoReturn:
    """End the process without the second that PyTorch takes to tidy up; workers have ended, output is written.

    A thread of gloo that still releases the tensors of the last message would abort a process that tidies up
    (https://github.com/pytorch/pytorch/issues/190489).
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


def _print_error(message: str, code: str) -> None:
    _print_line(f"mfbench: {message} [{code}]")


def _print_line(error: str) -> None:
    if not _is_printed_by_another(error):
        click.echo(error, err=True)


def _is_printed_by_another(error: str) -> bool:
    """Return whether another process of torchrun's has printed this line. Where that cannot be found out: False."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or os.environ.get("WORLD_SIZE") == "1":
        return False
    try:
        from torch._C._distributed_c10d import TCPStore

        address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(*address, is_master=False, timeout=timedelta(seconds=STORE_S))
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        return int(store.add(f"mfbench/errors/{attempt}/{error}", 1)) > 1
    except (ImportError, KeyError, ValueError, RuntimeError):
        return False


def _print_traceback(error: Exception) -> None:
    if log.level() > 0:
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
