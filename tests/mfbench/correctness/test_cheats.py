"""Providers that look fast without doing the work are wrong; an honest one beside them is not accused."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from mfbench.results.records import Record, read
from tests.mfbench.cli_runner import mfbench, tiny_suite

pytestmark = pytest.mark.cheats
CHEATS = Path(__file__).with_name("cheats.py")

CAUGHT = {
    "replays_by_pointer": "while it was timed, loss was another",
    "replays_by_id": "while it was timed, loss was another",
    "replays_by_content": "s on new parameters and",
    "replays_the_last_alone": "s on new parameters and",
    "replays_what_comes_often_in_a_row": "s on new parameters and",
    "replays_one_buffer": "is off by",
    "replays_until_something_is_written": "while it was timed, loss was another",
    "computes_when_it_is_unpacked": "expected a pair, (loss, (five gradients)), got a Lazy",
    "computes_gradients_when_they_are_unpacked": "expected the gradients in a tuple or list, got a Lazy",
    "computes_when_it_is_read": "while it was timed",
    "takes_a_third_of_the_time": "while it was timed, loss was another",
    "knows_the_samples_that_count": "while it was timed, loss was another",
    "looks_at_the_loop": "while it was timed, loss was another",
    "gives_the_right_sums": "while it was timed",
    "has_the_loss_right": "while it was timed, user_factors was another",
    "shortens_brief_samples": "passed unseen by its own clock",
    "shortens_the_samples_that_count": "passed unseen by its own clock",
    "works_ahead": "s on new parameters and",
    "tires": "while it was timed",
    "knows_when_it_is_timed": "while it was timed",
    "is_called_in_a_loop": "while it was timed",
    "looks_whether_garbage_is_collected": "while it was timed",
    "turns_the_clock_back": "passed unseen by its own clock",
    "halves_the_clock": "passed unseen by its own clock",
    "patches_the_device": "passed unseen by its own clock",
    "patches_the_gate": "is off by",
    "patches_torch": "changed its input",
    "answers_for_the_harness": "wrote into the harness's own pipe",
    "lets_a_child_do_it": "is off by",
    "gives_the_inputs_back": "changed its input user_factors",
    "is_a_tensor_only_by_name": "expected a plain tensor, got LaterTensor",
    "computes_when_looked_at": "Could not infer dtype",
    "returns_before_it_is_done": "is off by",
    "empties_the_mask": "changed its input mask",
}
IN_VAIN = (
    "replays_what_it_has_seen_often",
    "replays_until_something_changes",
    "patches_the_timers",
    "patches_the_worker",
    "calls_the_reference",
)


def run(tmp_path: Path, names: Sequence[str], size: str = "512x512", baseline: str = "honest") -> dict[str, Record]:
    path, out = Path(shutil.copy(CHEATS, tmp_path)), tmp_path / "out.jsonl"
    providers = ",".join(f"{path}:{name}" for name in ("honest", *names))
    options = ("--size", size, "--rank", 40, "--budget", 0.5, "--threads", 1, "--baseline", f"{path}:{baseline}")
    mfbench("run", "--suite", tiny_suite(tmp_path), "--out", out, "--provider", providers, *options, cwd=tmp_path)
    found = {record.provider.rpartition(":")[2]: record for record in read(out)[0]}
    assert found.keys() == {"honest", *names}
    assert found["honest"].status == "ok", found["honest"].reason
    return found


@pytest.mark.parametrize("names", [list(CAUGHT)[i::3] for i in range(3)], ids=str)
def test_cheats_are_caught(tmp_path: Path, names: list[str]) -> None:
    found = run(tmp_path, names)
    for name in names:
        assert found[name].status == "wrong", (name, found[name].status, found[name].reason)
        assert found[name].timing is None
        assert CAUGHT[name] in (found[name].reason or ""), (name, found[name].reason)


def test_cheats_that_are_not_always_seen_gain_nothing(tmp_path: Path) -> None:
    found = run(tmp_path, IN_VAIN)
    for name in IN_VAIN:
        assert found[name].status in ("ok", "wrong"), (name, found[name].reason)
        speedup = found[name].speedup
        assert speedup is None or speedup.verdict != "faster", (name, speedup)


def test_an_evaluation_alone_in_its_sample_has_inputs_of_its_own(tmp_path: Path) -> None:
    cheat = "takes_a_third_where_contents_are_the_same"
    found = run(tmp_path, [cheat], "1024x2048")  # which takes longer than a sample has to
    assert found[cheat].status == "ok"
    assert found[cheat].speedup.verdict != "faster", found[cheat].speedup


def test_nothing_is_said_against_a_baseline_that_cheats(tmp_path: Path) -> None:
    cheat = "halves_the_clock"
    found = run(tmp_path, [cheat], baseline=cheat)
    assert found[cheat].status == "wrong"
    assert found["honest"].timing is not None
    assert found["honest"].speedup is None
