"""Say in plain words which value of a file or a call does not fit its model."""

from __future__ import annotations

import re
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from mfbench.wording import one_of

EXPECTED = {  # by the beginnings of the types of pydantic's errors
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "string": "text",
    "bool": "true or false",
    "list": "a list",
    "tuple": "a list",
    "dict": "an object",
    "model": "an object",
}
COMPARED = {
    "greater_than_equal": "from {ge:g}",
    "greater_than": "above {gt:g}",
    "less_than_equal": "up to {le:g}",
    "less_than": "below {lt:g}",
}
LONGEST = 60  # characters of a value that a message shows


def first_fault(error: ValidationError, place: str = "") -> str:
    """Return where the first fault is, what was expected there, and what came.

    Args:
        error: of a model.
        place: of the model in its file.
    """
    detail = error.errors(include_url=False)[0]
    at = ".".join(str(part) for part in (*filter(None, [place]), *detail["loc"]))
    return f"{at}: {expectation(detail)}" if at else expectation(detail)


def expectation(detail: ErrorDetails) -> str:
    """Return what was expected, and what came."""
    kind, context, given = detail["type"], detail.get("ctx", {}), detail["input"]
    if kind == "missing":
        return "is missing"
    if kind == "json_invalid":
        return f"not JSON: {re.sub(' at line 1 column', ' at character', context['error'])}"
    if kind == "value_error":  # a validator's own words
        return str(context["error"])
    if kind == "literal_error":
        return one_of(re.findall(r"'([^']*)'", context["expected"]), given)
    text = repr(given)
    return f"expected {_expected(kind, context)}, got {text if len(text) <= LONGEST else text[:LONGEST] + '...'}"


def _expected(kind: str, context: dict[str, Any]) -> str:
    if kind == "too_short":
        return "one value or more"
    if kind in COMPARED:
        return f"a number {COMPARED[kind].format(**context)}"
    return next((words for start, words in EXPECTED.items() if kind.startswith(start)), "another value")
