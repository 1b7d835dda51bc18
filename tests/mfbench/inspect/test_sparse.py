"""Builds for sparse ratings: compiled, checked and modelled."""

from __future__ import annotations

import pytest

from kernels.gpu.config import TARGETS
from mfbench.inspect.builds import examine
from mfbench.inspect.document import Build, NotBuilt, Spec
from mfbench.inspect.machine_code import Mix
from mfbench.inspect.model import Modelled
from mfbench.inspect.sparse import bound, bytes_per_rating, modelled

pytest.importorskip("triton", reason="Triton is not installed")


def spec_of(target="sm_90", rank=30, precision="ieee", encoding="sparse-code", mode="fast"):
    return Spec(target, rank, precision, encoding, mode)


@pytest.mark.parametrize(
    "target", [pytest.param(target, marks=() if target == "sm_90" else pytest.mark.compilers) for target in TARGETS]
)
@pytest.mark.parametrize("mode", ["fast", "deterministic", "sse"])
def test_builds_are_clean(target, mode):
    build = examine(spec_of(target, mode=mode))
    assert isinstance(build, Build)
    assert build.ok, build.reason
    assert build.mix.vector
    assert not build.unexecuted
    atomic = mode == "fast" and target != "gfx90a"
    assert bool(build.mix.atomic) == atomic
    names = ["prepare", "sparse_step", "finish"]
    assert [launch.name for launch in build.launches] == (names[:2] if mode == "sse" else names)
    assert build.launches[1].registers == build.registers


@pytest.mark.compilers
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("rank", "precision", "mode"), [(512, "ieee", "fast"), (40, "float64", "deterministic"), (512, "float64", "fast")]
)
def test_wide_builds_are_clean(target, rank, precision, mode):
    build = examine(spec_of(target, rank, precision, "sparse-float32", mode))
    assert isinstance(build, Build)
    assert build.ok, build.reason


def test_a_rank_that_is_not_shipped():
    build = examine(spec_of(rank=1100))
    assert isinstance(build, NotBuilt)
    assert not build.shipped
    assert build.reason == "not shipped for sm_90: rank 1100: the largest is 1024"


def test_bytes_of_a_rating():
    """A row of 32 columns and a bias, gathered and added, or gathered twice; a code and a 16-bit column."""
    assert bytes_per_rating(spec_of(), 32, walks=1) == (2 * 33 * 4, 3)
    assert bytes_per_rating(spec_of(mode="sse"), 32, walks=1) == (33 * 4, 3)
    assert bytes_per_rating(spec_of(mode="deterministic"), 32, walks=2) == (2 * 33 * 4, 3 + 5)
    assert bytes_per_rating(spec_of(precision="float64"), 32, walks=1) == (2 * 33 * 8, 3)


def test_the_largest_resource_binds():
    from mfbench.inspect.devices import DEVICE_RATES

    device = DEVICE_RATES["sm_90"]
    mix = Mix(instructions=160, issued=160, vector=64)
    model = modelled(mix, 16, 1, 1, 264.0, 3.0, device)
    assert model.issue == 160 / device.issue
    assert model.l2 == 16 * 267 / device.l2_bytes
    assert model.binds == "l2"
    twice = modelled(mix, 16, 1, 2, 264.0, 8.0, device)
    assert (twice.issue, twice.binds) == (2 * model.issue, "issue")


def test_the_bound_is_printed_per_rating():
    clocks = {"issue": 40.0, "vector": 1, "matrix": 0, "shared": 0, "l2": 64.0, "dram": 2, "binds": "l2"}
    build = Build.model_construct(
        **spec_of()._asdict(), tile="16x32x1", bytes_per_rating=267.0,
        modelled=Modelled(**clocks, dram_fraction=0.1, issue_over_dram=20),
    )  # fmt: skip
    expected = (
        "sm_90 30 ieee sparse-code fast: 267 bytes a rating, at least 4.00 clocks of a multiprocessor, bound by l2"
    )
    assert bound(build) == expected + " (modelled)"
