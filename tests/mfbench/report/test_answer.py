"""The first sentence of a report: speed-up, verdict, failures."""

from __future__ import annotations

import re

import pytest

from mfbench.report import answer
from mfbench.report.evidence import Evidence, of_records
from tests.mfbench.report.synthetic import case, failed, ok, suite


def says(records: list) -> str:
    return answer.sentence(Evidence(of_records(records), [], []))


def test_the_first_sentence_is_the_answer() -> None:
    found = says(suite())
    assert re.match(r"fused is (3\.9\d|4|4\.0\d) times as fast as autograd \(geometric mean .* of 4 cases", found)
    assert "4 faster" in found
    assert "on Testium 9000, 2 threads" in found
    assert found.endswith("all 8 results lie within the bounds of the correctness gate.")


@pytest.mark.parametrize(("factor", "expected"), [(8, "fused takes 2 times as long as autograd"),
                                                  (4, "fused is as fast as autograd")])  # fmt: skip
def test_the_first_sentence_says_slower_and_same(factor: float, expected: str) -> None:
    assert re.sub(r"(1\.9\d|2\.0\d)(?= times as long)", "2", says(suite(factor=factor))).startswith(expected)


def test_the_first_sentence_counts_what_failed() -> None:
    found = says([*suite(), failed(case(0), "wrong", "x"), failed(case(1), "crashed", "y")])
    assert found.endswith("; 2 of 10 results failed (1 wrong, 1 crashed).")


def test_an_interval_that_reaches_one_is_undecided() -> None:
    records = [ok(case(), median_s=1e-3, baseline_s=1.03e-3, noise=0.2), ok(case(), "autograd", 1.03e-3, 1.03e-3)]
    assert says(records).startswith("Undecided: fused against autograd")
