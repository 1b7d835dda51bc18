"""The options that mean the same with every command, and the kinds of values that options take."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from mfbench.stats.margin import checked_margin

DEFAULT_OUT = "mfbench-records.jsonl"


class Finite(click.FloatRange):
    """A number in a range; neither NaN nor infinite."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{number} is not a finite number.", param, ctx)
        return number

    def _describe_range(self) -> str:
        return "" if self.min is None and self.max is None else super()._describe_range()


def _names(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> list[str] | None:
    if not values:
        return None
    names = list(dict.fromkeys(name.strip() for value in values for name in value.split(",") if name.strip()))
    if not names:
        raise click.BadParameter(f"expected one or more names, got {','.join(values)!r}.")
    return names


def _margin(_: click.Context, __: click.Parameter, value: float) -> float:
    return checked_margin(value)


def several(option: str, metavar: str, help: str) -> Callable[..., Any]:
    """An option for one name or more, with commas between them or given again; None where it is not given."""
    return click.option(option, multiple=True, callback=_names, metavar=metavar, help=help)


def _suites(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    """For the shell: the suites of that beginning, or else files. Read from names alone: completion is to be quick."""
    names = sorted(path.stem for path in (Path(__file__).parents[1] / "problems" / "suites").glob("*.toml"))
    return [CompletionItem(name) for name in names if name.startswith(begun)] or [CompletionItem(begun, type="file")]


OPTIONS: dict[str, Callable[..., Any]] = {
    "suite": click.option("--suite", default="quick", show_default=True, metavar="NAME|FILE.toml",
                          shell_complete=_suites),
    "device": click.option("--device", type=click.Choice(["cpu", "cuda", "all"]), help="Default: the best one here."),
    "provider": several("--provider", "A,B", "Also path/to/file.py:function; may be repeated."),
    "size": click.option("--size", multiple=True, metavar="MxN", help="Users x items; may be repeated."),
    "rank": click.option("--rank", type=click.IntRange(0, 1 << 20)),
    "density": click.option("--density", type=Finite(0, 1), help="Fraction observed."),
    "ratings_dtype": click.option(
        "--ratings-dtype", type=click.Choice(["float64", "float32", "bfloat16", "float16", "uint8", "int8"])
    ),
    "data": click.option("--data", metavar="NAME|FILE", help="A data set of `mfbench list`, or a file of ratings."),
    "out": click.option("--out", default=DEFAULT_OUT, show_default=True, type=click.Path(path_type=Path)),
    "resume": click.option("--resume", is_flag=True, help="Go on with the last run in --out."),
    "seed": click.option("--seed", type=click.IntRange(0, 2**63 - 1)),
    "threads": click.option("--threads", type=click.IntRange(1, 1024), help="Default: PyTorch's own choice."),
    "baseline": click.option("--baseline", default="autograd", show_default=True, help="What speed-ups are against."),
    "margin": click.option(
        "--margin", type=Finite(min=0), default=0.02, show_default=True, callback=_margin,
        help="Relative difference up to which two times count as the same: 0.05 is 5 per cent.",
    ),
    "budget": click.option(
        "--budget", type=Finite(min=0, min_open=True), default=5.0, show_default=True,
        metavar="SECONDS", help="Timing budget a case.",
    ),
    "as_json": click.option("--json", "as_json", is_flag=True, help="The result as JSON on stdout."),
}  # fmt: skip


def options(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The shared options of those names, in that order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        return functools.reduce(lambda decorated, name: OPTIONS[name](decorated), reversed(names), command)

    return decorate
