"""`false_alarms`: every comparison is kept and counted once, and a second run continues."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from mfbench.results.records import read
from tests.studies.false_alarms import Count, main, summary

pytestmark = pytest.mark.studies
SMALL = ["--size", "24x32", "--budget", "0.3", "--threads", "1", "--suite-of", "1", "--slowdown", "5"]


def test_a_count_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    out = tmp_path / "count.jsonl"
    first = CliRunner().invoke(main, ["--comparisons", "1", *SMALL, "--out", str(out)], catch_exceptions=False)
    assert "found slower: " in first.output
    assert " of 1, " in first.output
    again = CliRunner().invoke(main, ["--comparisons", "2", *SMALL, "--out", str(out)], catch_exceptions=False)
    assert "1 comparisons are already in" in again.output
    assert " of 2, " in again.output
    records, faults = read(out)
    assert (len(records), faults) == (4, [])
    assert {record.status for record in records} == {"ok"}

    identical = Count(2, "fused", 0, ("24x32",), 1, 1, 0.02, 0.3)
    told = "\n".join(summary(list(zip(records[::2], records[1::2], strict=True)), identical))
    alarms = sum(record.speedup.verdict in ("faster", "slower") for record in records[1::2])
    assert f"false alarms: {alarms} of 2" in told
    assert "suites of 1 with a false alarm, family-wise: " in told
