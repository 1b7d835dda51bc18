"""The command line. Little is imported here; a command imports what it needs when it runs."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from mfbench import log
from mfbench.commands.options import Finite, options, several
from mfbench.errors import DataUnavailable, NotComparable, UsageError
from mfbench.installation import foreign_packages, installed_from
from mfbench.measure.worker import forkserver

INTERRUPTED = 130  # exit code, as a shell has it for SIGINT


def main() -> None:
    """Run a command; an error of the user's is one line on stderr and exit code 2."""
    log.set_level(0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an ASCII terminal still gets its table
    if foreign := foreign_packages():
        click.echo(f"mfbench: {'; '.join(foreign)}", err=True)
        sys.exit(2)
    if not installed_from(Path.cwd()):
        log.note("another mfbench lies in the current folder, which `python -m mfbench` would run")
    try:
        code = cli.main(standalone_mode=False) or 0
        if sys.stdout:
            sys.stdout.flush()
        if code == INTERRUPTED:
            _leave_at_once(code)
        sys.exit(code)
    except click.exceptions.NoArgsIsHelpError as help_text:
        click.echo(help_text.format_message(), err=True)
        sys.exit(2)
    except click.ClickException as error:
        click.echo(f"mfbench: {error.format_message()}", err=True)
        sys.exit(error.exit_code)
    except (UsageError, DataUnavailable) as error:
        _tell_where(error)
        click.echo(f"mfbench: {error}", err=True)
        sys.exit(2)
    except NotComparable as error:
        _tell_where(error)
        click.echo(f"mfbench: not comparable: {error}", err=True)
        sys.exit(4)
    except (click.Abort, KeyboardInterrupt):
        _leave_at_once(INTERRUPTED)
    except Exception as error:
        _leave_if_unwritten(error)
        raise


def _interrupt(_: int, frame: FrameType | None) -> NoReturn:
    while frame:
        if frame.f_code.co_filename.startswith("<frozen importlib"):  # an import may fail in any way, PyTorch's aborts
            _leave_at_once(INTERRUPTED)
        frame = frame.f_back
    raise KeyboardInterrupt


class _Unwritten(Exception):
    """Caused by an OSError, of which click would make exit code 1: a verdict of some commands."""


def _leave_if_unwritten(error: Exception) -> None:
    """End where the result could not be written to its stream; an error that names a file is of another kind."""
    cause = error.__cause__ if isinstance(error, _Unwritten) else error
    if not isinstance(cause, OSError) or cause.filename is not None:
        return
    _tell_where(error)
    if cause.errno == errno.EPIPE:  # nobody reads on: as if the signal had ended this process
        _leave_at_once(128 + signal.SIGPIPE)
    click.echo(f"mfbench: cannot write the output: {cause.strerror}", err=True)
    _leave_at_once(2)


def _leave_at_once(code: int) -> NoReturn:
    """Everything is written and every worker has ended: PyTorch takes a second to tidy up, which nobody waits for."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _tell_where(error: Exception) -> None:
    if log.level() > 0:
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)


def _set_level(_: click.Context, parameter: click.Parameter, given: bool) -> None:
    if given:
        log.set_level(1 if parameter.name == "verbose" else -1)


class Commands(click.Group):
    """A group whose commands all take --quiet and --verbose."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        shared: dict[str, Any] = {"is_flag": True, "expose_value": False, "callback": _set_level}
        cmd.params += [
            click.Option(["-q", "--quiet"], help="Say nothing beside the result and errors.", **shared),
            click.Option(["-v", "--verbose"], help="Say each step, and where an error came from.", **shared),
        ]
        super().add_command(cmd, name)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OSError as error:
            raise _Unwritten from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="mfbench")
def cli() -> None:
    """Is a kernel of biased, masked matrix factorization right, and is it faster?"""


FORMATS = ("html", "md", "csv", "github-action-benchmark", "bencher", "pytorch-oss")
AXES = ("size", "rank", "density", "ratings_dtype", "data", "seed")


@cli.command()
@options(
    "suite", "device", "provider", *AXES, "out", "resume", "threads", "baseline", "margin", "budget", "as_json"
)  # fmt: skip
@click.option("--time-limit", type=Finite(min=0, min_open=True), default=300.0, show_default=True,
              metavar="SECONDS", help="A single answer of a provider may take so long.")  # fmt: skip
@click.option(
    "--against",
    metavar="REV",
    help="Compare with another revision of this checkout, or of a provider's file, in the same rounds.",
)
def run(suite: str, device: str | None, provider: list[str] | None, out: Path, resume: bool, threads: int | None,
        baseline: str, margin: float, budget: float, as_json: bool, time_limit: float,
        against: str | None, **axes: Any) -> int:  # fmt: skip
    """Time providers on a suite's cases, each behind the correctness gate.

    Exit code: 0; 1 a gate failed; 2 usage; 130 interrupted (finished records are kept); with --against as `compare`.
    """
    if device != "cuda":
        forkserver.warm_up()
    if against is not None:
        return _run_against(against, suite, device, provider, _overrides(axes), out, resume, threads, margin, budget,
                            time_limit, as_json)  # fmt: skip
    from mfbench.commands import run as command_run

    records, interrupted = command_run.run_suite(
        suite, device, provider, _overrides(axes), out, resume, threads, baseline, margin, budget, time_limit
    )
    command_run.show(records, as_json)
    if interrupted:
        command_run.tell_interrupted(out)
        return INTERRUPTED
    return int(any(record.status in ("wrong", "crashed", "timeout", "error") for record in records))


def _run_against(*arguments: Any) -> int:
    from mfbench.commands import against

    source = click.get_current_context().get_parameter_source("baseline")
    if source is not click.core.ParameterSource.DEFAULT:
        raise UsageError("--baseline: with --against each provider's baseline is itself at that revision")
    return against.command(*arguments)


def _overrides(axes: dict[str, Any]) -> dict[str, Any]:
    """The axes that the user gave, as lists, as a suite file has them."""
    given = {name: value for name, value in axes.items() if value not in (None, ())}
    return {name: list(value) if isinstance(value, tuple) else [value] for name, value in given.items()}


@cli.command()
@options("device", "provider", "seed", "as_json")
@click.option("--cases", type=click.IntRange(min=1), default=48, show_default=True, help="How many to draw.")
def verify(device: str | None, provider: list[str] | None, seed: int | None, cases: int, as_json: bool) -> int:
    """Check every backend that can run here, or providers, against the float64 oracle.

    Exit code: 0 all within bound; 1 not.
    """
    from mfbench.commands import verify as verification

    return verification.command(device, provider, 1 if seed is None else seed, cases, as_json)


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
    from mfbench.commands import compare as command_compare

    return command_compare.command(base, new, margin, force, as_json, allow_missing)


@cli.command()
@click.argument("records", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--out", required=True, type=click.Path(path_type=Path),
              help="FILE.html, FILE.md or FILE.csv; - is stdout.")  # fmt: skip
@click.option("--format", "form", type=click.Choice(FORMATS), help="Default: by the name of --out, else html.")
@click.option("--plots", type=click.Path(path_type=Path), help="A folder for the figures as separate files.")
@click.option("--plots-format", type=click.Choice(["svg", "png"]), default="svg", show_default=True)
@options("margin")
def report(records: tuple[Path, ...], out: Path, form: str | None, plots: Path | None, plots_format: str,
           margin: float) -> int:  # fmt: skip
    """Write one self-contained page of RECORDS, or a format that other tools read.

    RECORDS are files of `run --out`, of `inspect --json`, and results of pytest-benchmark, pyperf, google-benchmark,
    hyperfine, asv and nvbench (JSON). The last of several files is compared with the first; the last run in one file
    with all runs before it.

    Exit code: 0; 2 usage; 4 nothing in RECORDS can be shown.
    """
    from mfbench.commands import report as command_report

    return command_report.command(records, out, form, plots, plots_format, margin)


@cli.command()
@options("data", "provider", "size", "rank", "density", "seed", "device", "threads", "as_json")
@click.option("--epochs", type=click.IntRange(min=1), help="Default: 28001 on seed, else 500.")
@click.option("--every", type=click.IntRange(min=1), help="Epochs between log lines; default: 1000 on seed, else 50.")
@click.option("--optimizer", type=click.Choice(["sgd", "momentum", "adam"]), default="sgd", show_default=True)
@click.option("--lr", type=Finite(), help="Learning rate; default: one that does not diverge, 1e-5 on seed.")
@click.option("--reg", type=Finite(min=0), default=0.1, show_default=True, help="Weight of the squared norms.")
@click.option("--holdout", type=Finite(), default=0.1, show_default=True, help="Fraction of real ratings held out.")
@click.option("--target-rmse", type=Finite(), help="Stop when the held-out RMSE is down to it.")
def train(**given: Any) -> int:
    """Train with one provider: the notebook's loop on `seed` (the default), or real ratings with a held-out part.

    Not held against the correctness gate: that is what `run` and `verify` do.

    Exit code: 0; 2 usage; 130 interrupted.
    """
    from mfbench.commands import train as command_train

    return command_train.command(**given)


@cli.command()
@several("--target", "A,B", "sm_90, gfx942, ...; default: all.")
@several("--rank", "K,L", "Default: 30.")
@several("--precision", "A,B", "Default: all.")
@several("--encoding", "A,B", "Default: float32+uint8.")
@several("--mode", "A,B", "fast (the default), deterministic.")
@click.option("--all", "everything", is_flag=True, help="Every tile that is shipped, where no other option says which.")
@click.option("--jobs", type=click.IntRange(1, 1024), help="Compile in so many processes; default: one a CPU.")
@click.option("--compare", "other", metavar="OTHER.json", type=click.Path(path_type=Path),
              help="Show what changed since an earlier --json.")  # fmt: skip
@options("as_json")
def inspect(everything: bool, jobs: int | None, other: Path | None, as_json: bool, **chosen: list[str] | None) -> int:
    """What the GPU kernel compiles to for every target, and a modelled bound; no GPU needed.

    Exit code: 0; 1 a shipped build spills, exceeds a limit or lacks what it should have; 2 usage.
    """
    from mfbench.commands import inspect as inspection

    return inspection.command(chosen, everything, jobs, other, as_json)


@cli.command()
@options("as_json")
def doctor(as_json: bool) -> None:
    """What this machine can run, and why not the rest.

    Exit code: 0.
    """
    from mfbench.commands import doctor as diagnosis

    findings = diagnosis.examine()
    click.echo(json.dumps(findings, indent=2) if as_json else diagnosis.text(findings))


@cli.command("list")
@options("as_json")
def list_(as_json: bool) -> None:
    """Suites, providers, devices and data sets.

    Exit code: 0.
    """
    from mfbench.commands import doctor as diagnosis

    names = diagnosis.catalogue()
    click.echo(json.dumps(names, indent=2) if as_json else diagnosis.text(names))
