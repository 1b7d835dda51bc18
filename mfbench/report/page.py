"""One self-contained page: what the templates are given, and the templates put together."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from mfbench.report import answer, figures, forest, history, samples, tables
from mfbench.report.evidence import Evidence
from mfbench.report.labels import alike, case_labels, device_and_case, printable, short
from mfbench.report.style import Plot, inline
from mfbench.report.tables import Row
from mfbench.results.comparison import Comparison, compare

MOST_ROWS = 200  # of a table that are in the markup
MARKDOWN = {character: f"\\{character}" for character in r"\`*_[]|#~!$"} | {
    "&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;",
}  # fmt: skip


class Compared(NamedTuple):
    """A comparison with the names of its sides."""

    base: str
    new: str
    comparison: Comparison


class Table(NamedTuple):
    """A table that sorts and filters."""

    name: str
    columns: Sequence[str]
    rows: Sequence[Row]
    opens: bool = False  # a row shows its samples


class Failure(NamedTuple):
    """What failed in the same way."""

    status: str
    provider: str
    reason: str
    cases: Sequence[str]


class Content(NamedTuple):
    """What a report says, before it is markup."""

    sentence: str
    others: Sequence[str]
    compared: Compared | None
    failures: Sequence[Failure]
    alike: str  # what is left out of the cases' labels
    results: Table
    plots: Sequence[Plot]
    courses: Sequence[history.Course]
    builds: Table
    notes: Sequence[str]
    evidence: Evidence


def content(evidence: Evidence, margin: float) -> Content:
    """Everything that the page and its short form say.

    Args:
        evidence: what the files hold.
        margin: relative change up to which two times are the same, in comparisons and histories.
    """
    latest = evidence.latest()
    cases = [(entry.measurement.case, entry.measurement.device) for entry in latest]
    rows = tables.rows(latest, case_labels(cases))
    return Content(
        sentence=answer.sentence(evidence),
        others=[f"{answer.claim(pool)}." for pool in answer.pooled(latest)[1:]],
        compared=_compared(evidence, margin),
        failures=_failures(rows),
        alike=alike(cases),
        results=Table("results", tables.COLUMNS, rows, opens=True),
        plots=figures.plots(latest) if latest else [],
        courses=history.courses(evidence.histories(), margin),
        builds=Table("builds", tables.BUILD_COLUMNS, [tables.built(build) for build in evidence.builds]),
        notes=[printable(note) for note in evidence.notes],
        evidence=evidence,
    )


def _failures(rows: Sequence[Row]) -> list[Failure]:
    found: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        if row.failed:
            found.setdefault((row.cells[2], row.cells[1], row.reason), []).append(row.title)
    return [Failure(*key, cases) for key, cases in found.items()]


def _compared(evidence: Evidence, margin: float) -> Compared | None:
    sides = evidence.sides()
    if sides is None:
        return None
    (base, old), (new, now) = sides
    return Compared(base, new, compare([e.measurement for e in old], [e.measurement for e in now], margin))


def all_plots(what: Content) -> list[Plot]:
    """Every figure of the page, those of the histories last."""
    compared = [forest.of_comparison(what.compared.comparison)] if what.compared else []
    return [*what.plots, *compared, *history.plots(what.courses)]


def html(what: Content) -> str:
    """The page. Nothing in it is fetched from anywhere, and only its own script may run."""
    environment = _environment()
    script = environment.get_template("page.js").render()
    evidence = what.evidence
    latest = evidence.latest()
    courses = {course.key: course for course in what.courses}
    packed = samples.packed(latest, evidence.histories(), courses)
    notes = list(what.notes)
    if packed.left_out:
        notes.append(
            f"The raw samples of {packed.left_out:,} older measurements would make this page too large and are not in "
            "it; their medians are."
        )
    comparison = comparison_table(what.compared)
    sortable = (what.results, comparison, what.builds)
    return environment.get_template("page.html").render(
        what=what,
        most_rows=MOST_ROWS,
        notes=notes,
        comparison=comparison,
        comparison_svg=_svg(forest.of_comparison(what.compared.comparison)) if what.compared else None,
        histories=[(plot, _svg(plot)) for plot in history.plots(what.courses)],
        sections=[(plot, _svg(plot)) for plot in what.plots],
        stepped=[(c, step) for c in what.courses for step in c.steps],
        describe=history.describe,
        name=lambda key: f"{device_and_case(key[0], key[2])} · {printable(short(key[1]))}",
        compared_sentence=answer.comparison_sentence,
        environment=tables.environment(evidence.entries),
        style=Markup(environment.get_template("style.css").render()),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=_compact({
            "tables": {table.name: _table_data(table) for table in sortable},
            "runs": packed.runs,
            "items": packed.items,
        }),
    )  # fmt: skip


def comparison_table(compared: Compared | None) -> Table:
    """The pairs of a comparison, their cases under short labels."""
    pairs = compared.comparison.pairs if compared else []
    cases = [(pair.new.case, pair.new.device) for pair in pairs]
    labels = case_labels(cases)
    rows = [tables.compared(pair, labels[case]) for pair, case in zip(pairs, cases, strict=True)]
    return Table("comparison", tables.COMPARED_COLUMNS, rows)


def _table_data(table: Table) -> dict[str, Any]:
    """What the rows sort by, and the rows that the markup has no place for: a browser would lay them all out."""
    rest = [
        ([*row.cells, *([row.reason] if row.reason else [])], bool(row.reason), row.failed)
        for row in table.rows[MOST_ROWS:]
    ]
    return {"keys": [row.keys for row in table.rows], "rest": rest}


def _svg(plot: Plot) -> Markup | None:
    return Markup(inline(plot.draw, plot.name)) if plot.draw else None


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mfbench.report"),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return environment


def fragment(sentence: str, table: Table, notes: Sequence[str]) -> str:
    """A table under a sentence, for a notebook's cell."""
    return _environment().get_template("fragment.html").render(sentence=sentence, table=table, notes=notes)


def markdown(what: Content) -> str:
    """The short form, for a comment under a change."""
    environment = _environment()
    environment.filters["plain"] = _markdown_text
    comparison = comparison_table(what.compared)
    sentence = what.compared and answer.comparison_sentence(
        what.compared.comparison, what.compared.base, what.compared.new
    )
    text = environment.get_template("summary.md").render(what=what, comparison=comparison, compared_sentence=sentence)
    return text.strip() + "\n"


def _markdown_text(text: str) -> str:
    """Text that Markdown shows as it is: no markup, no table cells, no mentions."""
    return "".join(MARKDOWN.get(character, character) for character in " ".join(text.split()))


def _compact(value: Any) -> Any:
    """For JSON, which has no NaN and no infinity: floats with seven digits, and None for what is not finite."""
    if isinstance(value, dict):
        return {name: _compact(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_compact(inner) for inner in value]
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value
