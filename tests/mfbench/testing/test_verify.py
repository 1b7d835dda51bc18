"""Checks against the oracle that no command line reaches."""

from __future__ import annotations

from mfbench.correctness import gate
from mfbench.problems.inputs import Inputs
from mfbench.testing.random_problems import draw
from mfbench.testing.verify import candidates, check, verify


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
    tallies, failures = verify(["closed-form"], "cpu", draw(48, seed=2))
    assert failures == []
    assert tallies[0].passed == 48
