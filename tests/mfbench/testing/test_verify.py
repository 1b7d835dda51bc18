"""Checks against the oracle that no command line reaches."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kernels import backends, mf_loss_and_grads
from mfbench.correctness import gate
from mfbench.problems import matrices
from mfbench.problems.inputs import Inputs
from mfbench.testing import verify as module
from mfbench.testing.random_problems import draw
from mfbench.testing.verify import _sparse, candidates, check, verify


def test_observed_nan_must_reach_the_results() -> None:
    inputs: Inputs = next(iter(draw(1, 5))).inputs
    ratings, mask = inputs.ratings.clone(), inputs.mask.clone()
    ratings[-1, -1], mask[-1, -1] = float("nan"), 1
    inputs = inputs._replace(ratings=ratings, mask=mask)
    for name in ("native", "torch", "interpret"):
        provider = next(c.provider for c in candidates("cpu", None) if c.provider.name == name)
        verdicts, reason = check(provider, inputs, gate.standard(inputs))
        assert reason is None
        assert len(verdicts) == 6


def test_the_other_providers_of_the_harness_are_correct() -> None:
    tallies, failures = verify(["closed-form", "tiled"], "cpu", draw(48, seed=2))
    assert failures == []
    assert [tally.passed for tally in tallies] == [48, 48]


def test_providers_that_take_no_weights_are_given_the_other_problems() -> None:
    problems = list(draw(48, seed=2))
    weighted = sum(problem.inputs.needs_weights for problem in problems)
    tallies, failures = verify(["gather", "fused-sparse", "fused-encoded"], "cpu", problems)
    assert weighted > 0
    assert failures == []
    assert {(tally.passed, tally.problems, tally.left_out) for tally in tallies} == {
        (48 - weighted, 48 - weighted, weighted)
    }


def test_some_problems_have_empty_rows_and_ratings_of_0() -> None:
    drawn = [problem.inputs for problem in draw(48, seed=2) if not problem.inputs.weighted]
    sparse = [_sparse(inputs).ratings for inputs in drawn]
    assert {ratings.crow_indices().dtype for ratings in sparse} == {torch.int32, torch.int64}
    counts = [ratings.crow_indices().diff() for ratings in sparse if ratings.values().numel()]
    assert any(count[0] == 0 for count in counts)
    assert any(count[-1] == 0 for count in counts)
    assert any((ratings.values() == 0).any() for ratings in sparse)


@pytest.mark.parametrize("fault", ["drops the last of a row", "ignores zeros"])
def test_a_backend_with_a_fault_on_sparse_ratings_alone_is_caught(monkeypatch, fault: str) -> None:
    def faulty(*arguments: Any, **options: Any) -> Any:
        ratings = arguments[5]
        if isinstance(ratings, torch.Tensor) and matrices.is_sparse(ratings) and ratings.values().numel():
            starts = ratings.crow_indices()
            busiest = int(starts.diff().argmax())
            dropped = starts[busiest + 1].long() - 1 if "last" in fault else ratings.values() == 0
            kept, _ = matrices.split(ratings, dropped)
            arguments = (*arguments[:5], kept, *arguments[6:])
        return mf_loss_and_grads(*arguments, **options)

    monkeypatch.setattr(module, "mf_loss_and_grads", faulty)
    monkeypatch.setattr(module, "backends", lambda: {"torch": backends()["torch"]})
    tallies, failures = verify(None, "cpu", draw(24, seed=4))
    failed = {failure.provider for failure in failures}
    assert failed == {"torch sparse", "torch sparse deterministic"}
    assert all(tally.passed == 24 for tally in tallies if tally.provider not in failed)
