"""Numbers that follow from a record and that tables, figures and data frames show."""

from __future__ import annotations

import math

from mfbench.measure.planning import duration
from mfbench.results.crowding import Crowding
from mfbench.results.records import Record

BUDGET_PER_ROUNDS = 1.3  # budget, pilot and replaced rounds included, per second of rounds
LONGEST_BUDGET_S = 24 * 3600.0  # longest that is recommended


def half_width(record: Record) -> float | None:
    """Return half the 95 % interval of the median, relative to the median; None without an interval."""
    if record.timing is None:
        return None
    low, high = record.timing.ci95_s
    return None if low is None or high is None else (high - low) / 2 / record.timing.median_s


def error_over_bound(record: Record) -> float | None:
    """Return the largest error of the outputs, relative to its bound; None if the gate was not reached."""
    if not record.correctness:
        return None
    return max((c.error or 0) / c.bound if c.bound else 0 for c in record.correctness.values())


def gemm_fraction(record: Record) -> float | None:
    """Return the operations of a step over the median time, relative to PyTorch's GEMM rate; None without times."""
    if record.rates is None or record.roofline is None:
        return None
    return record.rates.flops_per_s / record.roofline.gemm_flops_per_s


def verdict(record: Record) -> str | None:
    """Return the verdict of the speed-up, or "baseline" for what it is against; None without a speed-up."""
    if record.speedup is None:
        return None
    return "baseline" if record.speedup.baseline == record.provider else record.speedup.verdict


def undecided(record: Record) -> str:
    """Return what would decide an inconclusive verdict; empty for all other verdicts."""
    if verdict(record) != "inconclusive" or record.timing is None or record.speedup is None:
        return ""
    return would_decide(record.speedup.reason or record.crowding, record.speedup.needs_s, record.timing.took_s)


def would_decide(crowding: Crowding | str | None, needs_s: float | None, took_s: float | None) -> str:
    """Return what would decide a verdict on which measurements were inconclusive; empty if that is not known.

    Args:
        crowding: other programs that prevent it, if any.
        needs_s: seconds of rounds that would probably decide it.
        took_s: seconds that the rounds took.
    """
    if crowding:
        return f"undecided: {crowding}"
    if needs_s is None or not took_s:
        return ""
    budget_s = needs_s * BUDGET_PER_ROUNDS
    if budget_s > LONGEST_BUDGET_S:
        longest = duration(LONGEST_BUDGET_S)
        return f"undecided; more than {longest} of rounds would be needed, the noise being what it is"
    times = f"{needs_s / took_s:.2g} times as many rounds would probably decide it"
    return f"undecided; {times}: --budget {math.ceil(budget_s)}"
