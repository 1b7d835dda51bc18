"""The findings as text: the verdict in the first line, then what was seen, in fewer than a hundred lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mfbench.gpu_check.run import Findings
from mfbench.gpu_check.task import Result
from mfbench.measure.recording import Fields
from mfbench.report.labels import seconds

MOST_LINES = 99
LONGEST_LINE = 160  # characters
LONGEST_REASON = 400  # characters of what is wrong with one task
MOST_WRONG, MOST_NAMES = 20, 4  # that are listed
COLUMNS = 3  # of right builds
INDENT = 2  # of the lines of a section


def summary(findings: Findings, environment: Mapping[str, Any], missing: Sequence[str]) -> str:
    """Return the text.

    Args:
        findings: of the run.
        environment: from `mfbench.results.environment.describe`.
        missing: one line for each thing that was left out as a package is not installed.
    """
    lines = [verdict(findings), "", *_environment(findings, environment), *missing]
    lines += _section("wrong", _wrong(findings))
    for part in dict.fromkeys(task.part for task, _ in findings.results):
        right = [result for task, result in findings.results if task.part == part and not result.wrong]
        timed = [record for result in right for record in result.records if record.get("timing")]
        lines += _section(part, [*_times(timed), *_figures([result for result in right if result.note])])
    lines += _section("left out", _left_out(findings))
    lines = [line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE - 1] + "…" for line in lines]
    if len(lines) > MOST_LINES:
        lines = [*lines[: MOST_LINES - 1], f"and {len(lines) - MOST_LINES + 1} more lines"]
    return "\n".join(lines) + "\n"


def verdict(findings: Findings) -> str:
    """Return the first line: what is wrong, what was not looked at, or that all is right."""
    wrong, count = findings.wrong, len(findings.results)
    after = f"on {findings.machine}, {findings.seconds:.0f} s"
    if wrong:
        _, first = wrong[0]
        return f"WRONG: {len(wrong)} of {count} checks {after}; first {first.name}: {first.wrong}"
    if findings.lost:
        return f"WRONG: {findings.lost} after {count} checks {after}"
    if findings.unfinished:
        what = f"{len(findings.unfinished)} more were not made"
        return f"INCOMPLETE: nothing wrong in {count} checks {after}, but {what}, from {findings.unfinished[0].name} on"
    return f"RIGHT: all {count} checks {after}"


def _environment(findings: Findings, environment: Mapping[str, Any]) -> Iterator[str]:
    versions = environment.get("versions", {})
    dirty = ", with changes" if environment.get("dirty") else ""
    units = f", {environment['multiprocessors']} multiprocessors" if "multiprocessors" in environment else ""
    yield f"machine      {findings.machine}{units}; {environment['cpu']}"
    yield f"driver       {environment.get('driver') or 'none'}; {environment['system']}"
    yield "versions     " + ", ".join(f"{name} {version}" for name, version in versions.items())
    yield f"commit       {environment.get('commit') or 'unknown'}{dirty}"


def _section(title: str, lines: Iterable[str]) -> list[str]:
    lines = list(lines)
    return ["", title, *(" " * INDENT + line for line in lines)] if lines else []


def _wrong(findings: Findings) -> Iterator[str]:
    for task, result in findings.wrong[:MOST_WRONG]:
        yield f"{task.part}: {result.name}: {result.wrong[:LONGEST_REASON]}"
    if len(findings.wrong) > MOST_WRONG:
        yield f"and {len(findings.wrong) - MOST_WRONG} more"


def _figures(found: Sequence[Result]) -> Iterator[str]:
    """Yield names and figures in columns."""
    cells = [f"{result.name}: {result.note}" for result in found]
    width = max(map(len, cells), default=0) + 2
    columns = max(1, min(COLUMNS, LONGEST_LINE // width))
    for first in range(0, len(cells), columns):
        yield "".join(f"{cell:{width}}" for cell in cells[first : first + columns]).rstrip()


def _times(records: Sequence[Fields]) -> Iterator[str]:
    """Yield tables: median and speed-up with its interval, a column for each case, as many as a line has room for."""
    if not records:
        return
    cases = list(dict.fromkeys(record["case"].label for record in records))
    cells = {(record["provider"], record["case"].label): _cell(record) for record in records}
    providers = list(dict.fromkeys(record["provider"] for record in records))
    name = max(map(len, providers)) + 2
    width = max(map(len, [*cases, *cells.values()])) + 2
    columns = max(1, (LONGEST_LINE - INDENT - name) // width)
    for first in range(0, len(cases), columns):
        shown = cases[first : first + columns]
        yield " " * name + "".join(f"{case:{width}}" for case in shown).rstrip()
        for provider in providers:
            row = "".join(f"{cells.get((provider, case), '–'):{width}}" for case in shown)
            yield f"{provider:{name}}{row.rstrip()}"


def _cell(record: Fields) -> str:
    median = seconds(record["timing"]["median_s"])
    speedup = record.get("speedup")
    if speedup is None or speedup["baseline"] == record["provider"]:
        return median
    low, high = speedup["ci95"]
    interval = "" if low is None or high is None else f" [{low:.3g}, {high:.3g}]"
    return f"{median} {speedup['ratio']:.3g}×{interval}"


def _left_out(findings: Findings) -> Iterator[str]:
    if findings.running is not None:
        yield f"{findings.running.part}: {findings.running.name} did not end in time"
    if findings.lost:
        yield findings.lost
    for part in dict.fromkeys(task.part for task in findings.left_out):
        names = [task.name for task in findings.left_out if task.part == part]
        listed = ", ".join(names[:MOST_NAMES])
        yield f"{part}: {listed} and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else f"{part}: {listed}"
