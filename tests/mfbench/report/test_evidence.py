"""What counts as the newest result, and which files are compared."""

from __future__ import annotations

from mfbench.report.evidence import Evidence, of_records
from tests.mfbench.report.synthetic import case, failed, ok, suite


def test_the_newest_measurement_of_a_case_counts() -> None:
    page = Evidence(of_records([ok(case(), median_s=1e-3), ok(case(), median_s=2e-3, run=1)]), [], [])
    (entry,) = page.latest()
    assert entry.run == "run-1"
    skipped = Evidence(of_records([ok(case()), failed(case(), "skipped", "no", "fused", run=1)]), [], [])
    assert skipped.latest()[0].measurement.status == "ok"


def test_the_sides_are_the_first_and_the_last_file() -> None:
    runs = [run for number, name in enumerate("abc") for run in of_records(suite(number), name)]
    base, new = Evidence(runs, [], []).sides()
    assert (base.name, new.name) == ("a", "c")
    assert {result.run for result in base.results} == {"run-0"}
    assert {result.run for result in new.results} == {"run-2"}


def test_the_last_run_of_one_file_is_compared_with_all_before_it() -> None:
    base, new = Evidence(of_records([*suite(0), *suite(1), *suite(2)], "a"), [], []).sides()
    assert (base.name, new.name) == ("the 2 runs before it", "run-2")
    assert len(base.results) == 2 * len(new.results)
    assert Evidence(of_records(suite(0), "a"), [], []).sides() is None


def test_numbers_that_no_measurement_yields_are_left_out() -> None:
    record = ok(case())
    wrong = record.model_copy(update={"rates": record.rates.model_copy(update={"flops_per_s": float("nan")})})
    (run,) = of_records([wrong])
    assert run.results[0].record.rates is None
    assert run.results[0].record.roofline == record.roofline
