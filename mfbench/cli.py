"""The commands and their options; a command imports its module only when it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mfbench.commands.options import Choice, Number, options, several, single
from mfbench.errors import UsageError
from mfbench.gpu_check.options import OPTIONS, CheckOptions
from mfbench.installation import VERSION
from mfbench.measure.options import RunOptions
from mfbench.measure.worker import forkserver
from mfbench.problems.bounds import Bounds
from mfbench.shell import CommandGroup, import_uninterrupted, run_command
from mfbench.train.options import BOUNDS, COUNT, TrainOptions
from mfbench.train.waiting import let_threads_sleep

AXES = ("size", "rank", "density", "layout", "ratings_dtype", "data", "seed")
FORMATS = ("html", "md", "csv", "github-action-benchmark", "bencher", "pytorch-oss")
JOBS = Bounds(1, 1024, whole=True)


def main() -> None:
    """Run the command line and end the process."""
    run_command(cli)


def _command(module: str, name: str = "command") -> Callable[..., int]:
    """Import a command's module and return its function, which returns the exit code."""
    command: Callable[..., int] = getattr(import_uninterrupted(f"mfbench.commands.{module}"), name)
    return command


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, prog_name="mfbench")
def cli() -> None:
    """Is a kernel for biased, masked matrix factorization correct, and is it faster?"""


@cli.command()
@options("suite", "device", "provider", *AXES, "out", "resume", "threads", "processes", "baseline", "margin", "budget",
         "resolve", "as_json", "time_limit")  # fmt: skip
@click.option(
    "--against",
    metavar="REV",
    help="Compare with another revision of this checkout, or of a provider's file, in the same rounds.",
)
@click.pass_context
def run(context: click.Context, /, against: str | None, as_json: bool, **given: Any) -> int:
    """Time providers on a suite's cases, each behind the correctness gate.

    Exit code: 0; 1 a gate failed; 2 usage; 130 interrupted (finished records are kept); with --against as `compare`.
    """
    if given["device"] != "cuda" and given["processes"] is None:
        forkserver.warm_up()
    axes = {name: given.pop(name) for name in AXES}
    chosen = RunOptions(axes={name: value for name, value in axes.items() if value not in (None, ())}, **given)
    if against is None:
        return _command("run")(chosen, as_json)
    if chosen.processes is not None:
        message = "compares in the same rounds, which several processes cannot share with another revision"
        raise UsageError(message, code="bad-value", argument="against")
    if context.get_parameter_source("baseline") is not click.core.ParameterSource.DEFAULT:
        message = "with --against each provider's baseline is itself at that revision"
        raise UsageError(message, code="bad-baseline", argument="baseline")
    return _command("against")(against, chosen, as_json)


@cli.command()
@options("device", "provider", "seed", "as_json")
@click.option(
    "--cases",
    metavar="N",
    type=Number(COUNT),
    default=48,
    show_default=True,
    help="Number of problems to draw.",
)
def verify(device: str | None, provider: list[str] | None, seed: int | None, cases: int, as_json: bool) -> int:
    """Check every backend that can run here, or providers, against the float64 oracle.

    Exit code: 0 all within bound; 1 not.
    """
    return _command("verify")(device, provider, 1 if seed is None else seed, cases, as_json)


@cli.command()
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@options("margin", "as_json")
@click.option("--force", is_flag=True, help="Compare measurements from different environments.")
@click.option("--allow-missing", is_flag=True, help="Accept that NEW lacks cases of BASE.")
def compare(base: Path, new: Path, margin: float, as_json: bool, force: bool, allow_missing: bool) -> int:
    """Judge NEW against BASE, case by case.

    Both are files of `run --out`, or both are results of one of pytest-benchmark, pyperf, google-benchmark, hyperfine,
    asv and nvbench (JSON).

    Exit code: 0 no regression; 1 a case is slower or fails now; 2 usage; 3 a case is undecided; 4 not comparable, or
    NEW lacks cases of BASE.
    """
    return _command("compare")(base, new, margin, force, as_json, allow_missing)


@cli.command()
@click.argument("records", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--out", required=True, type=click.Path(path_type=Path),
              help="FILE.html, FILE.md or FILE.csv; - is stdout.")  # fmt: skip
@click.option("--format", "form", type=Choice(FORMATS), help="Default: by the name of --out, else html.")
@click.option("--plots", type=click.Path(path_type=Path), help="Folder for every figure as a separate file.")
@click.option("--plots-format", type=Choice(["svg", "png"]), default="svg", show_default=True)
@options("margin")
def report(records: tuple[Path, ...], out: Path, form: str | None, plots: Path | None, plots_format: str,
           margin: float) -> int:  # fmt: skip
    """Write one self-contained page of RECORDS, or a format that other tools read.

    RECORDS are files of `run --out`, of `inspect --json`, and results of pytest-benchmark, pyperf, google-benchmark,
    hyperfine, asv and nvbench (JSON). The last of several files is compared with the first; the last run in one file
    with all runs before it.

    Exit code: 0; 2 usage; 4 nothing in RECORDS can be shown.
    """
    return _command("report")(records, out, form, plots, plots_format, margin)


@cli.command()
@options("data")
@single("--provider", "NAME", f"Also path/to/file.py:function; default: {TrainOptions.provider}.")
@single("--size", "MxN", "Users x items of drawn data.")
@options("rank", "density", "layout", "seed")
@click.option("--device", type=Choice(["cpu", "cuda"]), help="Default: the best one here.")
@options("threads", "as_json")
@click.option("--epochs", metavar="N", type=Number(BOUNDS["epochs"]), help="Default: 28001 on seed, else 500.")
@click.option(
    "--every",
    metavar="N",
    type=Number(BOUNDS["every"]),
    help="Epochs between log lines; default: 1000 on seed, else 10.",
)
@click.option("--optimizer", type=Choice(["sgd", "momentum", "adam", "preconditioned"]),
              help="Default: sgd on seed, else preconditioned: momentum, scaled by the ratings of each user and item.",
              )  # fmt: skip
@click.option(
    "--lr", metavar="F", type=Number(BOUNDS["lr"]), help="Learning rate; default: one that converges, 1e-5 on seed."
)
@click.option("--reg", metavar="F", type=Number(BOUNDS["reg"]),
              help="Weight of the squared norms; default: 0.1 on seed, else what removes noise.")  # fmt: skip
@click.option("--holdout", metavar="F", type=Number(BOUNDS["holdout"]), default=TrainOptions.holdout, show_default=True,
              help="Fraction of real ratings to hold out.")  # fmt: skip
@click.option(
    "--target-rmse", metavar="F", type=Number(BOUNDS["target_rmse"]), help="Stop when the held-out RMSE is this low."
)
@click.option("--patience", metavar="N", type=Number(BOUNDS["patience"]),
              help="Stop after N log lines without a lower held-out error; default: never on seed, else 5.",
              )  # fmt: skip
@click.option("--save", metavar="FILE", type=click.Path(path_type=Path),
              help="Write the parameters with the least held-out error; `torch.load` reads them.")  # fmt: skip
@click.option("--checkpoint", metavar="DIR", type=click.Path(path_type=Path),
              help="Write the state of the run to this folder now and then; the last two checkpoints are kept.",
              )  # fmt: skip
@click.option("--checkpoint-every", metavar="N", type=Number(BOUNDS["checkpoint_every"]),
              help="Epochs between two checkpoints; default: those of ten log lines.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Continue from the last checkpoint, if there is one.")
def train(**given: Any) -> int:
    """Train with one provider: the notebook's loop on `seed` (the default), or real ratings with a held-out part.

    The correctness gate is not applied here: that is what `run` and `verify` do.

    Exit code: 0; 2 usage; 130 interrupted.
    """
    let_threads_sleep(given["provider"] or TrainOptions.provider)
    return _command("train")(**given)


def _check_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of `gpu-check`."""
    for option in reversed(OPTIONS):
        kind: click.ParamType[Any] = Number(option.bounds) if option.bounds else click.Path(path_type=option.kind)
        function = click.option(
            f"--{option.name}", type=kind, default=option.default, show_default=True, metavar=option.metavar,
            help=option.help,
        )(function)  # fmt: skip
    return function


@cli.command("gpu-check")
@_check_options
def gpu_check(**given: Any) -> int:
    """Check the fused kernel on this machine's GPU and time it, what matters most first, in eight minutes at most.

    Prints a summary whose first line is the verdict. Records are written as they come; the summary and, if the
    packages of reports are installed, a page stand beside them.

    Exit code: 0; 1 something is wrong, or was not checked in time; 2 no GPU, or usage.
    """
    return _command("gpu_check")(CheckOptions(**given))


@cli.command()
@several("--target", "A,B", "sm_90, gfx942, ...; default: all.")
@several("--rank", "K,L", "Default: 30.")
@several("--precision", "A,B", "Default: all.")
@several("--encoding", "A,B", "float32+uint8, sparse-code, ...; default: these two.")
@several("--mode", "A,B", "fast, deterministic, sse; default: fast, and all for sparse encodings.")
@click.option("--all", "everything", is_flag=True, help="Every shipped tile, except as other options restrict it.")
@click.option("--jobs", metavar="N", type=Number(JOBS), help="Processes to compile in; default: one per CPU.")
@click.option("--compare", "other", metavar="OTHER.json", type=click.Path(path_type=Path),
              help="Show what changed since an earlier --json.")  # fmt: skip
@options("as_json")
def inspect(everything: bool, jobs: int | None, other: Path | None, as_json: bool, **chosen: list[str] | None) -> int:
    """Show what the GPU kernel compiles to for every target, and a modelled bound; no GPU needed.

    Exit code: 0; 1 a shipped build spills, exceeds a limit or lacks what it should have; 2 usage.
    """
    return _command("inspect")(chosen, everything, jobs, other, as_json)


@cli.command()
@options("as_json")
def doctor(as_json: bool) -> int:
    """Show what this machine can run, and why not the rest.

    Exit code: 0.
    """
    return _command("doctor", "doctor")(as_json)


@cli.command("list")
@options("as_json")
def list_(as_json: bool) -> int:
    """List suites, providers, devices and data sets.

    Exit code: 0.
    """
    return _command("doctor", "catalogue")(as_json)
