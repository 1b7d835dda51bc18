"""The step's compiled PTX executed on the CPU: right to its precision, no race, nothing out of bounds.

This is not a test on a GPU: instructions are done as the manual defines them, in an order of this interpreter's own.
"""

from __future__ import annotations

import dataclasses
import random

import pytest
import torch

from kernels import encode_ratings
from kernels.gpu import config

from .steps import Problem, execute


def _with_mask(dtype: torch.dtype, mask_dtype: torch.dtype):
    return lambda ratings, observed: (ratings.to(dtype), observed.to(mask_dtype))


def _encoded(name: str):
    return lambda ratings, observed: (encode_ratings(ratings, observed, name), None)


def _transposed(ratings: torch.Tensor, observed: torch.Tensor):
    return ratings.float().T.contiguous().T, observed.T.contiguous().T


def _padded(ratings: torch.Tensor, observed: torch.Tensor):
    """Rows with a gap after them, none of them aligned."""
    n = ratings.shape[1]
    wide = torch.full((2, ratings.shape[0], n + 5), float("nan"))
    wide[0, :, :n], wide[1, :, :n] = ratings, observed
    return wide[0, :, :n], wide[1].to(torch.uint8)[:, :n]


ENCODINGS = {
    "float32, uint8 mask": _with_mask(torch.float32, torch.uint8),
    "float32, bool mask, transposed": _transposed,
    "float32 with gaps between rows": _padded,
    "uint8, float32 mask": _with_mask(torch.uint8, torch.float32),
    "float64-nan": _encoded("float64-nan"),
    "float32-nan": _encoded("float32-nan"),
    "bfloat16-nan": _encoded("bfloat16-nan"),
    "float16-nan": _encoded("float16-nan"),
    "uint8-code": _encoded("uint8-code"),
    "uint8-bits": lambda ratings, observed: (encode_ratings(ratings.to(torch.uint8), observed, "uint8-bits"), None),
    "int8-bits": lambda ratings, observed: (encode_ratings(ratings.to(torch.int8), observed, "int8-bits"), None),
}


def draw(seed: int, encoding: str, rank: int, m: int, n: int, density: float, dtype=torch.float32) -> Problem:
    """Factors and biases of a realistic fit, some of them large; half-star ratings; empty rows and columns."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype)

    observed = torch.rand(m, n, generator=generator) < density
    if m > 2 and n > 2:
        observed[m // 2], observed[:, n // 3] = False, False
        observed[0], observed[:, n - 1] = True, True
    stars = torch.randint(1, 11, (m, n), generator=generator) / 2
    if "bits" in encoding or encoding.startswith("uint8, "):
        stars = stars.round()
    bad = torch.tensor([float("nan"), float("inf"), 1e30, 0.0])[torch.randint(4, (m, n), generator=generator)]
    ratings, mask = ENCODINGS[encoding](torch.where(observed, stars, bad), observed)
    parameters = [normal(m, rank), normal(n, rank), 3 * normal(m, 1), normal(n), normal() + 3.5]
    return Problem(parameters, ratings, mask, torch.where(observed, stars, 0.0), observed)


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
    ("sm_80", "tf32", "int8-bits", 8, 50, 150, 0.01),
    ("sm_80", "bf16x3", "uint8-bits", 30, 60, 96, 0.5),
    ("sm_80", "tf32x3", "uint8-code", 30, 67, 91, 0.3),
    ("sm_80", "tf32", "uint8-code", 61, 66, 130, 0.1),
    ("sm_80", "ieee", "float64-nan", 16, 40, 40, 0.5),
    ("sm_80", "bf16x3", "float32, bool mask, transposed", 16, 71, 45, 0.6),
    ("sm_80", "tf32", "float32 with gaps between rows", 30, 64, 65, 0.5),
    ("sm_80", "tf32", "float32, uint8 mask", 100, 30, 40, 0.5),
    ("sm_120", "tf32", "uint8-code", 30, 70, 50, 0.5),
    ("sm_120", "ieee", "float32-nan", 30, 40, 40, 0.5),
    ("sm_120", "bf16x3", "float32, uint8 mask", 61, 40, 40, 0.5),
]


@pytest.fixture(autouse=True)
def few_programs(monkeypatch):
    """A device of one multiprocessor, so that a program walks several tiles of even a small problem."""
    small = {name: dataclasses.replace(target, multiprocessors=1) for name, target in config.TARGETS.items()}
    monkeypatch.setattr(config, "TARGETS", small)
    monkeypatch.setattr(config, "DETERMINISTIC_PROGRAMS", 2)


@pytest.mark.parametrize("deterministic", [False, True], ids=["fast", "deterministic"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(str(part) for part in case))
def test_every_output_is_within_its_bound(case, deterministic):
    target, precision, encoding, *sizes = case
    problem = draw(CASES.index(case), encoding, *sizes)
    plan = problem.plan(target, precision, deterministic)
    assert execute(plan) == []
    errors = problem.errors(plan, precision)
    assert max(errors.values()) <= 1, errors
    limit = config.TARGETS[target].shared_bytes
    assert all(launch.shared_bytes <= limit for launch in plan.launches)


def test_float64_is_exact_to_float64():
    problem = draw(0, "float32, uint8 mask", 30, 70, 50, 0.5, torch.float64)
    plan = problem.plan("sm_80", "ieee")
    assert execute(plan) == []
    assert max(problem.errors(plan, "ieee").values()) <= 1


def test_many_programs_give_the_same_result(monkeypatch):
    """The grid of a real device: one tile a program."""
    monkeypatch.undo()
    problem = draw(1, "float32, uint8 mask", 30, 70, 97, 0.5)
    for deterministic in (False, True):
        plan = problem.plan("sm_80", "tf32", deterministic)
        assert execute(plan) == []
        assert max(problem.errors(plan, "tf32").values()) <= 1


@pytest.mark.parametrize("precision", ["tf32", "ieee"])
def test_deterministic_results_do_not_depend_on_the_order_of_programs(precision, monkeypatch):
    monkeypatch.setattr(config, "DETERMINISTIC_PROGRAMS", 6)
    problem = draw(2, "float32, uint8 mask", 30, 150, 97, 0.5)
    shuffle = random.Random(0)
    results = []
    for order in (range, lambda blocks: range(blocks - 1, -1, -1), lambda n: shuffle.sample(range(n), n)):
        plan = problem.plan("sm_80", precision, deterministic=True)
        assert plan.launches[0].grid != (1, 1, 1)
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
