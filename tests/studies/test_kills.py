"""`kills`: resumed runs lose nothing, and a run that loses records is noticed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.studies import kills
from tests.studies.kills import kill_and_resume

pytestmark = pytest.mark.studies


def test_kills_at_random_moments_lose_nothing(tmp_path: Path) -> None:
    outcome = kill_and_resume(tmp_path, kills=2, seed=random.randrange(1 << 30), longest_s=7)
    assert outcome.flawless, outcome
    assert outcome.kills == 2


def test_a_lost_record_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A harness that starts its file anew: the second run lacks the line seen before the kill."""
    out, lines = tmp_path / "out.jsonl", [b"{}\n", b""]

    def run_for(arguments: list[str], file: Path, seconds: float | None) -> tuple[bytes, bool]:
        file.write_bytes(lines.pop())
        return b"{}\n", not lines

    monkeypatch.setattr(kills, "_run_for", run_for)
    outcome = kill_and_resume(tmp_path, kills=1, seed=1)
    assert (outcome.lost, outcome.incomplete, outcome.flawless) == (1, 1, False)
    assert not out.exists()
