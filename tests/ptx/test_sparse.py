"""The sparse step's compiled PTX executed on the CPU: right to its precision, no race, nothing out of bounds."""

from __future__ import annotations

import random

import pytest
import torch

from kernels.gpu import config, sparse_config

from . import OutOfBounds
from .draws import draw
from .plants import unguarded
from .steps import execute, execute_launch, the_pass

MODES = pytest.mark.parametrize("deterministic", [False, True], ids=["fast", "deterministic"])
TARGETS = ("sm_80", "sm_90")
# (encoding, rank, m, n, density): every form of ratings; ranks of one and of three groups of columns; a row of many
# programs, and rows of one entry.
CASES = [
    ("sparse uint8-code, uint16 indices", 30, 9, 12, 0.5),
    ("sparse float32, int32 indices", 8, 40, 25, 0.1),
    ("sparse float64, int64 indices", 1, 20, 20, 0.3),
    ("sparse bfloat16, uint16 indices", 40, 12, 30, 0.4),
    ("sparse uint8-code, uint16 indices", 100, 1, 150, 0.9),
    ("sparse float32, int32 indices", 16, 90, 1, 0.9),
    ("sparse float32, int32 indices", 300, 6, 7, 0.6),
    ("sparse float64, int64 indices", 600, 6, 7, 0.6),
]


@pytest.fixture(autouse=True)
def small_shares(monkeypatch):
    """Many programs even for few ratings, so that rows are divided among them."""
    monkeypatch.setattr(sparse_config, "LEAST_WORK", 40)


@pytest.mark.parametrize("target", TARGETS)
@MODES
@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=str(case), marks=pytest.mark.ptx if place else ()) for place, case in enumerate(CASES)],
)
def test_every_output_is_within_its_bound(case, deterministic, target):
    problem = draw(CASES.index(case), *case)
    plan = problem.plan(target, "ieee", deterministic)
    assert execute(plan) == []
    errors = problem.errors(plan, "ieee")
    assert max(errors.values()) <= 1, errors
    assert the_pass(plan).grid[0] > 1


@pytest.mark.ptx
@MODES
def test_float64(deterministic):
    problem = draw(0, "sparse float64, int64 indices", 30, 9, 12, 0.5, torch.float64)
    plan = problem.plan("sm_80", "ieee", deterministic)
    assert execute(plan) == []
    assert max(problem.errors(plan, "ieee").values()) <= 1


@pytest.mark.ptx
def test_deterministic_results_do_not_depend_on_the_order_of_programs():
    problem = draw(2, "sparse uint8-code, uint16 indices", 30, 12, 15, 0.5)
    shuffle = random.Random(0)
    results = []
    for order in (range, lambda blocks: range(blocks - 1, -1, -1), lambda n: shuffle.sample(range(n), n)):
        plan = problem.plan("sm_90", "ieee", deterministic=True)
        assert execute(plan, order) == []
        loss, grads = plan.result()
        results.append([loss, *grads])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.ptx
@pytest.mark.parametrize("target", TARGETS)
def test_a_load_beyond_the_last_entry_is_caught(target):
    """Loads of columns and of codes, without the guard that keeps lanes beyond a row's end from reading."""
    problem = draw(3, "sparse uint8-code, uint16 indices", 8, 7, 9, 0.6)
    plan = problem.plan(target, "ieee")
    prepare, step, _ = plan.launches
    execute_launch(prepare)
    for opcode in (r"ld\.global\S*\.b16", r"ld\.global\S*\.b8"):
        plants = [text for _, text in unguarded(step.ptx, opcode)]
        assert plants
        for text in plants:
            with pytest.raises(OutOfBounds, match="belong to no argument"):
                execute_launch(step, text)


@pytest.mark.ptx
@MODES
def test_a_share_that_is_too_small_is_caught(deterministic):
    """In the pass alone, which then leaves out the last ratings."""
    problem = draw(4, "sparse uint8-code, uint16 indices", 8, 7, 9, 0.6)
    plan = problem.plan("sm_80", "ieee", deterministic)
    step = the_pass(plan)
    target = config.TARGETS["sm_80"]
    built = sparse_config.pick_sparse(target, 8, deterministic)
    share = sparse_config.share_of(target, built, problem.ratings.observed, 7)
    place = next(i for i, value in enumerate(step.args) if isinstance(value, int) and value == share)
    step.args[place] -= 1
    execute(plan)
    assert max(problem.errors(plan, "ieee").values()) > 1
