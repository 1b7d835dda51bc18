"""Random problems cover the dtypes, masks and layouts of the contract."""

from __future__ import annotations

import torch

from mfbench.testing.random_problems import MASK_DTYPES, RATINGS_DTYPES, draw


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
