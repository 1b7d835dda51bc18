"""A run of a suite: which sessions it plans, and that what has ended is kept when it is interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mfbench.errors import UsageError
from mfbench.measure.options import RunOptions
from mfbench.measure.recording import Origin
from mfbench.measure.session import Session
from mfbench.measure.suite import run_suite
from mfbench.results.records import Record, read

AXES = {"size": ["3x4", "5x6"], "rank": [2]}


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[Session]:
    """The sessions that were run. Each gives made-up records; Ctrl-C comes before the case with 5 users."""
    found: list[Session] = []

    def run(self: Session, report: Any) -> Iterator[list[Record]]:
        found.append(self)
        for spec in self.specs:
            report(spec, "data")
            if spec.size == (5, 6) and self.options.budget == 1:
                raise KeyboardInterrupt
            origin = Origin(self.run_id, spec.sized(*spec.size, 0.5), self.device)
            yield [origin.success(name) for name in self.providers]

    monkeypatch.setattr(Session, "run", run)
    return found


def options(tmp_path: Path, **changes: Any) -> RunOptions:
    return RunOptions(**({"suite": "square", "axes": AXES, "out": tmp_path / "r.jsonl", "device": "cpu"} | changes))


def test_the_baseline_is_measured_though_nobody_names_it(tmp_path: Path, sessions: list[Session]) -> None:
    found = run_suite(options(tmp_path, provider=["tiled", "closed-form"]))
    assert not found.interrupted
    (session,) = sessions
    assert session.providers == ["tiled", "closed-form", "autograd"]
    assert session.family == 2 * 2  # cases times comparisons with the baseline
    assert len(found.records) == 6
    assert read(tmp_path / "r.jsonl")[0] == found.records
    assert len({record.run_id for record in found.records}) == 1


def test_the_family_spans_all_devices(tmp_path: Path, sessions: list[Session], monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("mfbench.results.environment._gpu", dict)
    run_suite(options(tmp_path, provider="fused", device="all"))
    assert [(session.device, session.family) for session in sessions] == [("cpu", 4), ("cuda", 4)]


def test_an_interrupted_run_returns_what_has_ended(tmp_path: Path, sessions: list[Session]) -> None:
    run_suite(options(tmp_path, provider="fused"))  # an earlier run in the same file
    found = run_suite(options(tmp_path, provider="fused", budget=1))
    assert found.interrupted
    assert [(record.case.m, record.provider) for record in found.records] == [(3, "fused"), (3, "autograd")]
    assert len(read(tmp_path / "r.jsonl")[0]) == 6


@pytest.mark.parametrize(
    ("changes", "code", "argument"),
    [
        ({"provider": "fusde"}, "no-such-provider", "provider"),
        ({"baseline": "autogard"}, "no-such-provider", "baseline"),
        ({"suite": "sqare"}, "no-such-suite", "suite"),
        ({"out": Path("no/such/folder.jsonl")}, "unwritable-file", "out"),
    ],
)
def test_names_that_do_not_fit_are_refused_before_anything_runs(
    tmp_path: Path, monkeypatch, sessions: list[Session], changes: dict[str, Any], code: str, argument: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as raised:
        run_suite(options(tmp_path, **changes))
    assert (raised.value.code, raised.value.argument) == (code, argument)
    assert sessions == []
    assert not (tmp_path / "r.jsonl").exists() or not (tmp_path / "r.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("suite", "layout", "baseline", "expected"),
    [
        (None, ["sparse"], None, "gather"),
        (None, ["sparse"], "closed-form", "closed-form"),
        (None, ["sparse"], "autograd", "autograd"),
        (None, ["dense"], None, "autograd"),
        (None, ["sparse", "dense"], None, "autograd"),
        (None, ["auto"], None, "autograd"),
        ("square", ["sparse"], None, "autograd"),
        ("sparse", ["sparse"], None, "gather"),
    ],
)
def test_sparse_ratings_alone_are_held_against_what_users_write_for_them(
    tmp_path: Path, sessions: list[Session], suite: str | None, layout: list[str], baseline: str | None, expected: str
) -> None:
    run_suite(options(tmp_path, suite=suite, baseline=baseline, provider="fused", axes=AXES | {"layout": layout}))
    assert [session.baseline for session in sessions] == [expected]
    assert sessions[0].providers == ["fused", expected]
