"""Numbers that follow from a record and that tables, figures and data frames show."""

from __future__ import annotations

from mfbench.results.records import Record


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
