"""One self-contained page, or a summary in Markdown, from templates and their contents."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from mfbench.report import answer, figures, forest, history, samples, tables
from mfbench.report.derived import undecided
from mfbench.report.evidence import Evidence
from mfbench.report.labels import Place, case_labels, common_properties, full_name, printable, short
from mfbench.report.style import Plot, inline
from mfbench.report.tables import Row
from mfbench.results.comparison import OUTCOMES, Comparison, compare
from mfbench.stats.margin import checked_margin

MOST_ROWS = 200  # rows of a table in the markup; the script adds the others on demand
MARKDOWN = {character: f"\\{character}" for character in r"\`*_[]|#~!$"} | {
    "&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;",
}  # fmt: skip


class Table(NamedTuple):
    """A table that can be sorted and filtered."""

    name: str
    columns: Sequence[str]
    rows: Sequence[Row]
    opens: bool = False  # a row shows its samples


class Failure(NamedTuple):
    """Cases that failed in the same way."""

    status: str
    provider: str
    reason: str
    cases: Sequence[str]


class Content(NamedTuple):
    """What a report says, before it becomes markup."""

    sentence: str
    others: Sequence[str]
    comparison: Comparison | None
    failures: Sequence[Failure]
    undecided: Sequence[str]  # results whose verdict is inconclusive, and what would decide it
    common: str  # properties that all cases share
    results: Table
    plots: Sequence[Plot]
    histories: Sequence[history.History]
    builds: Table
    notes: Sequence[str]
    evidence: Evidence


def content(evidence: Evidence, margin: float) -> Content:
    """Return the contents of the page and of its summary.

    Args:
        evidence: the contents of the files.
        margin: relative difference up to which two times count as the same, in comparisons and histories.

    Raises:
        UsageError: the margin is no fraction.
    """
    latest = evidence.latest()
    places = [result.place for result in latest]
    rows = tables.rows(latest, case_labels(places))
    return Content(
        sentence=answer.sentence(evidence),
        others=[f"{answer.claim(pool)}." for pool in answer.pooled(latest)[1:]],
        comparison=_comparison(evidence, checked_margin(margin)),
        failures=_failures(rows),
        undecided=[
            printable(f"{short(result.measurement.provider)} on {full_name(*result.place)}: {what}")
            for result in latest
            if result.record and (what := undecided(result.record))
        ],
        common=common_properties(places),
        results=Table("results", tables.COLUMNS, rows, opens=True),
        plots=figures.plots(latest) if latest else [],
        histories=history.histories(evidence.by_key(), margin),
        builds=Table("builds", tables.BUILD_COLUMNS, [tables.build_row(build) for build in evidence.builds]),
        notes=[printable(note) for note in evidence.notes],
        evidence=evidence,
    )


def _failures(rows: Sequence[Row]) -> list[Failure]:
    found: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        if row.failed:
            _, provider, status, *_ = (cell.text for cell in row.cells)
            found.setdefault((status, provider, row.reason), []).append(row.title)
    return [Failure(*key, cases) for key, cases in found.items()]


def _comparison(evidence: Evidence, margin: float) -> Comparison | None:
    sides = evidence.sides()
    if sides is None:
        return None
    base, new = ([result.measurement for result in side.results] for side in sides)
    return compare(base, new, margin, names=(sides[0].name, sides[1].name))


def all_plots(what: Content) -> list[Plot]:
    """Return every figure of the page, histories last."""
    compared = [forest.of_comparison(what.comparison)] if what.comparison else []
    return [*what.plots, *compared, *history.plots(what.histories)]


def html(what: Content) -> str:
    """Return the page. It loads nothing, and only its own script may run."""
    environment = _environment()
    script = environment.get_template("page.js").render()
    evidence = what.evidence
    packed = samples.packed(evidence.latest(), evidence.by_key(), what.histories)
    notes = list(what.notes)
    if packed.left_out:
        notes.append(
            f"The raw samples of {packed.left_out:,} older measurements would make this page too large and are not in "
            "it; their medians are."
        )
    comparison = comparison_table(what.comparison)
    sortable = (what.results, comparison, what.builds)
    return environment.get_template("page.html").render(
        what=what,
        most_rows=MOST_ROWS,
        outcomes=[word.replace(" ", "-") for word in OUTCOMES.values()],
        notes=notes,
        comparison=comparison,
        comparison_svg=_svg(forest.of_comparison(what.comparison)) if what.comparison else None,
        histories=[(plot, _svg(plot)) for plot in history.plots(what.histories)],
        sections=[(plot, _svg(plot)) for plot in what.plots],
        changed=[(h, change) for h in what.histories for change in h.changes],
        describe=history.describe,
        name=lambda h: f"{full_name(*h.place)} · {printable(short(h.provider))}",
        comparison_sentence=answer.comparison_sentence,
        environment=tables.environment(evidence.results),
        style=Markup(environment.get_template("style.css").render()),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=_compact({
            "tables": {table.name: _table_data(table) for table in sortable},
            "runs": packed.runs,
            "items": packed.items,
        }),
    )  # fmt: skip


def comparison_table(comparison: Comparison | None) -> Table:
    """Return the table of the pairs of a comparison."""
    pairs = comparison.pairs if comparison else []
    places = [Place(pair.new.case, pair.new.device) for pair in pairs]
    labels = case_labels(places)
    rows = [tables.pair_row(pair, labels[place]) for pair, place in zip(pairs, places, strict=True)]
    return Table("comparison", tables.PAIR_COLUMNS, rows)


def _table_data(table: Table) -> dict[str, Any]:
    """Return the sort keys of all rows, and the rows beyond those in the markup, which would slow a browser down."""
    rest = [
        ([*(cell.text for cell in row.cells), *([row.reason] if row.reason else [])], bool(row.reason), row.failed)
        for row in table.rows[MOST_ROWS:]
    ]
    return {"keys": [[cell.number for cell in row.cells] for row in table.rows], "rest": rest}


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
    """Return a table below a sentence, for the cell of a notebook."""
    return _environment().get_template("fragment.html").render(sentence=sentence, table=table, notes=notes)


def markdown(what: Content) -> str:
    """Return the summary, for a comment on a pull request."""
    environment = _environment()
    environment.filters["plain"] = _markdown_text
    sentence = what.comparison and answer.comparison_sentence(what.comparison)
    text = environment.get_template("summary.md").render(
        what=what, comparison=comparison_table(what.comparison), comparison_sentence=sentence
    )
    return text.strip() + "\n"


def _markdown_text(text: str) -> str:
    """Escape a text so that Markdown shows it unchanged: no markup, table cells or mentions."""
    return "".join(MARKDOWN.get(character, character) for character in " ".join(text.split()))


def _compact(value: Any) -> Any:
    """Prepare a value for JSON: floats with seven digits, and None for NaN and infinity, which JSON lacks."""
    if isinstance(value, dict):
        return {name: _compact(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_compact(inner) for inner in value]
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value
