"""One case: a record for every provider, whichever of them fails and whenever."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mfbench.measure.case import measure_case
from mfbench.measure.recording import Origin
from mfbench.results.records import Record
from tests.mfbench.measure.in_process import CASE, InProcess, write_providers


def measure(workers: dict[str, InProcess], baseline: str = "autograd", **options) -> dict[str, Record]:
    origin = Origin("run", CASE, "cpu")
    return measure_case(origin, workers, baseline=baseline, margin=0.02, budget_s=0.1, **options)


@pytest.fixture
def workers(tmp_path: Path) -> dict[str, InProcess]:
    file = write_providers(tmp_path)
    names = {"autograd": "autograd", "tiled": "tiled"}
    names |= {name: f"{file}:{name}" for name in ("halves_a_gradient", "tires")}
    return {name: InProcess(provider) for name, provider in names.items()}


def test_those_that_pass_are_timed_and_those_that_fail_say_why(workers: dict[str, InProcess]) -> None:
    activities: list[str] = []
    records = measure(workers, progress=activities.append)
    assert {name: (record.status, record.code) for name, record in records.items()} == {
        "autograd": ("ok", None), "tiled": ("ok", None),
        "halves_a_gradient": ("wrong", "off-bound"), "tires": ("error", "exception"),
    }  # fmt: skip
    assert "user_bias" in (records["halves_a_gradient"].reason or "")
    assert not records["halves_a_gradient"].correctness["user_bias"].ok
    assert records["tiled"].timing.rounds == records["autograd"].timing.rounds
    assert records["tiled"].speedup.baseline == "autograd"
    assert records["autograd"].speedup.ratio == 1
    assert activities[:2] == ["data", "oracle"]
    assert activities.count("pilot") == 2  # again without the one that tired
    assert any(re.fullmatch(r"timing, \d+ rounds, about \d\S* s", activity) for activity in activities)
    assert activities[-1] == "gate again"
    assert all(worker.asked[-1] == "release" for worker in workers.values())


def test_without_its_baseline_a_provider_has_times_and_no_speedup(workers: dict[str, InProcess]) -> None:
    workers = {name: workers[name] for name in ("tiled", "halves_a_gradient")}
    records = measure(workers, baseline="halves_a_gradient")
    assert records["halves_a_gradient"].status == "wrong"
    assert records["tiled"].timing is not None
    assert records["tiled"].speedup is None


def test_a_case_in_which_all_fail_is_not_timed(workers: dict[str, InProcess]) -> None:
    activities: list[str] = []
    records = measure({"halves_a_gradient": workers["halves_a_gradient"]}, progress=activities.append)
    assert [record.status for record in records.values()] == ["wrong"]
    assert "pilot" not in activities


@pytest.mark.parametrize("method", ["prepare", "place", "sample", "evaluate_redrawn", "samples_in_a_row"])
def test_a_worker_that_dies_takes_no_other_with_it(workers: dict[str, InProcess], method: str) -> None:
    workers = {name: workers[name] for name in ("autograd", "tiled")}
    workers["tiled"].fail_on = method
    records = measure(workers)
    assert (records["tiled"].status, records["tiled"].code) == ("crashed", "signal")
    assert records["tiled"].timing is None
    assert records["autograd"].status == "ok"
