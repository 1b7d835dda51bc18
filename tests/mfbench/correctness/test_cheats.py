"""Providers that look fast without doing the work are caught; an honest one beside them passes."""

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
    "replays_by_pointer": {"wrong-while-timed"},
    "replays_by_id": {"wrong-while-timed"},
    "replays_by_content": {"replayed"},
    "replays_the_last_alone": {"replayed"},
    "replays_what_comes_often_in_a_row": {"replayed"},
    "replays_one_buffer": {"not-finite"},
    "replays_until_something_is_written": {"wrong-while-timed"},
    "computes_when_it_is_unpacked": {"bad-outputs"},
    "computes_gradients_when_they_are_unpacked": {"bad-outputs"},
    "computes_when_it_is_read": {"wrong-while-timed"},
    "takes_a_third_of_the_time": {"wrong-while-timed"},
    "knows_the_samples_that_count": {"wrong-while-timed"},
    "looks_at_the_loop": {"wrong-while-timed"},
    "gives_the_right_sums": {"wrong-while-timed"},
    "has_the_loss_right": {"wrong-while-timed"},
    "shortens_brief_samples": {"clock-mismatch"},
    "shortens_the_samples_that_count": {"clock-mismatch"},
    "works_ahead": {"replayed"},
    "tires": {"wrong-while-timed"},
    "knows_when_it_is_timed": {"wrong-while-timed"},
    "is_called_in_a_loop": {"wrong-while-timed"},
    "looks_whether_garbage_is_collected": {"wrong-while-timed"},
    "turns_the_clock_back": {"clock-mismatch"},
    "halves_the_clock": {"clock-mismatch"},
    "patches_the_device": {"clock-mismatch"},
    "patches_the_gate": {"off-bound"},
    "patches_torch": {"changed-input"},
    "answers_for_the_harness": {"garbled-pipe"},
    "lets_a_child_do_it": {"off-bound"},
    "gives_the_inputs_back": {"changed-input"},
    "is_a_tensor_only_by_name": {"bad-outputs"},
    "computes_when_looked_at": {"bad-outputs"},
    "returns_before_it_is_done": {"off-bound", "not-finite"},
    "empties_the_mask": {"changed-input"},
}
CLOCKS = [name for name, codes in CAUGHT.items() if codes == {"clock-mismatch"}]
OTHERS = [name for name in CAUGHT if name not in CLOCKS]
TRIES = 3
IN_VAIN = (
    "replays_what_it_has_seen_often",
    "replays_until_something_changes",
    "patches_the_timers",
    "patches_the_worker",
    "calls_the_reference",
)


def run(tmp_path: Path, names: Sequence[str], size: str = "128x256", baseline: str = "honest") -> dict[str, Record]:
    path, out = Path(shutil.copy(CHEATS, tmp_path)), tmp_path / "out.jsonl"
    providers = ",".join(f"{path}:{name}" for name in ("honest", *names))
    options = ("--size", size, "--rank", 40, "--budget", 0.5, "--threads", 1, "--baseline", f"{path}:{baseline}")
    mfbench("run", "--suite", tiny_suite(tmp_path), "--out", out, "--provider", providers, *options, cwd=tmp_path)
    found = {record.provider.rpartition(":")[2]: record for record in read(out)[0]}
    assert found.keys() == {"honest", *names}
    assert found["honest"].status == "ok", found["honest"].reason
    return found


@pytest.mark.parametrize(
    ("names", "size"),
    [*((OTHERS[i::3], "128x256") for i in range(3)), (CLOCKS, "512x512")],
    ids=["a third", "another third", "the last third", "clocks"],
)
def test_cheats_are_caught(tmp_path: Path, names: list[str], size: str) -> None:
    found = run(tmp_path, names, size)
    for _ in range(TRIES - 1):  # on a busy machine, noise may hide a cheat from the clock; it never accuses anybody
        if missed := [name for name in names if found[name].status == "ok"]:
            (tmp_path / "out.jsonl").unlink()
            found |= run(tmp_path, missed, size)
    for name in names:
        assert found[name].status == "wrong", (name, found[name].status, found[name].reason)
        assert found[name].timing is None
        assert found[name].code in CAUGHT[name], (name, found[name].code, found[name].reason)


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
