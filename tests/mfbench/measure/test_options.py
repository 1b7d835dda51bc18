"""Options of a run: validated when they are made, and the error names the argument."""

from __future__ import annotations

import math

import pytest

from mfbench.errors import UsageError
from mfbench.measure.options import RunOptions


@pytest.mark.parametrize(
    ("options", "code", "argument"),
    [
        ({"device": "gpu"}, "bad-device", "device"),
        ({"provider": print}, "bad-provider", "provider"),
        ({"provider": ["fused", 3]}, "bad-provider", "provider"),
        ({"threads": 0}, "bad-number", "threads"),
        ({"threads": 1.5}, "bad-number", "threads"),
        ({"margin": -0.1}, "bad-number", "margin"),
        ({"margin": None}, "bad-number", "margin"),
        ({"budget": 0}, "bad-number", "budget"),
        ({"resolve": 0}, "bad-number", "resolve"),
        ({"resolve": 2}, "bad-number", "resolve"),
        ({"time_limit": math.inf}, "bad-number", "time_limit"),
        ({"axes": {"sise": "3x4"}}, "no-such-axis", None),
        ({"axes": {"size": "3by4"}}, "bad-size", "size"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict, code: str, argument: str | None) -> None:
    with pytest.raises(UsageError) as raised:
        RunOptions(**options)
    assert raised.value.code == code
    assert argument is None or raised.value.argument == argument


@pytest.mark.parametrize(("given", "names"), [(None, None), ("fused", ("fused",)), (["a", "b"], ("a", "b"))])
def test_one_provider_or_several(given, names: tuple[str, ...] | None) -> None:
    assert RunOptions(provider=given).provider == names


@pytest.mark.parametrize(
    ("options", "seconds"), [({}, 5.0), ({"resolve": 0.02}, 120.0), ({"resolve": 0.02, "budget": 7}, 7)]
)
def test_the_budget_of_a_case(options: dict, seconds: float) -> None:
    assert RunOptions(**options).budget_s == seconds


def test_options_cannot_be_changed_afterwards() -> None:
    with pytest.raises(AttributeError):
        RunOptions().budget = -1
