"""The probe within a sample: biases are written before each evaluation, only watched outputs are read."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mfbench.correctness.audit import probe
from mfbench.correctness.audit.probe import Challenge, Observation, Probe
from mfbench.correctness.audit.projection import new_bits, project, signs


def outputs(loss: object, d_bias: object) -> tuple[object, list[object]]:
    return loss, [object()] * 4 + [d_bias]


def test_each_evaluation_has_the_bias_of_the_challenge_in_its_copy_of_the_inputs() -> None:
    copies = [torch.zeros(1), torch.zeros(1, dtype=torch.float64)]
    hooks = Probe(Challenge([0.5, 1.5, 2.5], frozenset()), copies)
    seen = []
    for turn in range(3):
        hooks.before(turn)
        seen.append([float(copy) for copy in copies])
    assert seen == [[0.5, 0.0], [0.5, 1.5], [2.5, 1.5]]


def test_a_bias_is_written_without_a_trace() -> None:
    bias = torch.zeros(1, requires_grad=True)
    version = bias._version
    Probe(Challenge([3.0], frozenset()), [bias]).before(0)
    assert bias.item() == 3.0
    assert bias._version == version


@pytest.mark.parametrize("convert", [torch.tensor, np.float32, lambda value: torch.tensor([value]), float])
def test_only_watched_evaluations_are_read(convert) -> None:
    hooks = Probe(Challenge([0.0] * 3, frozenset({1})), [torch.zeros(1)])
    hooks.after(0, "not outputs at all")
    hooks.after(1, outputs(convert(2.0), convert(0.25)))
    hooks.after(2, None)
    assert hooks.observations == [Observation(1, 2.0, 0.25)]


def test_projections_are_those_of_the_values() -> None:
    bits, values = new_bits(), torch.randn(5, 7)
    lazy = torch._neg_view(values)
    assert probe.project([values, lazy], bits) == pytest.approx(
        [project(values.numpy(), signs(bits)), project(-values.numpy(), signs(bits))]
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64])
def test_poison_overwrites_all_that_can_hold_nan(dtype: torch.dtype) -> None:
    whole = torch.ones(4, 6, dtype=dtype)
    probe.poison([whole[::2, 1:3]])
    poisoned = whole.double().isnan()
    assert poisoned[::2, 1:3].all() == dtype.is_floating_point
    assert poisoned.sum() == (4 if dtype.is_floating_point else 0)
