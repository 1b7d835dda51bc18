"""Random problems cover the dtypes, masks and layouts of the contract."""

from __future__ import annotations

import torch

from kernels.gpu import config
from mfbench.testing import random_problems
from mfbench.testing.random_problems import MASK_DTYPES, RATINGS_DTYPES, draw, long_walk
from reference import oracle_loss_and_grads


def test_drawn_problems_cover_the_contract() -> None:
    drawn = [problem.inputs for problem in draw(60, 1)]
    assert {inputs.ratings.dtype for inputs in drawn} == set(RATINGS_DTYPES)
    assert {inputs.mask.dtype if inputs.mask is not None else None for inputs in drawn} == set(MASK_DTYPES)
    assert {inputs.user_factors.dtype for inputs in drawn} == {torch.float32, torch.float64}
    weights = torch.cat([inputs.mask.double().flatten() for inputs in drawn if inputs.weighted]).unique()
    assert weights.min() < 0 < weights.max()
    assert len(weights) > 50
    assert any(inputs.ratings.stride()[0] == 0 for inputs in drawn)
    assert any(not inputs.ratings.is_contiguous() and inputs.ratings.stride()[0] == 1 for inputs in drawn)


def test_a_long_walk_has_errors_of_one_sign_and_is_not_divided(monkeypatch) -> None:
    m, n, rank = random_problems.LONG_WALK
    for name in ("sm_80", "sm_90", "sm_100", "sm_120"):
        target = config.TARGETS[name]
        built = config.pick(target, rank, "tf32x3", deterministic=False)
        assert config.deal(target, built, m, n, deterministic=False).splits == 1, name
    monkeypatch.setattr(random_problems, "LONG_WALK", (5, 4, 3))
    inputs = long_walk(0).inputs
    assert inputs.ratings.shape == (5, 4)
    _, (dP, dQ, *_) = oracle_loss_and_grads(*inputs)
    assert dP.min() > 0
    assert dQ.min() > 0
