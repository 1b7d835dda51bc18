"""Phrases: plural, the nearest name, the words that are accepted."""

from __future__ import annotations

import pytest

from mfbench.wording import counted, nearest, one_of


@pytest.mark.parametrize(("count", "text"), [(0, "0 cases"), (1, "1 case"), (2, "2 cases"), (4000, "4,000 cases")])
def test_a_noun_agrees_with_its_count(count: int, text: str) -> None:
    assert counted(count, "case") == text


@pytest.mark.parametrize(
    ("given", "names", "tail"),
    [
        ("sqare", ["square", "seed"], "; did you mean 'square'?"),
        ("SQUARE", ["square", "seed"], "; did you mean 'square'?"),
        ("MyStp", ["MyStep", "step"], "; did you mean 'MyStep'?"),
        ("zzz", ["square", "seed"], "; there are square, seed"),
        ("zzz", [], "; there are none"),
    ],
)
def test_the_nearest_name_is_suggested_or_all_are_listed(given: str, names: list[str], tail: str) -> None:
    assert nearest(given, names) == tail


def test_the_words_that_are_accepted_are_listed_with_the_nearest() -> None:
    assert one_of(["sgd", "adam"], "adamw") == "expected one of sgd, adam, got 'adamw'; did you mean 'adam'?"
    assert one_of(("cpu", "cuda"), 7) == "expected one of cpu, cuda, got 7"
