"""Judging two files: what is refused, what is left out with a note, and what `force` and `allow_missing` change."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfbench.errors import NotComparable, UsageError
from mfbench.results import judging
from mfbench.results.judging import Side, judged, read
from tests.mfbench.report.synthetic import case, ok, suite, write


@pytest.fixture
def base(tmp_path: Path) -> Side:
    return read(write(tmp_path / "base.jsonl", suite(0)))


def test_a_slower_run_is_judged_slower(tmp_path: Path, base: Side) -> None:
    comparison = judged(base, read(write(tmp_path / "new.jsonl", suite(1, factor=1.5))), 0.02)
    assert {pair.outcome for pair in comparison.pairs} == {"slower", "same"}
    assert comparison.exit_code == 1


def test_another_environment_is_refused_unless_forced(tmp_path: Path, base: Side) -> None:
    other = [record.model_copy(update={"env": {**record.env, "cpu": "Other 1"}}) for record in suite(1)]
    new = read(write(tmp_path / "new.jsonl", other))
    with pytest.raises(NotComparable, match="cpu is Other 1, was Testium 9000") as refused:
        judged(base, new, 0.02)
    assert refused.value.code == "different-environment"
    assert [difference.name for difference in judged(base, new, 0.02, force=True).environment] == ["cpu"]


def test_results_of_different_tools_are_refused_even_if_forced(base: Side) -> None:
    other = base._replace(name="other", measurements=[m._replace(tool="hyperfine") for m in base.measurements])
    with pytest.raises(NotComparable, match="other holds results of hyperfine") as refused:
        judged(base, other, 0.02, force=True)
    assert refused.value.code == "different-kind"


def test_missing_cases_count_unless_allowed(base: Side) -> None:
    fewer = base._replace(measurements=base.measurements[:-1])
    assert judged(base, fewer, 0.02).exit_code != 0
    assert judged(base, fewer, 0.02, allow_missing=True).exit_code == 0


def test_a_margin_that_is_no_fraction_is_refused(base: Side) -> None:
    with pytest.raises(UsageError):
        judged(base, base, 5)


def test_the_last_measurement_of_a_case_counts_and_a_note_says_so(tmp_path: Path, capsys) -> None:
    path = write(tmp_path / "r.jsonl", [ok(case(), median_s=1e-3), ok(case(), median_s=2e-3, run=1)])
    side = read(path)
    assert capsys.readouterr().err == f"mfbench: {path}: 1 left out: measured again further down\n"
    assert side.name == str(path)


def test_notes_are_limited(tmp_path: Path, capsys) -> None:
    path = write(tmp_path / "r.jsonl", suite())
    with path.open("a") as file:
        file.write("not json\n" * (judging.MOST_NOTES + 3))
    assert len(read(path).measurements) == len(suite())
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == judging.MOST_NOTES + 1
    assert lines[-1].endswith("3 more notes of this kind")


def test_records_of_another_schema_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", suite())
    path.write_text(path.read_text().replace('"schema":1', '"schema":99'))
    with pytest.raises(NotComparable, match="schema 99") as refused:
        read(path)
    assert refused.value.code == "different-schema"


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        read(tmp_path / "none.jsonl")
    assert refused.value.code == "unreadable-file"
