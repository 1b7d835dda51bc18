"""Messages beside a command's result: on stderr, and only as many as the level allows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mfbench import log


@pytest.fixture(autouse=True)
def default_level() -> Iterator[None]:
    yield
    log.set_level(0)


@pytest.mark.parametrize(
    ("level", "expected"), [(-1, ""), (0, "mfbench: a note\n"), (1, "mfbench: a note\nmfbench: gate\n")]
)
def test_the_level_decides_what_is_printed(capsys, level: int, expected: str) -> None:
    log.set_level(level)
    assert log.level() == level
    log.note("a note")
    log.step("gate")
    assert capsys.readouterr() == ("", expected)
