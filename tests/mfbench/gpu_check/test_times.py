"""Times on the simulated device: the truth comes out, and what is wrong gets no time."""

from __future__ import annotations

import pytest

from mfbench.gpu_check import times
from mfbench.gpu_check.task import Context, Result
from mfbench.providers.registry import Builtin
from mfbench.results.records import Record
from tests.mfbench.gpu_check.stand_in import GRAPH_GAIN, SECONDS, StandIn, without_compiler

pytestmark = pytest.mark.interpret


@pytest.fixture(autouse=True)
def _without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(times, "BUILTIN", without_compiler())
    monkeypatch.setattr(times, "BUDGET_S", 0.5)


def found(context: Context, which: int) -> tuple[Result, dict[str, Record]]:
    result = list(times.times(context))[which].run()
    records = [Record(**(fields | {"case": fields["case"]._asdict()})) for fields in result.records]
    return result, {record.provider: record for record in records}


def test_the_notebooks_size_is_timed_with_launches_and_in_graphs(context: Context) -> None:
    result, records = found(context, 0)
    assert (result.wrong, result.note) == ("", "")
    assert records["autograd"].case.mask == "int32"
    assert set(records) == {
        "autograd", "compile", "closed-form", "fused-ieee", "fused-tf32x3", "fused-deterministic",
        "autograd-graph", "compile-graph", "fused-ieee-graph", "fused-tf32x3-graph",
    }  # fmt: skip
    for record in records.values():
        assert record.status == "ok"
        assert all(check.ok for check in record.correctness.values())
        assert record.timing.method.startswith("perf_counter around evaluations in a row, launches included")
    gain = records["autograd"].timing.median_s / records["autograd-graph"].timing.median_s
    assert gain == pytest.approx(GRAPH_GAIN, rel=0.15)  # launches cost the same


def test_large_sizes_are_timed_on_the_device(context: Context) -> None:
    _, records = found(context, 1)
    speedup = records["fused-ieee"].speedup
    assert speedup.baseline == "autograd"
    assert speedup.verdict == "faster"
    assert speedup.ratio == pytest.approx((SECONDS["autograd"] + 4e-5) / 1.4e-4, rel=0.05)  # 40 µs for a cold cache
    assert "launches included" not in records["fused-ieee"].timing.method


def test_a_wrong_kernel_gets_no_time_and_is_named(context: Context, planted: None) -> None:
    result, records = found(context, 1)
    assert result.wrong.startswith("fused-tf32x3: item_factors is off by")
    assert records["fused-tf32x3"].status == "wrong"
    assert records["fused-tf32x3"].timing is None
    assert records["fused-ieee"].timing is not None


def test_what_goes_wrong_later_loses_its_time(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    def remembers(inputs):
        kept = times.BUILTIN["closed-form"].prepare(inputs)()
        return lambda: kept

    monkeypatch.setattr(times, "BUILTIN", times.BUILTIN | {"compile": Builtin("", remembers)})
    result, records = found(context, 1)
    assert result.wrong.startswith("compile: after timing, on new parameters: ")
    assert records["compile"].timing is None


def test_a_baseline_that_cannot_run_is_a_remark(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(inputs):
        raise RuntimeError("no C compiler")

    monkeypatch.setattr(times, "BUILTIN", times.BUILTIN | {"compile": Builtin("", fails)})
    result, records = found(context, 1)
    assert result.wrong == ""
    assert result.note.startswith("compile not timed: RuntimeError: no C compiler")
    assert records["compile"].status == "error"
    assert records["autograd"].timing is not None


def test_precisions_without_a_build_are_not_timed(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        StandIn, "not_shipped", lambda _, rank, precision, **options: "it spills" * (precision != "ieee")
    )
    assert "fused-tf32x3" not in times.providers(context, 30, with_graphs=True)
