"""The options that mean the same with every command, and the types of their values."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from mfbench.errors import UsageError
from mfbench.measure.options import BUDGET_S, DEVICES, RESOLVE_BUDGET_S, RunOptions
from mfbench.problems.bounds import DENSITY, FRACTION, RANK, SECONDS, SEED, THREADS, Bounds
from mfbench.stats.margin import checked_margin
from mfbench.wording import one_of

SUITES = Path(__file__).parents[1] / "problems" / "suites"
LAYOUTS = ("dense", "sparse", "auto")
RATINGS_DTYPES = ("float64", "float32", "bfloat16", "float16", "uint8", "int8")


class Number(click.FloatRange):
    """A finite number within bounds."""

    def __init__(self, bounds: Bounds) -> None:
        low, high = (end if math.isfinite(end) else None for end in (bounds.low, bounds.high))
        super().__init__(low, high, min_open=bounds.above_low, max_open=bounds.below_high)
        self.bounds = bounds

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        with contextlib.suppress(ValueError):
            number = int(value) if self.bounds.whole else float(value)
            if self.bounds.hold(number):
                return number
        self.fail(f"expected {self.bounds}, got {value!r}", param, ctx)

    def _describe_range(self) -> str:
        return "" if self.min is None and self.max is None else super()._describe_range()


class Choice(click.Choice[str]):
    """One of a few words."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        return one_of(self.choices, value)


def _margin(_: click.Context, __: click.Parameter, value: float) -> float:
    return checked_margin(value)


def _names(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> list[str] | None:
    if not values:
        return None
    names = list(dict.fromkeys(name.strip() for value in values for name in value.split(",") if name.strip()))
    if not names:
        raise click.BadParameter(f"expected one or more names, got {','.join(values)!r}.")
    return names


def _processes(_: click.Context, __: click.Parameter, value: str | None) -> list[int] | None:
    if value is None:
        return None
    counts = [count.strip() for count in value.split(",")]
    if not all(count.isdecimal() for count in counts):
        message = f"expected whole numbers separated by commas, such as 1,2,4; got {value!r}"
        raise UsageError(message, code="bad-number", argument="processes")
    return [int(count) for count in counts]


def _single(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> str | None:
    return _one(context, option, tuple(_names(context, option, values) or ()))


def _one(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> str | None:
    """Return the only value, which may contain commas."""
    if len(values) > 1:
        message = f"expected one, got {', '.join(values)}; run {context.info_name} again for another"
        raise UsageError(message, code="too-many", argument=option.name)
    return values[0] if values else None


def several(option: str, metavar: str, help: str) -> Callable[..., Any]:
    """Return an option for one or more names, separated by commas or repeated; None if not given."""
    return click.option(option, multiple=True, callback=_names, metavar=metavar, help=help)


def single(option: str, metavar: str, help: str) -> Callable[..., Any]:
    """Return an option for one name, which refuses several."""
    return click.option(option, multiple=True, callback=_single, metavar=metavar, help=help)


def _suites(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    """Complete the name of a suite, or else of a file, without parsing any suite."""
    names = sorted(path.stem for path in SUITES.glob("*.toml"))
    return [CompletionItem(name) for name in names if name.startswith(begun)] or [CompletionItem(begun, type="file")]


def _data(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--data`, and the options that say how to read a file, which the command receives as part of `data`."""

    @click.option(
        "--data",
        multiple=True,
        callback=_one,
        metavar="NAME|FILE",
        help="A data set of `mfbench list`, or a file of ratings.",
    )
    @click.option("--columns", metavar="USER,ITEM,RATING", help="Columns of the file: names, or numbers from 1.")
    @click.option("--format", metavar="NAME", help="Layout of the file where it does not tell; see docs/data.md.")
    @functools.wraps(command)
    def merged(*args: Any, data: str | None, columns: str | None, format: str | None, **given: Any) -> Any:
        from mfbench.problems.datasets import with_options  # here, so that --help need not import NumPy

        return command(*args, data=with_options(data, columns, format), **given)

    return merged


OPTIONS: dict[str, Callable[..., Any]] = {
    "suite": click.option("--suite", metavar="NAME|FILE.toml", shell_complete=_suites,
                          help="Default: quick; with --size, the one case that the options describe."),
    "device": click.option("--device", type=Choice(DEVICES), help="Default: the best one here."),
    "provider": several("--provider", "A,B", "Also path/to/file.py:function; may be repeated."),
    "size": click.option("--size", multiple=True, metavar="MxN", help="Users x items of all cases; may be repeated."),
    "rank": click.option("--rank", type=Number(RANK), metavar="K", help="Columns of the factors."),
    "density": click.option("--density", type=Number(DENSITY), metavar="D", help="Fraction observed of drawn data."),
    "layout": click.option("--layout", type=Choice(LAYOUTS),
                           help="Of the ratings. auto, the default: sparse where few are observed, or to save memory."),
    "ratings_dtype": click.option("--ratings-dtype", type=Choice(RATINGS_DTYPES)),
    "data": _data,
    "out": click.option("--out", default=RunOptions.out, show_default=True, type=click.Path(path_type=Path),
                        metavar="FILE.jsonl", help="The file that records are appended to."),
    "resume": click.option("--resume", is_flag=True, help="Continue the last run in --out."),
    "seed": click.option("--seed", type=Number(SEED), metavar="S", help="Of all random numbers."),
    "threads": click.option("--threads", type=Number(THREADS), metavar="T", help="Default: PyTorch's own choice."),
    "processes": click.option("--processes", metavar="N,N", callback=_processes,
                              help="Measure how the step scales over these numbers of processes, started as by "
                              "torchrun; --threads are those of each."),
    "baseline": click.option("--baseline", metavar="PROVIDER",
                             help="What speed-ups are relative to. Default: autograd; gather in the suite sparse, and "
                             "with --layout sparse without a suite."),
    "margin": click.option("--margin", type=Number(Bounds(-math.inf)), default=RunOptions.margin,
                           show_default=True, metavar="F", callback=_margin,
                           help="Relative difference up to which two times count as the same: 0.05 is 5 per cent."),
    "budget": click.option("--budget", type=Number(SECONDS), metavar="SECONDS",
                           help=f"Time to spend on timing each case.  [default: {BUDGET_S:g}, with --resolve "
                           f"{RESOLVE_BUDGET_S:g}]"),
    "resolve": click.option("--resolve", type=Number(FRACTION), metavar="F",
                            help="Time each case until a difference of F can be told: 0.02 is 2 per cent."),
    "time_limit": click.option("--time-limit", type=Number(SECONDS), default=RunOptions.time_limit, show_default=True,
                               metavar="SECONDS", help="Longest time for one answer of a provider."),
    "as_json": click.option("--json", "as_json", is_flag=True, help="The result as JSON on stdout."),
}  # fmt: skip


def options(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds the shared options of those names, in that order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        return functools.reduce(lambda decorated, name: OPTIONS[name](decorated), reversed(names), command)

    return decorate
