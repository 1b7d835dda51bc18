"""`mfbench report`: write files of measurements as a page, a summary, or a format of another tool."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from mfbench import log
from mfbench.errors import NothingToShow, UsageError
from mfbench.report import evidence
from mfbench.report.requirements import format_of, require

if TYPE_CHECKING:
    from mfbench.report.page import Content

MOST_STRIPS = 200  # figures of raw samples in --plots


def command(
    paths: Sequence[Path], out: Path, form: str | None, plots: Path | None, plots_format: str, margin: float
) -> int:
    """Write the report and, if `plots` is a folder, its figures; return the exit code.

    Nothing is written if there is nothing to show.

    Raises:
        UsageError: a file cannot be read or written, the ending of `out` names no format, an option does not fit the
            format, or a package that reports need is not installed.
        NothingToShow: no file holds anything that can be shown.
    """
    form = form or format_of(out, "out")
    if any(out.exists() and path.exists() and out.samefile(path) for path in paths):
        message = f"expected another file than the records, got {out}"
        raise UsageError(message, code="same-file", argument="out")
    found = evidence.load(paths)
    if not found.results and not found.builds:
        raise NothingToShow("; ".join(found.notes))
    if form in ("html", "md"):
        require()
        from mfbench.report import page

        what = page.content(found, margin)
        _write(out, page.markdown(what) if form == "md" else page.html(what))
        if plots is not None:
            _write_plots(what, plots, plots_format)
    else:
        from mfbench.report.exports import EXPORTS

        if plots is not None:
            message = f"needs a report in HTML or Markdown, got --format {form}"
            raise UsageError(message, code="bad-format", argument="plots")
        _write(out, EXPORTS[form](found))
    for note in found.notes:
        log.note(note)
    return 0


def _write(path: Path, content: str | bytes) -> None:
    content = content.encode(errors="replace") if isinstance(content, str) else content
    try:
        if str(path) == "-":
            if sys.stdout is None:
                raise UsageError("cannot write -: standard output is closed", code="unwritable-output")
            sys.stdout.flush()
            sys.stdout.buffer.write(content)
        else:
            path.write_bytes(content)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", code="unwritable-file") from None


def _write_plots(what: Content, folder: Path, kind: str) -> None:
    from mfbench.report import page, strips
    from mfbench.report.style import file

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"cannot make the folder {folder}: {error.strerror}"
        raise UsageError(message, code="unwritable-file", argument="plots") from None
    for plot in [*page.all_plots(what), *islice(strips.plots(what.evidence.latest()), MOST_STRIPS)]:
        if plot.draw:
            _write(folder / f"{plot.name}.{kind}", file(plot.draw, plot.name, kind))
