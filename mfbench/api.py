"""The Python interface: what the command line does, with results as objects that a notebook shows.

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
from mfbench.report import evidence
from mfbench.report.requirements import require
from mfbench.results import comparison
from mfbench.results.judging import Side, judged, read
from mfbench.results.records import Record
from mfbench.stats.margin import checked_margin

if TYPE_CHECKING:
    import pandas

    from mfbench.report.page import Content
    from mfbench.report.picture import Picture

Paths = str | Path
MARGIN = 0.02


class Results:
    """Measurements, from a run or from files. In a notebook they show themselves as a table under their answer."""

    def __init__(self, found: evidence.Evidence, margin: float = MARGIN, interrupted: bool = False) -> None:
        self._evidence, self._margin = found, margin
        self.interrupted = interrupted

    @property
    def records(self) -> list[Record]:
        """Everything that mfbench measured, in the order of the files."""
        return [result.record for result in self._evidence.results if result.record]

    @property
    def notes(self) -> Sequence[str]:
        """What was left out of the files, and why."""
        return self._evidence.notes

    @property
    def sentence(self) -> str:
        """The answer: what is how much faster than what, on which machine, how sure, and whether all is right."""
        from mfbench.report import answer

        return answer.sentence(self._evidence)

    def to_pandas(self) -> pandas.DataFrame:
        """A row a measurement: the case's fields, status, median and interval (seconds), speed-up, error, memory."""
        from mfbench.report import frames

        return frames.measurements(self._evidence.results)

    def plot(self, name: str = "speedups") -> Picture:
        """A figure of the report: speedups, time-over-size, roofline, errors, memory, history-01, samples-001, ...

        Raises:
            UsageError: there is no figure of that name, or nothing to draw; the message says why.
        """
        from mfbench.report import page, picture, strips

        content = self._content
        return picture.find(name, [*page.all_plots(content), *strips.plots(self._evidence.latest())])

    def report(self, path: Paths, form: str | None = None) -> Path:
        """Write the page of `mfbench report`, or with `form="md"` its short version."""
        from mfbench.report import page

        path = Path(path)
        as_markdown = (form or path.suffix.removeprefix(".")) == "md"
        path.write_text((page.markdown if as_markdown else page.html)(self._content), encoding="utf-8")
        return path

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
    """Two sides held against each other, case by case."""

    def __init__(self, found: comparison.Comparison) -> None:
        self.base, self.new = found.base, found.new
        self.comparison = found

    @property
    def exit_code(self) -> int:
        """As `mfbench compare`: 0 no regression; 1 regression; 3 a case is undecided; 4 cases are missing."""
        return self.comparison.exit_code

    @property
    def sentence(self) -> str:
        """How many cases are faster, slower, the same or undecided."""
        from mfbench.report import answer

        return answer.comparison_sentence(self.comparison)

    def to_pandas(self) -> pandas.DataFrame:
        """A row a case that both sides have: medians in seconds, ratio base / new with its interval, outcome."""
        from mfbench.report import frames

        return frames.pairs(self.comparison)

    def plot(self) -> Picture:
        """The ratios with their intervals."""
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
    suite: str = "quick",
    *,
    device: str | None = None,
    provider: str | Sequence[str] | None = None,
    out: Paths | None = None,
    resume: bool = False,
    threads: int | None = None,
    baseline: str = "autograd",
    margin: float = MARGIN,
    budget: float = 5.0,
    time_limit: float = 300.0,
    **axes: Any,
) -> Results:
    """Time providers on a suite's cases, each behind the correctness gate, as `mfbench run` does.

    Args:
        suite: a name of `mfbench list`, or a TOML file.
        device: "cpu", "cuda" or "all"; None: the best one here.
        provider: names, or "path/to/file.py:function" for one of your own; it runs in a process of its own.
        out: file that the records are appended to; None: they are only returned.
        resume: go on with the last run in `out`.
        threads: of PyTorch; None: as many as it is set to now.
        baseline: the provider that speed-ups are against.
        margin: relative change up to which two times are the same.
        budget: seconds of timing a case.
        time_limit: seconds that a single answer of a provider may take.
        axes: size ("MxN"), rank, density, ratings_dtype, mask, data, seed: a value or a list of them, in place of the
            suite's.

    Raises:
        UsageError: a name, a file or a value that does not fit.
    """
    from pydantic import ValidationError

    from mfbench.commands.run import run_suite
    from mfbench.problems.cases import Axes, fault

    names = [provider] if isinstance(provider, str) else provider
    if callable(names) or not all(isinstance(name, str) for name in names or ()):
        raise UsageError(
            f"provider: expected names, a function of your own as 'path/to/file.py:function', got {names!r}"
        )
    checked_margin(margin)
    for name, value, fits in (
        ("threads", threads, threads is None or threads >= 1),
        ("budget", budget, budget > 0),
        ("time_limit", time_limit, time_limit > 0),
    ):
        if not fits:
            raise UsageError(f"{name}: expected a positive number, got {value!r}")
    try:
        given = Axes.model_validate({"size": "1x1", **axes})
    except ValidationError as error:
        raise UsageError(f"run: {fault(error, Axes)}") from None
    overrides = {name: getattr(given, name) for name in axes}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(out) if out is not None else Path(folder) / "records.jsonl"
        found, interrupted = run_suite(
            suite, device, names, overrides, path, resume, threads, baseline, margin, budget, time_limit
        )
    source = "" if out is None else str(out)
    return Results(evidence.Evidence(evidence.of_records(found, source), [], []), margin, interrupted)


def load(*paths: Paths, margin: float = MARGIN) -> Results:
    """Read files of records, of other tools' results, or of `mfbench inspect --json`.

    Raises:
        UsageError: a file cannot be read.
    """
    return Results(evidence.load(map(Path, paths)), checked_margin(margin))


def compare(
    base: Paths | Results,
    new: Paths | Results,
    margin: float = MARGIN,
    force: bool = False,
    allow_missing: bool = False,
) -> Compared:
    """Judge `new` against `base`, case by case, as `mfbench compare` does.

    Raises:
        UsageError: a file cannot be read, or the margin is no fraction.
        NotComparable: an unknown schema, different tools, or different environments without `force`.
    """
    return Compared(judged(_side(base, "base"), _side(new, "new"), margin, force, allow_missing))


def _side(side: Paths | Results, name: str) -> Side:
    if isinstance(side, Results):
        return Side(name, [result.measurement for result in side._evidence.results])
    return read(Path(side))
