"""`mfbench report`: files of measurements in, a page or a few lines of Markdown out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from mfbench import log
from mfbench.errors import UsageError
from mfbench.report.requirements import format_of, require

MOST_STRIPS = 200  # figures of samples in --plots


def command(
    paths: Sequence[Path], out: Path, form: str | None, plots: Path | None, plots_format: str, margin: float
) -> int:
    """Write the report, and the figures where `plots` is a folder.

    Raises:
        UsageError: a file cannot be read or written, `out` has the name of another format, or what reports are made
            with is not installed.
    """
    require()
    form = form or format_of(out, "out")
    if any(out.exists() and path.exists() and out.samefile(path) for path in paths):
        raise UsageError(f"--out: expected another file than the records, got {out}")
    from mfbench.report import evidence, page

    what = page.content(evidence.load(paths), margin)
    _write(out, (page.markdown if form == "md" else page.html)(what).encode(errors="replace"))
    if plots is not None:
        _write_plots(what, plots, plots_format)
    for note in what.notes:
        log.note(note)
    return 0


def _write(path: Path, content: bytes) -> None:
    try:
        if str(path) == "-":
            if sys.stdout is None:
                raise UsageError("cannot write -: standard output is closed")
            sys.stdout.flush()
            sys.stdout.buffer.write(content)
        else:
            path.write_bytes(content)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None


def _write_plots(what, folder: Path, kind: str) -> None:
    from itertools import islice

    from mfbench.report import page, strips
    from mfbench.report.style import file

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--plots: cannot make the folder {folder}: {error.strerror}") from None
    for plot in [*page.all_plots(what), *islice(strips.plots(what.evidence.latest()), MOST_STRIPS)]:
        if plot.draw:
            _write(folder / f"{plot.name}.{kind}", file(plot.draw, plot.name, kind))
