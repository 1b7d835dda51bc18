"""Names as a reader wants them: cases by what tells them apart, units, and no control characters."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path

from mfbench.problems.cases import Case
from mfbench.report.terminal import seconds, short, size

__all__ = ["alike", "case_labels", "cut", "device_and_case", "printable", "provider_label", "seconds", "short", "size"]

LONGEST = 48  # characters of a name in a figure


def printable(text: str) -> str:
    """The text without control characters and lone surrogates, which neither SVG nor a file in UTF-8 can hold."""
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in ("Cc", "Cs") else c for c in text)


def provider_label(provider: str) -> str:
    """A provider's name for a figure: without folders, and cut short."""
    return cut(printable(short(provider)))


def device_and_case(case: Case | str, device: str) -> str:
    """The whole name of a case."""
    return printable(" · ".join(part for part in (case.label if isinstance(case, Case) else case, device) if part))


Named = tuple[Case | str, str]  # a case and a device


def case_labels(cases: Iterable[Named]) -> dict[Named, str]:
    """Of every case its size, and what is not the same in all of them."""
    parts = {pair: _parts(*pair) for pair in cases}
    varying = _varying(parts.values())
    return {
        pair: printable(" ".join(p for number, p in enumerate(part) if p and (len(part) == 1 or number in varying)))
        for pair, part in parts.items()
    }


def alike(cases: Iterable[Named]) -> str:
    """What `case_labels` leaves out, since it is the same in all of them."""
    parts = [_parts(*pair) for pair in cases]
    first = next((part for part in parts if len(part) > 1), ())
    return printable(", ".join(p for number, p in enumerate(first) if p and number not in _varying(parts)))


def _varying(parts: Iterable[tuple[str, ...]]) -> set[int]:
    columns = zip(*(part for part in parts if len(part) > 1), strict=True)
    return {number for number, column in enumerate(columns) if len(set(column)) > 1} | {1}


def _parts(case: Case | str, device: str) -> tuple[str, ...]:
    if isinstance(case, str):
        return (" · ".join(part for part in (case, device) if part),)
    mask = "NaN" if case.mask == "none" else case.mask
    return (
        "" if case.data == "synthetic" else Path(case.data).name,
        f"{case.m}×{case.n}",
        f"rank {case.rank}",
        f"{case.density:.3g} observed",
        f"{case.ratings_dtype}+{mask}",
        f"seed {case.seed}",
        f"suite {Path(case.suite).name}",
        device,
    )


def cut(text: str) -> str:
    """The text, short enough for a figure."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
