"""The look of figures, both on a page whose colours follow its theme and in separate files."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

WIDTH = 9.2  # inches
DPI = 144
NARROW = 5  # ratio of the ends of a logarithmic axis below which 1, 2 and 5 are too few ticks
WIDE = 500  # ratio of the ends of a logarithmic axis above which only decades get ticks
ROW, FRAME = 0.17, 1.1  # inches for each row, and for everything around the rows


class Palette(NamedTuple):
    """The colours of a figure."""

    ink: str
    muted: str
    grid: str
    bad: str
    series: tuple[str, ...]

    def of(self, number: int) -> str:
        """Return the colour of a series."""
        return self.series[number % len(self.series)]


PAPER = Palette(
    "#1c2430", "#5b6675", "#d9dee5", "#c62828",
    ("#0b66b0", "#c75000", "#00795a", "#a3438a", "#8a6d00", "#5a55b8", "#4d7a1f", "#6b6b6b"),
)  # fmt: skip
PAGE = Palette(  # placeholders that `inline` replaces by the variables of the page's style sheet
    "#010001", "#010002", "#010003", "#010004", tuple(f"#0200{number:02x}" for number in range(8))
)
VARIABLES = dict(
    zip((*PAGE[:4], *PAGE.series), ("ink", "muted", "grid", "bad", *(f"s{n}" for n in range(8))), strict=True)
)
MARKERS = "osD^vP*X"
LEGEND_MARK = 5  # points
MOST_MARKS = 60  # markers along a line; more merge into one and slow the browser down
Numbers = Mapping[str, int]  # the colour and marker of each provider, the same in every figure

Draw = Callable[[Palette], Figure]

_SETTINGS: Any = {
    "svg.fonttype": "none", "text.parse_math": False, "font.family": "sans-serif", "font.size": 9,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "axes.linewidth": 0.8,
}  # fmt: skip


class Plot(NamedTuple):
    """A figure with its texts. If there is nothing to draw, `draw` is None and the caption says why."""

    name: str
    title: str
    caption: str
    draw: Draw | None


def marker(number: int) -> str:
    """Return the marker of a series."""
    return MARKERS[number % len(MARKERS)]


def figure(palette: Palette, height: float) -> tuple[Figure, Axes]:
    """Return an empty figure with one pair of axes; height in inches."""
    made = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = made.subplots()
    axes.set_facecolor("none")
    axes.grid(True, color=palette.grid, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=palette.muted, which="both")
    axes.xaxis.label.set_color(palette.ink)
    axes.yaxis.label.set_color(palette.ink)
    for spine in axes.spines.values():
        spine.set_color(palette.muted)
    return made, axes


def legend(made: Figure, axes: Axes, palette: Palette) -> None:
    """Add a legend above the axes."""
    handles, labels = axes.get_legend_handles_labels()
    if not labels:
        return
    unique = dict(zip(labels, handles, strict=True))
    drawn_legend = made.legend(
        list(unique.values()), list(unique), loc="outside upper left", ncols=min(4, len(unique)),
        labelcolor=palette.ink, fontsize=8.5, handletextpad=0.4, columnspacing=1.4,
    )  # fmt: skip
    for handle in drawn_legend.legend_handles:
        if isinstance(handle, Line2D):  # keep its colour visible even if the marks in the figure are tiny
            handle.set(markersize=max(LEGEND_MARK, handle.get_markersize()), alpha=1)


def plain_log(axis: Any, form: str) -> None:
    """Label 1, 2 and 5 of each decade, only 1 on a wide axis, even steps on a narrow one; no exponents."""
    low, high = axis.get_view_interval()
    if high < NARROW * low:
        axis.set_major_locator(MaxNLocator(6))
    else:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < WIDE * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: form.format(value)))
    axis.set_minor_formatter(NullFormatter())


def rows_axis(axes: Axes, labels: Sequence[str]) -> None:
    """Give each label a row, from the top down."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)


def apart(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points without those that would cover one another, which keeps figures of many records small."""
    return list({(round(math.log10(x), 2), round(math.log10(abs(y) + 0.1), 2)): (x, y) for x, y in points}.values())


def inline(draw: Draw, name: str) -> str:
    """Return the figure as an `<svg>` element whose colours are variables of the page."""
    svg = _saved(draw, PAGE, "svg", name).decode()
    svg = re.sub(r"#0[12]00[0-9a-f]{2}", lambda match: f"var(--{VARIABLES[match[0]]})", svg[svg.index("<svg") :])
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="(?:figure|axes|patch|matplotlib|text|line2d|xtick|ytick|legend|PathCollection)[^"]*"', "", svg)
    svg = re.sub(r"font: ([^;\"]*?)px [^;\"]*", r"font-size: \1px", svg)
    return re.sub(r"\s*\n\s*", "\n", svg).replace("<svg ", '<svg role="img" ', 1)


def file(draw: Draw, name: str, kind: str) -> bytes:
    """Return the contents of an `svg` or `png` file of the figure on white."""
    return _saved(draw, PAPER, kind, name)


def drawn(draw: Draw) -> Figure:
    """Return the matplotlib figure on white."""
    with matplotlib.rc_context(_SETTINGS):
        return draw(PAPER)


def _saved(draw: Draw, palette: Palette, kind: str, name: str) -> bytes:
    buffer = io.BytesIO()
    with matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the reader's fonts may have it
        made = draw(palette)
        face = "none" if palette is PAGE else "white"
        metadata = {"Date": None} if kind == "svg" else None
        made.savefig(buffer, format=kind, dpi=DPI, facecolor=face, metadata=metadata)
    return buffer.getvalue()
