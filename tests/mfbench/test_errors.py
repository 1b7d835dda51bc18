"""Errors have codes: those raised are those in the table, and the command line prints them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from mfbench.errors import CODES, DataUnavailable, MfbenchError, NotComparable, NothingToShow, UsageError
from mfbench.installation import ROOT

SOURCES = [path for path in (ROOT / "mfbench").rglob("*.py") if path != ROOT / "mfbench" / "errors.py"]


def raised_codes() -> Iterator[str]:
    """Yield the codes that the package passes as `code`, and the defaults of its error classes."""
    yield from (kind.code for kind in (UsageError, DataUnavailable, NotComparable, NothingToShow))
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.keyword) and node.arg == "code":
                yield from constants(node.value)
            elif isinstance(node, ast.ClassDef):
                for statement in node.body:
                    if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "code":
                        yield from constants(statement.value)


def constants(value: ast.expr) -> Iterator[str]:
    for node in ast.walk(value):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_every_raised_code_is_listed_and_the_reverse() -> None:
    assert set(raised_codes()) == CODES.keys()


def test_every_usage_error_has_a_code_of_its_kind() -> None:
    without = [
        f"{path.name}, line {node.lineno}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "UsageError"
        if "code" not in [keyword.arg for keyword in node.keywords]
    ]
    assert without == []


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
    (NothingToShow("no records"), "no records", "no records [nothing-to-show]"),
    (NotComparable("other", code="different-kind"), "other", "not comparable: other [different-kind]"),
])  # fmt: skip
def test_lines(error: MfbenchError, text: str, line: str) -> None:
    assert (str(error), error.for_command_line) == (text, line)
