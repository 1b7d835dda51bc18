"""Operations and bytes of a case counted by hand, and the floor that they give."""

from __future__ import annotations

import time

import pytest

from kernels.cpu import launch
from mfbench.measure import roofline
from mfbench.measure.roofline import Ceilings
from mfbench.problems.cases import Case


def case(**axes) -> Case:
    fields = {"m": 10, "n": 20, "rank": 3, "ratings_dtype": "float32", "mask": "uint8"} | axes
    return Case(suite="t", density=0.5, data="synthetic", seed=1, **fields)


@pytest.mark.parametrize(
    ("axes", "bytes_a_rating"),
    [
        ({}, 5),
        ({"mask": "none"}, 4),
        ({"ratings_dtype": "float64", "mask": "int32"}, 12),
        ({"ratings_dtype": "uint8"}, 2),
    ],
)
def test_work_is_counted(axes: dict, bytes_a_rating: int) -> None:
    work = roofline.work(case(**axes))
    parameters = 10 * 3 + 20 * 3 + 10 + 20 + 1
    assert work.flops == 3 * 2 * 10 * 20 * 3
    assert work.bytes == 10 * 20 * bytes_a_rating + 2 * 4 * parameters


@pytest.mark.parametrize(("mask", "ratings_read"), [("uint8", 50), ("none", 200)])
def test_unobserved_ratings_need_no_work_and_no_reading_but_of_their_mask(mask: str, ratings_read: int) -> None:
    everything, needed = roofline.work(case(mask=mask)), roofline.work(case(mask=mask), 50)
    assert needed.flops == everything.flops / 4
    assert needed.bytes == everything.bytes - 4 * (200 - ratings_read)


def test_floor_is_set_by_what_binds() -> None:
    flops, size = roofline.work(case(), 50)
    assert roofline.floor(case(), 50, Ceilings(flops / 9.0, flops / 2.0, size / 1.0)) == (2.0, "compute")
    assert roofline.floor(case(), 50, Ceilings(flops / 9.0, flops / 1.0, size / 3.0)) == (3.0, "memory")


def test_without_a_peak_the_product_is_the_ceiling() -> None:
    flops, _ = roofline.work(case(), 50)
    assert roofline.floor(case(), 50, Ceilings(flops / 2.0, None, 1e30)) == (2.0, "compute")


@pytest.mark.skipif(bool(launch.unavailable()), reason=launch.unavailable() or "the kernel is there")
def test_the_peak_is_a_rate(monkeypatch) -> None:
    monkeypatch.setattr(launch, "step_threads", lambda: 1)  # others may not get a core
    assert launch.multiply_and_add(3000) == 3 * launch.multiply_and_add(1000) > 0
    brief, long = (roofline._best(lambda n=n: launch.multiply_and_add(n), "cpu") for n in (100_000, 800_000))
    assert long > 4 * brief  # nothing is left out


def test_what_other_programs_disturb_is_measured_for_longer() -> None:
    """Of runs that all differ, the best may still be far from what the machine can do."""
    waits = [0.02 * 1.15**turn for turn in range(9)] + [1e-4] * 10_000
    assert roofline._best(lambda: time.sleep(waits.pop(0)), "cpu") < 0.01


def test_ceilings_are_measured_for_the_working_set() -> None:
    ceilings = roofline.measure(case(m=256, n=256), "cpu")
    assert ceilings.gemm_flops_per_s > 1e8
    assert ceilings.copy_bytes_per_s > 1e7
