"""Builds against float64: what is looked at, and that a wrong kernel is found."""

from __future__ import annotations

import pytest
import torch

from kernels.precision import PRECISIONS
from mfbench.gpu_check import equivalence
from mfbench.gpu_check.equivalence import builds
from mfbench.gpu_check.task import Context, Result
from mfbench.problems.cases import Case
from tests.mfbench.gpu_check.stand_in import StandIn


def found(context: Context, *names: str) -> list[Result]:
    tasks = {task.name: task for task in equivalence.equivalence(context)}
    return [tasks[name].run() for name in names]


def test_every_precision_mode_and_form_of_the_kernel_has_a_build() -> None:
    every = list(builds(PRECISIONS))
    assert len({build.name for build in every}) == len(every)
    looked_at = {(b.options.get("precision"), b.options.get("deterministic"), b.data.get("rank")) for b in every}
    for precision in PRECISIONS:
        for deterministic in (False, True):
            for rank in (30, 64, 256):
                assert (precision, deterministic, rank) in looked_at
    assert {b.data.get("ratings_dtype") for b in every} > {torch.float64, torch.bfloat16, torch.uint8, torch.int8}
    assert {(b.options.get("deterministic"), b.encoding) for b in every if b.sparse} == {
        (None, ()), (False, (None,)), (True, (None,)),
    }  # fmt: skip
    assert {b.data.get("layout") for b in every} >= {"transposed", "strided"}


@pytest.mark.interpret
def test_right_builds_leave_a_record_that_others_read(context: Context) -> None:
    names = (
        "ieee rank 30", "NaN for unobserved ratings", "a mask of weights", "encoded as codes", "sparse ratings",
        "sparse codes rank 30 deterministic", "forward only",
    )  # fmt: skip
    results = found(context, *names)
    assert [result.wrong for result in results] == [""] * len(names)
    for result in results:
        (record,) = result.records
        assert Case(**record["case"]._asdict()).m == 70
        assert record["status"] == "ok"
        assert all(check["ok"] for check in record["correctness"].values())
    assert found(context, "float64 in plain PyTorch")[0].wrong == ""


@pytest.mark.interpret
def test_a_wrong_kernel_is_found_by_name_and_output(context: Context, planted: None) -> None:
    right, wrong, sums = found(
        context, "ieee rank 30", "tf32x3 rank 30", "tf32x3 rank 30, errors of one sign, long walk"
    )
    assert right.wrong == ""
    for result in (wrong, sums):
        assert "item_factors is off by" in result.wrong
        assert [record["status"] for record in result.records] == ["wrong"]
        assert [record["code"] for record in result.records] == ["off-bound"]


def test_a_build_that_is_not_shipped_is_no_fault(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StandIn, "not_shipped", lambda *_: "it spills")
    (result,) = found(context, "ieee rank 64")
    assert result == Result("ieee rank 64", note="not shipped: it spills")


def test_the_device_stands_in_for_the_oracle_on_large_problems(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = equivalence._recipe(context, dtype=torch.float64)
    plain = equivalence._standard.__wrapped__(context, recipe)
    monkeypatch.setattr("mfbench.gpu_check.task.LARGE", 0)
    on_device = equivalence._standard.__wrapped__(context, recipe)
    for ours, theirs in zip(on_device.exact, plain.exact, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-11, abs=1e-11)
    for ours, theirs in zip(on_device.scales, plain.scales, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-11)
