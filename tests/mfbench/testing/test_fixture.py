"""`mf_case` without pytest: which cases an axis gives, and what a check accepts and refuses."""

from __future__ import annotations

import pytest

from mfbench.errors import UsageError
from mfbench.testing.fixture import cases
from reference import autograd_loss_and_grads


def test_without_axes_there_are_sizes_at_the_edges_of_tiles() -> None:
    found = [(case.case.m, case.case.n, case.case.rank) for case in cases({})]
    assert len(found) == len(set(found)) == 6
    assert any(m % 32 == 1 for m, _, _ in found)


def test_every_combination_of_the_axes_is_a_case() -> None:
    found = cases({"size": ["3x4", "5x6"], "rank": [1, 2], "density": 0.5, "mask": "none"})
    assert [(case.case.m, case.case.rank) for case in found] == [(3, 1), (3, 2), (5, 1), (5, 2)]
    assert all(case.inputs.mask is None for case in found)


@pytest.mark.parametrize(
    ("axes", "code"), [({"sise": "3x4"}, "no-such-axis"), ({"device": "gpu"}, "bad-device"), ({"rank": -1}, "bad-axis")]
)
def test_axes_that_do_not_fit_are_refused(axes: dict, code: str) -> None:
    with pytest.raises(UsageError) as raised:
        cases(axes)
    assert raised.value.code == code


def test_a_right_function_passes_and_leaves_the_inputs_as_they_were() -> None:
    (case,) = cases({"size": "9x7", "rank": 3})
    before = case.inputs.user_factors.clone()
    errors = case.check(autograd_loss_and_grads)
    assert set(errors) >= {"loss", "user_factors"}
    assert 0 < max(errors.values()) < 1
    assert (case.inputs.user_factors == before).all()


def test_a_wrong_output_is_named() -> None:
    def wrong(*arguments):
        loss, grads = autograd_loss_and_grads(*arguments)
        return loss, [*grads[:3], grads[3] * 2, grads[4]]

    (case,) = cases({"size": "9x7", "rank": 3})
    with pytest.raises(AssertionError, match="item_bias is off by"):
        case.check(wrong)


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (lambda mask: mask != 0, "treats the weights as a binary mask"),
        (lambda mask: mask.sqrt(), "has the weights to the first power, not squared"),
    ],
)
def test_a_float_mask_is_one_of_weights(change, hint: str) -> None:
    """Ones alone would let pass what takes any mask for a binary one."""

    def wrong(*arguments):
        *parameters, ratings, mask, reg = arguments
        return autograd_loss_and_grads(*parameters, ratings, change(mask), reg)

    (case,) = cases({"size": "33x27", "rank": 3, "mask": "float32"})
    case.check(autograd_loss_and_grads)
    with pytest.raises(AssertionError, match=hint):
        case.check(wrong)
