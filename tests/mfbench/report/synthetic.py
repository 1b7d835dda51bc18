"""Records that no machine took, for reports whose content is known."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np

from mfbench.problems.cases import Case
from mfbench.providers.outputs import OUTPUTS
from mfbench.results.records import Record
from mfbench.results.writer import Writer
from mfbench.stats import intervals

ENV = {"cpu": "Testium 9000", "cpus": 2, "threads": 2, "system": "Linux 6", "memory_bytes": 8 << 30,
       "versions": {"python": "3.11.0", "torch": "2.13.0"}, "commit": "abc", "dirty": False}  # fmt: skip
PEAK, COPY = 1e11, 2e10
HOSTILE = (
    "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1> \"'&{{7*7}} $x^2$ 😀 مرحبا\u202e"
)


def case(number: int = 0, **changes: Any) -> Case:
    fields = {"suite": "quick", "m": 64 << number, "n": 64 << number, "rank": 8, "density": 0.5,
              "ratings_dtype": "float32", "mask": "uint8", "data": "synthetic", "seed": 1}  # fmt: skip
    return Case(**(fields | changes))


def ok(
    of: Case, provider: str = "fused", median_s: float = 1e-3, baseline_s: float = 4e-3, run: int = 0, rounds: int = 30,
    noise: float = 0.01, error: float = 0.1, **changes: Any,
) -> Record:  # fmt: skip
    """A timed record; its speed-up is that of the samples over the baseline's, drawn with the same noise."""
    rng = np.random.default_rng([run, of.m, len(provider)])
    samples = median_s * np.exp(noise * rng.standard_normal(rounds))
    ratio = intervals.ratio_interval(baseline_s * np.exp(noise * rng.standard_normal(rounds)), samples)
    if provider == "autograd":
        ratio = intervals.Interval(1.0, 1.0, 1.0)
    median = intervals.median_interval(samples)
    work = 6.0 * of.m * of.n * of.rank
    fields = {
        "run_id": f"run-{run}", "time": at(run), "case": of, "provider": provider, "device": "cpu", "status": "ok",
        "correctness": {name: {"error": error, "bound": 1.0, "rms_bound": 1.0, "ok": error <= 1} for name in OUTPUTS},
        "timing": {"samples_s": samples.tolist(), "median_s": median.estimate, "ci95_s": (median.low, median.high),
                   "rounds": rounds, "loops": 1, "method": "made up", "cold_cache": False},
        "speedup": {"baseline": "autograd", "ratio": ratio.estimate, "ci95": (ratio.low, ratio.high), "margin": 0.02,
                    "verdict": intervals.verdict(ratio, 0.02)},
        "rates": {"ratings_per_s": of.m * of.n / median_s, "flops_per_s": work / median_s, "bytes_per_s": 1e6},
        "roofline": {"bound": "compute", "fraction": work / PEAK / median_s, "gemm_flops_per_s": PEAK / 2,
                     "peak_flops_per_s": PEAK, "copy_bytes_per_s": COPY},
        "peak_bytes": 4096, "env": ENV,
    }  # fmt: skip
    return Record.model_validate(fields | changes)


def failed(of: Case, status: str, reason: str | None, provider: str = "mine.py:step", run: int = 0) -> Record:
    return Record.model_validate({"run_id": f"run-{run}", "time": at(run), "case": of, "provider": provider,
                                  "device": "cpu", "status": status, "reason": reason, "env": ENV})  # fmt: skip


def at(run: int) -> str:
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
    return (start + datetime.timedelta(hours=6 * run)).isoformat()


def suite(run: int = 0, factor: float = 1.0) -> list[Record]:
    """Four sizes whose times grow as their number of ratings; `fused` is four times as fast as `autograd`."""
    found = []
    for number in range(4):
        slow = 4e-3 * 4**number
        found.append(ok(case(number), "fused", factor * slow / 4, slow, run))
        found.append(ok(case(number), "autograd", slow, slow, run))
    return found


def history(runs: int, cases: int, step_at: int, ratio: float, rounds: int = 30) -> list[Record]:
    """Runs of the same cases; from `step_at` on the first case takes `ratio` times as long."""
    changed = ratio * 1e-3
    return [
        ok(case(m=50 + number, n=60), "fused", changed if number == 0 and run >= step_at else 1e-3, 4e-3, run, rounds)
        for run in range(runs)
        for number in range(cases)
    ]  # fmt: skip


def write(path: Path, records: list[Record]) -> Path:
    writer = Writer(path)
    writer.append(records)
    writer.close()
    return path
