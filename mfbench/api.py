"""The Python interface: the commands as functions, whose results a notebook displays.

import mfbench

results = mfbench.run(size=["512x512", "1024x1024"], provider=["fused", "autograd"])
results.to_pandas()
results.plot("time-over-size")
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mfbench.errors import UsageError
from mfbench.measure.options import RunOptions
from mfbench.measure.suite import run_suite
from mfbench.report import evidence
from mfbench.report.progress import ProgressBar
from mfbench.report.requirements import format_of, require
from mfbench.results import comparison
from mfbench.results.judging import Side, judged, read
from mfbench.results.records import Record
from mfbench.stats.margin import checked_margin
from mfbench.wording import one_of

if TYPE_CHECKING:
    import pandas

    from mfbench.report.page import Content
    from mfbench.report.picture import Picture

Paths = str | Path
PAGES = ("html", "md")  # formats of the page; the others export its numbers


class Results:
    """Measurements from a run or from files; a notebook displays them as a sentence and a table."""

    def __init__(self, found: evidence.Evidence, margin: float = RunOptions.margin, interrupted: bool = False) -> None:
        self._evidence, self._margin = found, margin
        self.interrupted = interrupted

    @property
    def records(self) -> list[Record]:
        """All records of mfbench, in the order of the files."""
        return [result.record for result in self._evidence.results if result.record]

    @property
    def notes(self) -> Sequence[str]:
        """The parts of the files that were left out, with the reason."""
        return self._evidence.notes

    @property
    def sentence(self) -> str:
        """The result in a sentence: speed-up, machine, confidence and correctness."""
        from mfbench.report import answer

        return answer.sentence(self._evidence)

    def to_pandas(self) -> pandas.DataFrame:
        """Return one row per measurement: case, status, median and interval (seconds), speed-up, error, memory."""
        from mfbench.report import frames

        return frames.measurements(self._evidence.results)

    def plot(self, name: str = "speedups") -> Picture:
        """Return a figure of the report: speedups, time-over-size, roofline, errors, memory, history-01, ...

        Raises:
            UsageError: no figure of that name, or nothing to draw; the message says why.
        """
        from mfbench.report import page, picture, strips

        content = self._content
        return picture.find(name, [*page.all_plots(content), *strips.plots(self._evidence.latest())])

    def report(self, path: Paths, form: str | None = None) -> Path:
        """Write what `mfbench report` writes.

        Args:
            path: of the report; its ending says the format.
            form: a format of `mfbench report --format`, whatever the ending.

        Raises:
            UsageError: an unknown format, or the extra `report` is not installed.
        """
        from mfbench.report.exports import EXPORTS

        path = Path(path)
        if form not in (None, *PAGES, *EXPORTS):
            raise UsageError(one_of((*PAGES, *EXPORTS), form), code="bad-format", argument="form")
        form = form or format_of(path)
        path.write_text(EXPORTS[form](self._evidence) if form in EXPORTS else self._page(form), encoding="utf-8")
        return path

    def _page(self, form: str) -> str:
        content = self._content  # first, since it says which packages are missing
        from mfbench.report import page

        return page.markdown(content) if form == "md" else page.html(content)

    @functools.cached_property
    def _content(self) -> Content:
        require()
        from mfbench.report import page

        return page.content(self._evidence, self._margin)

    def _repr_html_(self) -> str:
        from mfbench.report import page

        return page.fragment(self.sentence, self._content.results, self._content.notes)

    def __repr__(self) -> str:
        return f"<{len(self._evidence.results)} measurements: {self.sentence}>"


class Compared:
    """Two sets of measurements, compared case by case."""

    def __init__(self, found: comparison.Comparison) -> None:
        self.base, self.new = found.base, found.new
        self.comparison = found

    @property
    def exit_code(self) -> int:
        """As `mfbench compare`: 0 no regression; 1 regression; 3 a case is undecided; 4 cases are missing."""
        return self.comparison.exit_code

    @property
    def sentence(self) -> str:
        """The number of cases that are faster, slower, the same or undecided."""
        from mfbench.report import answer

        return answer.comparison_sentence(self.comparison)

    def to_pandas(self) -> pandas.DataFrame:
        """Return one row per case of both sides: medians (seconds), ratio base / new with its interval, outcome."""
        from mfbench.report import frames

        return frames.pairs(self.comparison)

    def plot(self) -> Picture:
        """Return a figure of the ratios with their intervals."""
        require()
        from mfbench.report import forest, picture

        return picture.find("comparison", [forest.of_comparison(self.comparison)])

    def _repr_html_(self) -> str:
        require()
        from mfbench.report import page

        return page.fragment(self.sentence, page.comparison_table(self.comparison), [])

    def __repr__(self) -> str:
        return f"<{self.sentence}>"


def run(
    suite: str | None = RunOptions.suite,
    *,
    device: str | None = RunOptions.device,
    provider: str | Sequence[str] | None = RunOptions.provider,
    out: Paths | None = None,
    resume: bool = RunOptions.resume,
    threads: int | None = RunOptions.threads,
    baseline: str | None = RunOptions.baseline,
    margin: float = RunOptions.margin,
    budget: float | None = RunOptions.budget,
    resolve: float | None = RunOptions.resolve,
    time_limit: float = RunOptions.time_limit,
    processes: Sequence[int] | None = None,
    **axes: Any,
) -> Results:
    """Time providers on a suite's cases, each behind the correctness gate, as `mfbench run` does.

    Args:
        suite: a name from `mfbench list`, or a TOML file; None: the one case that the axes describe if they have a
            size, else the suite `quick`.
        device: "cpu", "cuda" or "all"; None: the best one here.
        provider: names, or "path/to/file.py:function" or "pkg.module:function" for one of your own; each runs in its
            own process.
        out: the file that records are appended to; None: they are only returned.
        resume: continue the last run in `out`.
        threads: of PyTorch; None: its present number.
        baseline: the provider that speed-ups are relative to; None: the suite's, in most suites autograd.
        margin: largest relative difference between two times that count as the same.
        budget: seconds of timing for each case; None: 5, or at most 120 with `resolve`.
        resolve: smallest relative difference that the verdicts should tell, such as 0.02; the number of rounds follows
            from it. None: as many rounds as the budget allows.
        time_limit: seconds that one answer of a provider may take.
        processes: numbers of processes over which the step's scaling is measured, as `--processes` does. A script must
            guard its entry point by `if __name__ == "__main__":`, since every process imports it.
        axes: size ("MxN"), rank, density, layout, ratings_dtype, mask, data, seed: values or lists
            of values that replace the suite's.

    Raises:
        UsageError: a name, a file or a value that does not fit, or `resume` without `out`.
    """
    if resume and out is None:
        message = "needs `out`, the file that holds the run to continue"
        raise UsageError(message, code="bad-value", argument="resume")
    with tempfile.TemporaryDirectory() as folder:
        options = RunOptions(
            suite=suite, device=device, provider=provider, axes=axes, resume=resume, threads=threads,
            baseline=baseline, margin=margin, budget=budget, resolve=resolve, time_limit=time_limit,
            processes=processes, out=Path(folder) / "records.jsonl" if out is None else Path(out),
        )  # fmt: skip
        with ProgressBar() as bar:
            records, interrupted = run_suite(options, bar)
    found = evidence.of_records(records, "" if out is None else str(out))
    return Results(evidence.Evidence(found, [], []), margin, interrupted)


def load(*paths: Paths, margin: float = RunOptions.margin) -> Results:
    """Read files of records, of other tools' results, or of `mfbench inspect --json`.

    Raises:
        UsageError: a file cannot be read, or the margin is no fraction.
    """
    return Results(evidence.load(map(Path, paths)), checked_margin(margin))


def compare(
    base: Paths | Results,
    new: Paths | Results,
    margin: float = RunOptions.margin,
    force: bool = False,
    allow_missing: bool = False,
) -> Compared:
    """Judge `new` against `base`, case by case, as `mfbench compare` does.

    Args:
        base, new: files, or results that were loaded or measured.
        margin: largest relative difference between two times that count as the same.
        force: compare measurements from different environments.
        allow_missing: cases that `new` lacks do not change the exit code.

    Raises:
        UsageError: a file cannot be read, or the margin is no fraction.
        NotComparable: an unknown schema, different tools, or different environments without `force`.
    """
    return Compared(judged(_side(base, "base"), _side(new, "new"), margin, force, allow_missing))


def _side(side: Paths | Results, name: str) -> Side:
    if isinstance(side, Results):
        return Side(name, [result.measurement for result in side._evidence.results])
    return read(Path(side))
