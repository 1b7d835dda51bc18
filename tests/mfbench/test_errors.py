"""Errors have codes: those raised are those in the table, and the command line prints them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from mfbench.errors import CODES, DataUnavailable, MfbenchError, NotComparable, UsageError
from mfbench.installation import ROOT

SOURCES = [path for path in (ROOT / "mfbench").rglob("*.py") if path.name != "errors.py"]


def raised_codes() -> Iterator[str]:
    """Yield the codes that the package passes as `code`, and the defaults of its error classes."""
    yield from (kind.code for kind in (UsageError, DataUnavailable, NotComparable))
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.keyword) and node.arg == "code":
                yield from constants(node.value)
            elif isinstance(node, ast.ClassDef) and any(_name(base) == "UsageError" for base in node.bases):
                yield from (
                    code
                    for statement in node.body
                    if isinstance(statement, ast.Assign)
                    for code in constants(statement.value)
                )


def constants(value: ast.expr) -> Iterator[str]:
    for node in ast.walk(value):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _name(base: ast.expr) -> str:
    return base.id if isinstance(base, ast.Name) else ""


def test_every_raised_code_is_listed() -> None:
    assert set(raised_codes()) - CODES.keys() == set()


def test_codes_are_short_names_with_a_meaning() -> None:
    for code, meaning in CODES.items():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", code)
        assert meaning
        assert not meaning.endswith(".")


@pytest.mark.parametrize(("error", "text", "line"), [
    (UsageError("no suite 'x'", code="no-such-suite", argument="suite"), "suite: no suite 'x'",
     "--suite: no suite 'x' [no-such-suite]"),
    (UsageError("got 2", code="bad-axis", argument="ratings_dtype"), "ratings_dtype: got 2",
     "--ratings-dtype: got 2 [bad-axis]"),
    (UsageError("no"), "no", "no [bad-usage]"),
    (NotComparable("other", code="different-kind"), "other", "not comparable: other [different-kind]"),
])  # fmt: skip
def test_lines(error: MfbenchError, text: str, line: str) -> None:
    assert (str(error), error.for_command_line) == (text, line)
