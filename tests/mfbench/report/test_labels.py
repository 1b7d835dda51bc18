"""Names and quantities for readers."""

from __future__ import annotations

import pytest

from mfbench.report.labels import Place, case_labels, common_properties, percent, printable, seconds, short, size
from tests.mfbench.report.synthetic import case


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.5, "1.5 s"),
        (999.6e-6, "1 ms"),
        (2e-6, "2 µs"),
        (3.14159e-9, "3.14 ns"),
        (123456.0, "123000 s"),
        (0.0, "0 ns"),
    ],
)
def test_times_have_three_digits_and_a_unit(value: float, text: str) -> None:
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0, "0 B"), (1023, "1023 B"), (2048, "2 KiB"), (5 << 20, "5 MiB"), (3 << 29, "1.5 GiB")],
)
def test_sizes_have_binary_units(value: int | None, text: str) -> None:
    assert size(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.004, "0.4%"), (0.25, "25%"), (11.0, ">999%")])
def test_uncertainties_have_two_or_three_digits(value: float, text: str) -> None:
    assert percent(value) == text


def test_providers_lose_their_folders_only() -> None:
    assert short("/a/b/mine.py:step") == "mine.py:step"
    assert short("fused") == "fused"


def test_control_characters_are_replaced() -> None:
    assert (
        printable("a\x1b[31m\ud800b\n")
        == "a\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"
    )


def test_labels_name_what_varies_and_the_rest_is_common() -> None:
    places = [Place(case(0), "cpu"), Place(case(1, rank=16), "cpu"), Place("another tool's", "")]
    assert list(case_labels(places).values()) == ["64×64 rank 8", "128×128 rank 16", "another tool's"]
    assert common_properties(places) == "0.5 observed, float32+uint8, seed 1, suite quick, cpu"
