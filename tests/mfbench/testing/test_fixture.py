"""Cases for test suites: the axes that make them, and what `check` reports."""

from __future__ import annotations

import pytest

from mfbench.errors import UsageError
from mfbench.testing.fixture import DEFAULT, cases
from reference import autograd_loss_and_grads


def test_axes_multiply_and_have_defaults() -> None:
    assert len(cases({})) == len(DEFAULT["size"]) * len(DEFAULT["rank"])
    (case,) = cases({"size": "20x30", "rank": 3, "mask": "none"})
    assert (case.case.m, case.case.n, case.case.rank, case.case.density) == (20, 30, 3, 0.7)
    assert case.inputs.mask is None


@pytest.mark.parametrize(("axes", "code"), [
    ({"sise": "3x4"}, "no-such-axis"), ({"device": "gpu"}, "bad-device"), ({"data": "synthetic"}, "bad-axis"),
    ({"size": "3by4"}, "bad-size"),
])  # fmt: skip
def test_axes_that_do_not_fit(axes: dict, code: str) -> None:
    with pytest.raises(UsageError) as raised:
        cases(axes)
    assert raised.value.code == code


def test_check_returns_errors_below_the_bound_or_names_the_output() -> None:
    (case,) = cases({"size": "20x30", "rank": 3})
    assert 0 < max(case.check(autograd_loss_and_grads).values()) < 1

    def halved(*arguments):
        loss, grads = autograd_loss_and_grads(*arguments)
        return loss, (*grads[:4], grads[4] / 2)

    with pytest.raises(AssertionError, match=r"20×30 rank 3.*global_bias"):
        case.check(halved)
