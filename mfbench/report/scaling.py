"""Scaling over processes: which records belong together, and their table in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.console import RenderableType
from rich.text import Text

from mfbench.problems.cases import Case
from mfbench.report.derived import half_width
from mfbench.report.labels import interval, percent, seconds, short
from mfbench.report.terminal import STYLE, Block, Fitted
from mfbench.results.records import Record, ScalingKind
from mfbench.wording import counted

COLUMNS = (
    "provider", "processes", "threads", "step", "±", "computing", "rest", "model", "T₁/T", "efficiency", "×", "verdict",
)  # fmt: skip


class Series(NamedTuple):
    """The records of one problem, or of one that grows with the processes, by number of processes."""

    case: Case  # of one process
    kind: ScalingKind
    records: Sequence[Record]  # those of one process without a group come first


def all_series(records: Sequence[Record]) -> list[Series]:
    """Return the strong series of each problem that was measured over processes, and the weak one if there is one."""
    kinds: tuple[ScalingKind, ...] = ("strong", "weak")
    found = []
    for one in dict.fromkeys(record.case for record in records if record.case.processes == 1):
        for kind in kinds:
            members = [record for record in records if _belongs(record.case, one, kind)]
            if kind == "strong" or any(record.case != one for record in members):
                found.append(Series(one, kind, sorted(members, key=lambda record: record.case.processes or 0)))
    return found


def _belongs(case: Case, one: Case, kind: ScalingKind) -> bool:
    """Return whether a case is part of the series that starts with `one`."""
    if case.processes is None and kind == "weak":
        return False
    users = one.m * (case.processes or 1) if kind == "weak" else one.m
    return case.model_copy(update={"processes": 1, "m": one.m}) == one and case.m == users


def table(records: Sequence[Record]) -> RenderableType:
    """Return the table of a run over processes: a block for each series, a row for each provider and number."""
    return Fitted([_block(series) for series in all_series(records)])


def _block(series: Series) -> Block:
    case = series.case.model_copy(update={"processes": None})
    title = f"{series.kind} scaling: {case.label}" + (" for each process" if series.kind == "weak" else "")
    baselines = sorted({short(record.speedup.baseline) for record in series.records if record.speedup})
    columns = [f"× {', '.join(baselines)}" if column == "×" else column for column in COLUMNS]
    failed = [record for record in series.records if record.status != "ok"]
    remarks = [f"{short(record.provider)}, {_processes(record)}: {record.reason}" for record in failed]
    remarks += [
        f"{short(record.provider)}, {_processes(record)}: undecided: {record.speedup.reason}"
        for record in series.records
        if record.speedup and record.speedup.reason
    ]
    remarks += [remark for record in series.records if (remark := _against_threads(record))]
    return Block(title, columns, [_row(record) for record in series.records], remarks)


def _row(record: Record) -> Sequence[Text]:
    name = Text(short(record.provider))
    if record.timing is None:
        return name, Text(f"{record.status}, {_processes(record)}", style="red")
    half, group, scaling, speedup = half_width(record), record.group, record.scaling, record.speedup
    step_s, predicted_s = record.timing.median_s, group.predicted_s if group else None
    several = (record.case.processes or 1) > 1
    is_baseline = speedup is None or speedup.baseline == record.provider
    return (
        name,
        Text(str(record.case.processes or "no group")),
        Text(str(record.env["threads"])),
        Text(seconds(step_s)),
        Text("" if half is None else percent(half)),
        Text(seconds(group.computing_s) if group and several else ""),
        Text(f"{_signed(group.communicating_s)} ({group.communicating_s / step_s:.0%})" if group and several else ""),
        Text(f"{seconds(predicted_s)} ({predicted_s / step_s - 1:+.0%})" if predicted_s else ""),
        Text(f"{scaling.ratio:.3g} {interval(*scaling.ci95)}" if scaling else ""),
        Text(f"{scaling.efficiency:.0%} {_percents(*scaling.efficiency_ci95)}" if scaling else ""),
        Text("" if is_baseline or speedup is None else f"{speedup.ratio:.3g} {interval(*speedup.ci95)}"),
        Text("baseline", style="dim") if is_baseline or speedup is None
        else Text(speedup.verdict, style=STYLE[speedup.verdict]),
    )  # fmt: skip


def _against_threads(record: Record) -> str:
    """Say how a record compares with one process of as many threads in all."""
    scaling = record.scaling
    if scaling is None or scaling.one_process_ratio is None or scaling.one_process_ci95 is None:
        return ""
    return (
        f"{short(record.provider)}: {_processes(record)} of {counted(record.env['threads'], 'thread')} are "
        f"{scaling.one_process_ratio:.3g} {interval(*scaling.one_process_ci95)} times as fast as one of "
        f"{counted(scaling.one_process_threads or 0, 'thread')}"
    )


def _processes(record: Record) -> str:
    count = record.case.processes
    return "no group" if count is None else counted(count, "process", "es")


def _signed(value: float) -> str:
    return f"-{seconds(-value)}" if value < 0 else seconds(value)


def _percents(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{low:.0%}, {high:.0%}]"


def legend(records: Sequence[Record]) -> str:
    """Explain the columns, and name the machine."""
    groups = [record for record in records if record.group]
    if not groups:
        return ""
    env, group = groups[0].env, groups[0].group
    assert group is not None
    launches = min(record.group.launches for record in groups if record.group)
    return (
        f"\nstep: of the slowest process, the median of the rounds of {launches} launches; one process was "
        "launched before and after each. computing: the same on its own users, without messages; rest: what the step "
        "takes beyond it, and its share, each a median over rounds. model: predicted by docs/scaling.md from rates "
        "measured in the same launches, and how far that is off. T₁/T: one process's time over this one's, by "
        "launches, with its 95 % interval. efficiency: of strong scaling that divided by the number of processes. "
        f"{group.backend}, {env['cpu']}, {env['cpus']} cores"
    )
