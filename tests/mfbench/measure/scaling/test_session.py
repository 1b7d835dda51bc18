"""`run` over several processes: real launches on a tiny case, and input that does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mfbench.errors import UsageError
from mfbench.measure.options import RunOptions
from mfbench.measure.scaling import plan
from mfbench.measure.suite import run_suite
from mfbench.results import environment
from mfbench.results.records import read


def options(tmp_path: Path, **changes: Any) -> RunOptions:
    axes = {"size": ["41x23"], "rank": [3]} | changes.pop("axes", {})
    given = {"axes": axes, "out": tmp_path / "r.jsonl", "processes": [1, 2], "budget": 0.1, "threads": 1} | changes
    return RunOptions(**given)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("axes", "providers", "baseline"),
    [
        ({}, ("fused", "tiled", "autograd"), "autograd"),
        ({"layout": ["sparse"]}, ("fused-deterministic", "gather"), "gather"),
    ],
)
def test_processes_are_launched_gated_and_recorded(
    axes: dict[str, Any], providers: tuple[str, ...], baseline: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "VISITS", 1)
    monkeypatch.setattr(environment, "usable_cpus", lambda: 2)
    found = run_suite(options(tmp_path, axes=axes, provider=providers))
    assert [record.reason for record in found.records] == [None] * 4 * len(providers)
    assert read(tmp_path / "r.jsonl")[0] == found.records
    assert len({record.key for record in found.records}) == len(found.records)
    for record in found.records:
        assert record.correctness
        assert all(check.ok for check in record.correctness.values())
        assert record.timing
        assert record.timing.rounds >= 3
        assert record.speedup
        assert record.speedup.baseline == baseline
        assert record.env["threads"] == (1 if record.case.processes else 2)
        assert (record.group is None) == (record.case.processes is None)
        if record.group:
            assert record.group.computing_s > 0
            assert (record.group.latency_s is None) == (record.case.processes == 1)
            assert (record.group.predicted_s is not None) == (record.provider == "fused")
        assert (record.scaling is not None) == (record.case.processes == 2)
        if record.scaling:
            assert record.scaling.kind == ("weak" if record.case.m == 82 else "strong")
            assert record.scaling.ci95 == (None, None)  # of a single launch


@pytest.mark.parametrize(
    ("changes", "code", "argument", "message"),
    [
        ({"processes": [0]}, "bad-number", "processes", "each a whole number from 1 to 1024, got 0"),
        ({"processes": [1, 2.0]}, "bad-number", "processes", "got 2.0"),
        ({"processes": [2, 2]}, "bad-number", "processes", "got 2 more than once"),
        ({"processes": []}, "bad-number", "processes", "got none"),
        ({"device": "cuda"}, "bad-device", "device", "expected cpu, got cuda"),
        ({"device": "all"}, "bad-device", "device", "expected cpu, got all"),
        ({"resume": True}, "bad-value", "resume", "cannot be combined with several processes"),
        ({"resolve": 0.02}, "bad-value", "resolve", "cannot be combined with several processes"),
        ({"provider": "compile"}, "bad-provider", "provider", "over several processes expected one of fused, "),
        ({"baseline": "closed-form"}, "bad-provider", "baseline", "over several processes expected one of fused, "),
        ({"processes": [1, 64]}, "bad-number", "processes", "expected at most the 41 users of 41×23 rank 3"),
    ],
)  # fmt: skip
def test_input_that_does_not_fit_is_refused_before_anything_is_launched(
    changes: dict[str, Any], code: str, argument: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as error:
        run_suite(options(tmp_path, **changes))
    assert (error.value.code, error.value.argument) == (code, argument)
    assert message in error.value.message
    assert not (tmp_path / "r.jsonl").exists()


def test_the_default_suite_has_one_large_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("mfbench.measure.scaling.session.measure_series", lambda *given: seen.append(given[0]) or [])
    run_suite(RunOptions(processes=[1, 2], out=tmp_path / "r.jsonl"))
    (planned,) = seen
    assert (planned.one.case.suite, planned.one.case.m, planned.one.case.processes) == ("scaling", 4096, 1)
