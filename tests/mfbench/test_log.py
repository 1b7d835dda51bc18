"""Messages by level."""

from __future__ import annotations

from mfbench import log


def test_levels(capsys) -> None:
    for level, printed in ((-1, ""), (0, "mfbench: note\n"), (1, "mfbench: note\nmfbench: step\n")):
        log.set_level(level)
        log.note("note")
        log.step("step")
        assert capsys.readouterr().err == printed
    log.set_level(0)
