"""Errors: every code is listed with a meaning and used, and what the command line shows names the option."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from mfbench.errors import CODES, DataUnavailable, MfbenchError, NotComparable, UsageError
from mfbench.installation import ROOT

CLASSES = (MfbenchError, UsageError, DataUnavailable, NotComparable)


def used_codes() -> Iterator[str]:
    """Yield the codes that the package gives to errors."""
    for path in sorted((ROOT / "mfbench").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "code":
                yield from (part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant))


def test_every_code_in_use_is_listed() -> None:
    known = CODES.keys() | {None}
    assert {code for code in used_codes() if isinstance(code, str)} <= known
    assert {kind.code for kind in CLASSES} <= known


def test_codes_are_names_with_a_meaning() -> None:
    for code, meaning in CODES.items():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", code)
        assert meaning
        assert meaning[-1] != "."


@pytest.mark.parametrize(
    ("error", "text", "shown", "exit_code"),
    [
        (UsageError("expected 1, got 2", code="bad-number", argument="time_limit"),
         "time_limit: expected 1, got 2", "--time-limit: expected 1, got 2 [bad-number]", 2),
        (UsageError("nothing to do"), "nothing to do", "nothing to do [bad-usage]", 2),
        (DataUnavailable("install it"), "install it", "install it [missing-data]", 2),
        (NotComparable("cpu is A, was B", code="different-environment"), "cpu is A, was B",
         "not comparable: cpu is A, was B [different-environment]", 4),
    ],
)  # fmt: skip
def test_what_python_and_the_command_line_show(error: MfbenchError, text: str, shown: str, exit_code: int) -> None:
    assert str(error) == text
    assert error.for_command_line == shown
    assert error.exit_code == exit_code
