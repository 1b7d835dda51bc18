"""A figure that a notebook displays and that can be saved or changed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from matplotlib.figure import Figure

from mfbench.errors import UsageError
from mfbench.report.style import Plot, drawn, file
from mfbench.wording import nearest


class Picture:
    """A plot on a white background."""

    def __init__(self, plot: Plot) -> None:
        if plot.draw is None:
            raise UsageError(f"{plot.name}: nothing to draw: {plot.caption}", code="nothing-to-draw")
        self.name, self.caption, self._draw = plot.name, plot.caption, plot.draw

    @property
    def figure(self) -> Figure:
        """A new matplotlib figure, free to be changed."""
        return drawn(self._draw)

    def save(self, path: str | Path) -> Path:
        """Write the figure as SVG or PNG, by the ending of the name.

        Raises:
            UsageError: another ending.
        """
        path = Path(path)
        kind = path.suffix.removeprefix(".").lower()
        if kind not in ("svg", "png"):
            message = f"expected a name that ends in .svg or .png, got {path.name!r}"
            raise UsageError(message, code="bad-format", argument="path")
        path.write_bytes(file(self._draw, self.name, kind))
        return path

    def _repr_png_(self) -> bytes:
        return file(self._draw, self.name, "png")


def find(name: str, plots: Iterable[Plot]) -> Picture:
    """Return the plot of a name.

    Raises:
        UsageError: there is no such plot, or it has nothing to draw.
    """
    by_name = {plot.name: plot for plot in plots}
    if name not in by_name:
        message = f"no figure {name!r}{nearest(name, by_name)}"
        raise UsageError(message, code="no-such-figure", argument="name")
    return Picture(by_name[name])
