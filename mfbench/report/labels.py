"""Names and quantities as readers want them: units, cases by what tells them apart, no control characters."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mfbench.wording import counted

if TYPE_CHECKING:
    from mfbench.problems.cases import Case

LONGEST = 48  # characters of a name in a figure
WIDEST = 1000.0  # ratio of the ends of an interval above which it says nothing


class Place(NamedTuple):
    """A case on a device, which all providers have in common."""

    case: Case | str
    device: str


def seconds(value: float) -> str:
    """Format a time with three digits and its unit."""
    value = float(f"{value:.3g}")  # 999.6 µs would otherwise become 1e+03 µs
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}" if value < 1000 * scale else f"{value / scale:.0f} {unit}"
    return f"{value / 1e-9:.3g} ns"


def size(value: float | None) -> str:
    """Format bytes in binary units; a dash stands for a size that could not be measured."""
    if value is None:
        return "–"
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def percent(fraction: float) -> str:
    """Format a relative uncertainty with two or three digits."""
    if fraction > 9.99:
        return ">999%"
    return f"{fraction:.1%}" if fraction < 0.0995 else f"{fraction:.0%}"


def interval(low: float | None, high: float | None, digits: str = ".3g") -> str:
    """Format the interval of a ratio, or say why it tells nothing.

    Args:
        low, high: its ends; None or infinite: too few rounds for an interval.
        digits: format of a number.
    """
    if low is None or high is None or not math.isfinite(high):
        return "[too few rounds]"
    return f"[{low:{digits}}, {high:{digits}}]" if high < WIDEST * low else "[too noisy]"


def short(provider: str) -> str:
    """Return the name of a provider without the folders of its file."""
    path, colon, function = provider.partition(".py:")
    return path.rpartition("/")[2] + colon + function if colon else provider


def printable(text: str) -> str:
    """Replace control characters and lone surrogates, which neither SVG nor UTF-8 can represent."""
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in ("Cc", "Cs") else c for c in text)


def cut(text: str) -> str:
    """Shorten a text to fit into a figure."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def provider_label(provider: str) -> str:
    """Return the name of a provider for a figure."""
    return cut(printable(short(provider)))


def full_name(case: Case | str, device: str) -> str:
    """Return a case and its device in words."""
    return printable(" · ".join(part for part in (case if isinstance(case, str) else case.label, device) if part))


def case_labels(places: Iterable[Place]) -> dict[Place, str]:
    """Return a label for each case: its size and the properties that vary between the cases."""
    parts = {place: _parts(place) for place in places}
    varying = _varying(parts.values())
    return {
        place: printable(" ".join(p for number, p in enumerate(part) if p and (len(part) == 1 or number in varying)))
        for place, part in parts.items()
    }


def common_properties(places: Iterable[Place]) -> str:
    """Return the properties that `case_labels` leaves out because all cases share them."""
    parts = [_parts(place) for place in places]
    first = next((part for part in parts if len(part) > 1), ())
    return printable(", ".join(p for number, p in enumerate(first) if p and number not in _varying(parts)))


def _varying(parts: Iterable[tuple[str, ...]]) -> set[int]:
    columns = zip(*(part for part in parts if len(part) > 1), strict=True)
    return {number for number, column in enumerate(columns) if len(set(column)) > 1} | {1}


def _parts(place: Place) -> tuple[str, ...]:
    case, device = place
    if isinstance(case, str):
        return (" · ".join(part for part in (case, device) if part),)
    mask = "NaN" if case.mask == "none" else case.mask
    return (
        "" if case.data == "synthetic" else Path(case.data).name,
        f"{case.m}×{case.n}",
        f"rank {case.rank}",
        f"{case.density:.3g} observed",
        f"sparse {case.ratings_dtype}" if case.sparse else f"{case.ratings_dtype}+{mask}",
        counted(case.processes, "process", "es") if case.processes else "",
        f"seed {case.seed}",
        f"suite {Path(case.suite).name}",
        device,
    )
