"""The script that counts false alarms: every comparison is kept, counted once, and a second run goes on."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from mfbench.records import read
from tests.mfbench.false_alarms import main

SMALL = ["--size", "24x32", "--budget", "0.3", "--threads", "1", "--suite-of", "1"]


def test_a_count_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    out = tmp_path / "count.jsonl"
    first = CliRunner().invoke(main, ["--comparisons", "1", *SMALL, "--out", str(out)], catch_exceptions=False)
    assert "intervals that hold 1: " in first.output
    again = CliRunner().invoke(main, ["--comparisons", "2", *SMALL, "--out", str(out)], catch_exceptions=False)
    assert "1 comparisons are in" in again.output
    assert "false alarms: " in again.output
    assert " of 2, " in again.output
    records, faults = read(out)
    assert (len(records), faults) == (4, [])
    assert {record.status for record in records} == {"ok"}


def test_a_planted_slowdown_is_counted_as_found_or_missed(tmp_path: Path) -> None:
    arguments = ["--comparisons", "1", "--slowdown", "5", *SMALL, "--out", str(tmp_path / "count.jsonl")]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert "found slower: " in result.output
    assert "family-wise" in result.output
