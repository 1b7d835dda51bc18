"""Options of a run: their validation, and values in the form that the run takes."""

from __future__ import annotations

import dataclasses

import pytest

from mfbench.errors import UsageError
from mfbench.measure.options import RunOptions


def test_single_values_become_lists() -> None:
    options = RunOptions(provider="fused", axes={"size": "3x4", "rank": (1, 2)})
    assert options.provider == ("fused",)
    assert options.axes == {"size": ["3x4"], "rank": [1, 2]}
    assert dataclasses.replace(options, budget=1) == dataclasses.replace(options, budget=1.0)


@pytest.mark.parametrize(("arguments", "code"), [
    ({"device": "gpu"}, "bad-device"), ({"provider": ["fused", 3]}, "bad-provider"),
    ({"threads": 0}, "bad-number"), ({"threads": 1.5}, "bad-number"), ({"threads": 2000}, "bad-number"),
    ({"margin": -0.1}, "bad-number"), ({"margin": float("nan")}, "bad-number"), ({"margin": None}, "bad-number"),
    ({"budget": 0}, "bad-number"), ({"budget": "5"}, "bad-number"), ({"time_limit": float("inf")}, "bad-number"),
])  # fmt: skip
def test_values_that_do_not_fit_are_named(arguments: dict, code: str) -> None:
    with pytest.raises(UsageError) as raised:
        RunOptions(**arguments)
    assert (raised.value.code, [raised.value.argument]) == (code, list(arguments))


def test_axes_that_do_not_fit_are_named() -> None:
    with pytest.raises(UsageError) as raised:
        RunOptions(axes={"density": 2})
    assert (raised.value.code, raised.value.argument) == ("bad-axis", "density")
