"""What does not fit a model, in plain words."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import ValidationError

from mfbench.problems.cases import Axes, Case
from mfbench.problems.faults import first_fault


@pytest.mark.parametrize(
    ("axes", "fault"),
    [
        (
            {"ratings_dtype": "int16"},
            r"ratings_dtype.0: expected one of .*, got 'int16'; did you mean 'int8'\?",
        ),
        ({"mask": "complex"}, "mask.0: expected one of bool, uint8, int32, int64, float32, none, got 'complex'"),
        ({"mask": ["bool", 3]}, "mask.1: expected one of .*, got 3"),
        ({"rank": "x"}, "rank.0: expected a whole number, got 'x'"),
        ({"rank": 2.5}, "rank.0: expected a whole number, got 2.5"),
        ({"rank": -1}, "rank.0: expected a number from 0, got -1"),
        ({"seed": None}, "seed.0: expected a whole number, got None"),
        ({"density": 2}, "density.0: expected a number up to 1, got 2"),
        ({"density": "half"}, "density.0: expected a number, got 'half'"),
        ({"data": 7}, "data.0: expected text, got 7"),
        ({"data": "x" * 99, "rank": "y" * 99}, r"rank.0: expected a whole number, got 'y{59}\.\.\."),
        ({"rank": []}, r"rank: expected one value or more, got \[\]"),
    ],
)
def test_a_value_that_does_not_fit_is_told_without_pydantics_words(axes: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError) as error:
        Axes.model_validate({"size": "3x4", **axes})
    assert re.fullmatch(fault, first_fault(error.value)), first_fault(error.value)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{}", "cases.3.suite: is missing"),
        ("[1]", "cases.3: expected an object, got [1]"),
        ("a,b", "cases.3: not JSON: expected value at character 1"),
        ('{"suite": 1}', "cases.3.suite: expected text, got 1"),
    ],
)
def test_a_place_precedes_the_fault(line: str, fault: str) -> None:
    with pytest.raises(ValidationError) as error:
        Case.model_validate_json(line)
    assert first_fault(error.value, "cases.3") == fault
