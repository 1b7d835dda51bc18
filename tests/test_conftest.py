"""The choice of tests: the quick ones by default, a tier by its marker, whatever a file or test names."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

FILE = """
import pytest

def test_quick(): pass

@pytest.mark.slow
def test_slow(): pass

@pytest.mark.browser
def test_browser(): pass
"""


@pytest.mark.parametrize(
    ("arguments", "chosen"),
    [
        ((), ["a-quick", "b-quick"]),
        (("tests",), ["a-quick", "b-quick"]),
        (("-k", "slow"), []),
        (("-m", "slow"), ["a-slow", "b-slow"]),
        (("-m", "slow or browser"), ["a-slow", "a-browser", "b-slow", "b-browser"]),
        (("--all",), ["a-quick", "a-slow", "a-browser", "b-quick", "b-slow", "b-browser"]),
        (("tests/test_a.py",), ["a-quick", "a-slow", "a-browser"]),
        (("tests/test_a.py::test_slow",), ["a-slow"]),
        (("tests/test_a.py::test_slow", "tests/test_b.py::test_quick"), ["a-slow", "b-quick"]),
    ],
    ids=" ".join,
)
def test_the_command_line_chooses(pytester: pytest.Pytester, arguments: tuple[str, ...], chosen: list[str]) -> None:
    tests = pytester.mkdir("tests")
    (tests / "conftest.py").write_text(Path(__file__).with_name("conftest.py").read_text())
    for name in "ab":
        (tests / f"test_{name}.py").write_text(FILE)
    pytester.makeini("[pytest]\ntestpaths = tests\nmarkers =\n  slow\n  browser")
    result = pytester.runpytest_inprocess("--collect-only", "-q", "-p", "no:xdist", *arguments)
    listed = [line for line in result.outlines if "::" in line]
    names = [line.replace("tests/test_", "").replace(".py::test_", "-") for line in listed]
    assert sorted(names) == sorted(chosen)
