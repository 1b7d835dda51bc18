"""The step's compiled PTX executed on the CPU: right to its precision, no race, nothing out of bounds.

This is not a test on a GPU: instructions follow the manual, in an order that this interpreter chooses.
"""

from __future__ import annotations

import dataclasses
import random

import pytest
import torch

from kernels.gpu import config

from .draws import draw
from .steps import execute

pytestmark = pytest.mark.usefixtures("few_programs")

# (target, precision, encoding, rank, m, n, density): sizes off the edges of tiles, less than a tile, one entry.
CASES = [
    ("sm_80", "tf32", "float32, uint8 mask", 30, 70, 50, 0.5),
    ("sm_80", "ieee", "float32, uint8 mask", 30, 65, 96, 0.1),
    ("sm_80", "tf32x3", "float32, uint8 mask", 30, 77, 33, 0.8),
    ("sm_80", "bf16x3", "float32, uint8 mask", 30, 63, 129, 0.02),
    ("sm_80", "tf32", "float32-nan", 1, 100, 67, 0.5),
    ("sm_80", "ieee", "float32 with gaps between rows", 1, 1, 1, 1.0),
    ("sm_80", "tf32", "bfloat16-nan", 61, 40, 70, 0.5),
    ("sm_80", "bf16x3", "float16-nan", 61, 70, 31, 0.3),
    ("sm_80", "tf32", "uint8, float32 mask", 30, 33, 77, 0.4),
    ("sm_80", "ieee", "float32, bfloat16 weights", 30, 40, 45, 0.5),
    ("sm_80", "tf32", "int8-bits", 8, 50, 150, 0.01),
    ("sm_80", "bf16x3", "uint8-bits", 30, 60, 96, 0.5),
    ("sm_80", "tf32x3", "uint8-code", 30, 67, 91, 0.3),
    ("sm_80", "tf32", "uint8-code", 61, 66, 130, 0.1),
    ("sm_80", "ieee", "float64-nan", 16, 40, 40, 0.5),
    ("sm_80", "bf16x3", "float32, bool mask, transposed", 16, 71, 45, 0.6),
    ("sm_80", "tf32", "float32 with gaps between rows", 30, 64, 65, 0.5),
    ("sm_80", "tf32", "float32, uint8 mask", 100, 30, 40, 0.5),
    ("sm_80", "tf32", "uint8-code", 130, 70, 50, 0.5),
    ("sm_80", "tf32x3", "bfloat16-nan", 140, 40, 33, 0.5),
    ("sm_80", "ieee", "float32, uint8 mask", 129, 33, 40, 0.3),
    ("sm_120", "tf32", "uint8-code", 30, 70, 50, 0.5),
    ("sm_120", "ieee", "float32-nan", 30, 40, 40, 0.5),
    ("sm_120", "bf16x3", "float32, uint8 mask", 61, 40, 40, 0.5),
]


QUICK = (0, 9, 11, 21)  # places in CASES: both targets, a dense matrix with a mask or weights, and encoded ratings


@pytest.mark.parametrize("deterministic", [False, True], ids=["fast", "deterministic"])
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id="-".join(map(str, case)), marks=() if place in QUICK else pytest.mark.ptx)
        for place, case in enumerate(CASES)
    ],
)
def test_every_output_is_within_its_bound(case, deterministic):
    target, precision, encoding, *sizes = case
    problem = draw(CASES.index(case), encoding, *sizes)
    plan = problem.plan(target, precision, deterministic)
    assert execute(plan) == []
    errors = problem.errors(plan, precision)
    assert max(errors.values()) <= 1, errors
    limit = config.TARGETS[target].shared_bytes
    assert all(launch.shared_bytes <= limit for launch in plan.launches)


@pytest.mark.parametrize("deterministic", [False, True], ids=["fast", "deterministic"])
@pytest.mark.parametrize("rank", [30, pytest.param(130, marks=pytest.mark.ptx)])
def test_empty_tiles_are_left_out(rank, deterministic):
    """Some rows of tiles are empty, and unoccupied tiles hold wrong ratings, which must not be read."""
    problem = draw(4, "uint8-code", rank, 140, 200, 0.5)
    tiles = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]], dtype=torch.bool)
    inside = tiles.repeat_interleave(64, 0).repeat_interleave(64, 1)[:140, :200]
    problem.weights *= inside
    values = torch.where(inside, problem.ratings.values.int(), 7).to(torch.uint8)
    blocks = tiles.repeat_interleave(4, 0).repeat_interleave(4, 1)[:9, :13]
    problem.ratings = problem.ratings._replace(values=values, occupied=blocks)
    plan = problem.plan("sm_80", "tf32", deterministic)
    assert execute(plan) == []
    errors = problem.errors(plan, "tf32")
    assert max(errors.values()) <= 1, errors


def test_float64_is_exact_to_float64():
    problem = draw(0, "float32, uint8 mask", 30, 70, 50, 0.5, torch.float64)
    plan = problem.plan("sm_80", "ieee")
    assert execute(plan) == []
    assert max(problem.errors(plan, "ieee").values()) <= 1


@pytest.mark.ptx
def test_many_programs_give_the_same_result(monkeypatch):
    """The grid of a real device: one tile per program."""
    monkeypatch.undo()
    problem = draw(1, "float32, uint8 mask", 30, 70, 97, 0.5)
    for deterministic in (False, True):
        plan = problem.plan("sm_80", "tf32", deterministic)
        assert execute(plan) == []
        assert max(problem.errors(plan, "tf32").values()) <= 1


@pytest.mark.ptx
@pytest.mark.parametrize("precision", ["tf32", "ieee"])
def test_deterministic_results_do_not_depend_on_the_order_of_programs(precision, monkeypatch):
    monkeypatch.setattr(config, "DETERMINISTIC_PROGRAMS", 6)
    problem = draw(2, "float32, uint8 mask", 30, 150, 97, 0.5)
    shuffle = random.Random(0)
    results = []
    for order in (range, lambda blocks: range(blocks - 1, -1, -1), lambda n: shuffle.sample(range(n), n)):
        plan = problem.plan("sm_80", precision, deterministic=True)
        assert plan.launches[1].grid != (1, 1, 1)
        assert execute(plan, order) == []
        loss, grads = plan.result()
        results.append([loss, *grads])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_the_bounds_are_not_loose():
    """An output of zeros, one off by a factor of two, and a bias left out are far out of bounds."""
    problem = draw(3, "float32, uint8 mask", 30, 70, 50, 0.5)
    plan = problem.plan("sm_80", "tf32")
    execute(plan)
    loss, grads = plan.result()
    assert max(problem.errors(plan, "tf32").values()) <= 1
    spoiled = [(loss * 2, grads), *((loss, grads._replace(**{f: getattr(grads, f) * 0})) for f in grads._fields)]
    for result in spoiled:
        wrong = problem.errors(dataclasses.replace(plan, result=lambda result=result: result), "tf32")
        assert max(wrong.values()) > 10
