"""The records of a series, from launches with known times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from mfbench.correctness.near_misses import to_arrays
from mfbench.measure.rounds import CaseTiming, ProviderTiming
from mfbench.measure.scaling import series
from mfbench.measure.scaling.member import COMPUTING, Job, JobResult, Launched
from mfbench.measure.scaling.model import Network, Problem
from mfbench.measure.scaling.plan import Plan, plan
from mfbench.measure.scaling.probes import MESSAGES, Calibration, Probes
from mfbench.measure.scaling.series import Settings, measure_series, merged
from mfbench.problems import shared
from mfbench.problems.cases import Case
from mfbench.results import environment
from mfbench.results.codes import Code, ProviderFailure
from mfbench.results.records import Record
from reference import oracle_loss_and_grads

CASE = Case(suite="s", m=24, n=10, rank=3, density=0.8, ratings_dtype="float32", mask="uint8", data="synthetic", seed=1)
SETTINGS = Settings(("fused", "autograd"), "autograd", margin=0.02, budget_s=1.0, family=5, time_limit_s=60.0)
NETWORK = Network(2e-5, 1e9)
SPEED = {"fused": 1.0, "autograd": 0.1}


def seconds(name: str, users: int, processes: int) -> float:
    """Half a millisecond for each user, and one for messages."""
    provider = name.removesuffix(COMPUTING)
    messages = 0.0 if processes == 1 or name.endswith(COMPUTING) else 1e-3
    return (5e-4 * users / processes + messages) / SPEED[provider]


class FakeLaunches:
    """Answers as the first process of a launch would. The machine becomes slower by 1 % with each launch."""

    def __init__(self) -> None:
        self.turn = 0
        self.wrong: Callable[[int, int, str], bool] = lambda turn, processes, name: False
        self.fail: Callable[[int, int], ProviderFailure | None] = lambda turn, processes: None
        self.taking_part: list[tuple[int, list[Sequence[str]]]] = []

    def __call__(self, processes: int, function: Any, jobs: Sequence[Job], threads: int, limit: float) -> Launched:
        self.taking_part.append((processes, [job.providers for job in jobs]))
        turn, self.turn = self.turn, self.turn + 1
        if failure := self.fail(turn, processes):
            raise failure
        messages = tuple(NETWORK.seconds(size, processes) for size, _ in MESSAGES) if processes > 1 else ()
        results = [self.result(turn, processes, threads, job) for job in jobs]
        return Launched(results, Probes(1e10, messages))

    def result(self, turn: int, processes: int, threads: int, job: Job) -> JobResult:
        inputs = shared.mapped(job.location)
        users = len(inputs.user_factors)
        computing = [name + COMPUTING for name in job.providers] if processes > 1 else []
        times = {name: 1.01**turn * seconds(name, users, processes) / threads for name in [*job.providers, *computing]}
        outputs = {}
        for name in job.providers:
            loss, *grads = to_arrays(oracle_loss_and_grads(*inputs))
            outputs[name] = [loss * (2 if self.wrong(turn, processes, name) else 1), *grads]
        calibration = Calibration(0.0, seconds("fused", users // 4, 1), 1 / 4) if job.calibrate else None
        return JobResult(timing(times), outputs, calibration)


def timing(times: dict[str, float], rounds: int = 3) -> CaseTiming:
    providers = {name: ProviderTiming(np.full(rounds, value), 1, False, False) for name, value in times.items()}
    return CaseTiming(providers, 0, rounds, 0, 0, np.zeros(rounds), None, 1.0, 1.0)


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> FakeLaunches:
    fake = FakeLaunches()
    monkeypatch.setattr(series, "launch", fake)
    monkeypatch.setattr(environment, "usable_cpus", lambda: 2)
    return fake


def planned() -> Plan:
    return plan(CASE, [1, 2], 1)


def by_key(records: Sequence[Record]) -> dict[tuple[int, int | None, str], Record]:
    return {(record.case.m, record.case.processes, record.provider): record for record in records}


def test_ratios_are_those_of_neighbouring_launches(launches: FakeLaunches) -> None:
    found = by_key(measure_series(planned(), SETTINGS, "run"))
    assert len(found) == 2 * 4
    assert all(record.status == "ok" for record in found.values())
    strong, weak = found[24, 2, "fused"], found[48, 2, "fused"]
    one_s, two_s = 12e-3, 7e-3
    assert strong.scaling
    assert weak.scaling
    # The drift of 1 % a launch cancels: one process ran as long before as after
    assert strong.scaling.ratio == pytest.approx(one_s / two_s, rel=1e-9)
    assert strong.scaling.efficiency == pytest.approx(one_s / two_s / 2, rel=1e-9)
    assert strong.scaling.ci95 == pytest.approx((one_s / two_s,) * 2, rel=1e-6)
    assert strong.scaling.efficiency_ci95 == pytest.approx((one_s / two_s / 2,) * 2, rel=1e-6)
    assert weak.scaling.ratio == weak.scaling.efficiency == pytest.approx(one_s / 13e-3, rel=1e-9)
    assert (strong.scaling.kind, weak.scaling.kind) == ("strong", "weak")
    assert found[24, 1, "fused"].scaling is None


def test_one_process_of_as_many_threads_is_compared_with(launches: FakeLaunches) -> None:
    found = by_key(measure_series(planned(), SETTINGS, "run"))
    alone, strong, weak = found[24, None, "fused"], found[24, 2, "fused"], found[48, 2, "fused"]
    assert alone.group is None
    assert (alone.env["threads"], strong.env["threads"]) == (2, 1)
    assert strong.scaling
    assert strong.scaling.one_process_threads == 2
    assert strong.scaling.one_process_ratio == pytest.approx(6e-3 / 7e-3, rel=0.02)
    assert weak.scaling
    assert weak.scaling.one_process_ratio is None


def test_groups_say_where_the_time_goes(launches: FakeLaunches) -> None:
    found = by_key(measure_series(planned(), SETTINGS, "run"))
    one, two = found[24, 1, "fused"].group, found[24, 2, "fused"].group
    assert one
    assert two
    assert (one.backend, one.threads, one.communicating_s, one.latency_s) == ("gloo", 1, 0.0, None)
    assert two.communicating_s == pytest.approx(1e-3, rel=0.2)
    assert two.computing_s == pytest.approx(6e-3, rel=0.2)
    assert two.latency_s == pytest.approx(2e-5)
    assert two.bytes_per_s == pytest.approx(1e9)
    assert (one.launches, two.launches) == (11, 5)


def test_predictions_follow_from_the_calibration_and_the_network(launches: FakeLaunches) -> None:
    found = by_key(measure_series(planned(), SETTINGS, "run"))
    predicted = {key: record.group.predicted_s for key, record in found.items() if record.group}
    message = NETWORK.seconds(Problem.of(CASE).message_bytes(2), 2)
    assert predicted[24, 1, "fused"] == pytest.approx(12e-3, rel=1e-6)
    assert predicted[24, 2, "fused"] == pytest.approx(6e-3 + message, rel=1e-6)
    assert predicted[48, 2, "fused"] == pytest.approx(12e-3 + message, rel=1e-6)
    assert predicted[24, 2, "autograd"] is None


def test_speedups_over_the_baseline_are_paired_in_rounds(launches: FakeLaunches) -> None:
    record = by_key(measure_series(planned(), SETTINGS, "run"))[24, 2, "fused"]
    assert record.speedup
    assert record.speedup.baseline == "autograd"
    assert record.speedup.ratio == pytest.approx(10)
    assert record.speedup.family == 5
    assert record.timing
    assert record.timing.rounds == 5 * 3
    assert record.roofline is None


def test_a_wrong_result_takes_part_no_longer(launches: FakeLaunches) -> None:
    launches.wrong = lambda turn, processes, name: processes == 2 and name == "fused" and turn > 2
    found = by_key(measure_series(planned(), SETTINGS, "run"))
    wrong = found[24, 2, "fused"]
    assert (wrong.status, wrong.code) == ("wrong", Code.OFF_BOUND)
    assert wrong.correctness
    assert not wrong.correctness["loss"].ok
    assert wrong.timing is None
    assert found[24, 2, "autograd"].status == found[24, 1, "fused"].status == "ok"
    of_two = [providers for processes, providers in launches.taking_part if processes == 2]
    assert of_two[1] == [("fused", "autograd")] * 2 or of_two[1] == [["fused", "autograd"]] * 2
    assert list(of_two[2][0]) == ["autograd"]


def test_a_launch_that_fails_is_a_record_of_every_provider(launches: FakeLaunches) -> None:
    failure = ProviderFailure(Code.KILLED, "process 1 got SIGKILL")
    launches.fail = lambda turn, processes: failure if processes == 2 else None
    records = measure_series(planned(), SETTINGS, "run")
    failed = [record for record in records if record.status != "ok"]
    assert {(record.case.processes, record.code, record.status) for record in failed} == {(2, "killed", "oom")}
    assert len(failed) == 2 * 2
    assert sum(processes == 2 for processes, _ in launches.taking_part) == 1  # not launched again


def test_rounds_of_launches_are_joined_without_those_that_failed() -> None:
    joined = merged([timing({"a": 1.0, "b": 2.0}), timing({"a": 3.0}, rounds=2)])
    assert list(joined.providers) == ["a"]
    assert joined.providers["a"].samples.tolist() == [1.0] * 3 + [3.0] * 2
    assert (joined.placements, len(joined.background_cores), joined.took_s) == (5, 5, 2.0)
