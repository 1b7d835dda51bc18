"""A suite run: for every case draw, gate, time in rounds, and hand over finished records."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch

from mfbench import environment, gate, roofline, stats
from mfbench.cases import Case
from mfbench.errors import DataUnavailable
from mfbench.inputs import Inputs, draw, sized
from mfbench.isolation import ProviderFailure, WorkerProcess
from mfbench.records import Correctness, Rates, Record, Roofline, Speedup, Status, Timing
from mfbench.timing import Timing as Samples
from mfbench.timing import time_in_rounds
from mfbench.worker import Prepared

METHOD = "perf_counter, own process, interleaved rounds in random order"
TF32_EPS = 2.0**-10


class Plan(NamedTuple):
    """What to run, and how."""

    run_id: str
    cases: Sequence[Case]
    providers: Sequence[str]  # the baseline among them
    baseline: str
    device: str
    margin: float
    budget_s: float
    time_limit_s: float
    threads: int | None
    done: frozenset[tuple[Case, str, str]]  # keys of finished records, which are not measured again


Progress = Callable[[Case, str], None]


def run(plan: Plan, progress: Progress) -> Iterable[list[Record]]:
    """The records of one case after another, as each case ends.

    Raises:
        UsageError: a provider cannot be loaded, or a data file cannot be read.
    """
    if plan.threads:
        torch.set_num_threads(plan.threads)
    workers = {name: WorkerProcess(name, plan.device, plan.threads, plan.time_limit_s) for name in plan.providers}
    try:
        for worker in workers.values():
            worker.start()
        for worker in workers.values():
            worker.ready()
        for case in plan.cases:
            records = _run_case(plan, case, workers, progress)
            if records:
                yield records
    finally:
        for worker in workers.values():
            worker.stop()


def _run_case(plan: Plan, case: Case, workers: dict[str, WorkerProcess], progress: Progress) -> list[Record]:
    progress(case, "data")
    try:
        case = sized(case)
    except DataUnavailable as missing:
        return [
            _record(plan, case, name, "skipped", str(missing))
            for name in plan.providers
            if (case, name, plan.device) not in plan.done
        ]
    wanted = [name for name in plan.providers if (case, name, plan.device) not in plan.done]
    if not wanted:
        return []
    taking_part = list(dict.fromkeys([plan.baseline, *wanted]))  # the ratios need the baseline, measured again or not

    records: dict[str, Record] = {}
    progress(case, "oracle")
    standard = _standard(case, plan.device)
    prepared: dict[str, Prepared] = {}
    correctness: dict[str, dict[str, Correctness]] = {}
    for name in taking_part:
        progress(case, f"gate {name}")
        try:
            prepared[name] = workers[name].request("prepare", case)
        except ProviderFailure as failure:
            records[name] = _record(plan, case, name, failure.status, failure.reason)
            continue
        correctness[name], reason = _judge(standard(name), prepared[name])
        if reason:
            records[name] = _record(plan, case, name, "wrong", reason, correctness=correctness[name])

    competing = [name for name in taking_part if name not in records]
    samples = _time(plan, case, workers, prepared, competing, records, progress)
    for worker in workers.values():
        _release(worker)
    if samples:
        ceilings = roofline.measure(case, plan.device)
        for name in samples.samples:
            measured = _measured(plan, case, name, samples, prepared[name], ceilings)
            records[name] = _record(plan, case, name, "ok", correctness=correctness[name], **measured)
    return [records[name] for name in wanted]


def _standard(case: Case, device: str) -> Callable[[str], gate.Standard]:
    """The gate's standard for a provider: what it may be off by depends on the precision that its name states."""
    inputs: Inputs = draw(case)
    standard = gate.standard(inputs)

    def for_provider(name: str) -> gate.Standard:
        coarse = device != "cpu" and name.endswith(("-tf32", "-bf16x3"))
        return gate.standard(inputs, TF32_EPS) if coarse else standard

    return for_provider


def _judge(standard: gate.Standard, prepared: Prepared) -> tuple[dict[str, Correctness], str | None]:
    """Every output's correctness, and why the provider is wrong where it is."""
    verdicts = standard.judge(prepared.outputs)
    reasons = [
        f"{name} is off by {verdict.error:.2g}, allowed {verdict.bound:.2g}"
        for name, verdict in verdicts.items()
        if not verdict.ok
    ]
    if prepared.mutated:
        reasons.append(f"changed its inputs: {', '.join(prepared.mutated)}")
    correctness = {
        name: Correctness(
            error=_finite(verdict.error),
            bound=verdict.bound,
            rms_error=_finite(verdict.rms_error),
            rms_bound=verdict.rms_bound,
            ok=verdict.ok,
        )
        for name, verdict in verdicts.items()
    }
    return correctness, "; ".join(reasons) or None


def _time(
    plan: Plan,
    case: Case,
    workers: dict[str, WorkerProcess],
    prepared: dict[str, Prepared],
    competing: list[str],
    records: dict[str, Record],
    progress: Progress,
) -> Samples | None:
    """Samples of all that passed the gate; one that fails under way gets its record, and the others start again."""

    def sampler(name: str) -> Callable[[int], float]:
        def sample(loops: int) -> float:
            try:
                return workers[name].request("sample", loops)
            except ProviderFailure as failure:
                records[name] = _record(plan, case, name, failure.status, failure.reason)
                raise

        return sample

    while competing := [name for name in competing if name not in records]:
        progress(case, "timing")
        try:
            return time_in_rounds(
                {name: sampler(name) for name in competing},
                plan.baseline if plan.baseline in competing else competing[0],
                plan.budget_s,
                case.seed,
                {name: prepared[name].second_s for name in competing},
            )
        except ProviderFailure:
            continue
    return None


def _release(worker: WorkerProcess) -> None:
    try:
        worker.request("release")
    except ProviderFailure:
        worker.stop()


def _measured(
    plan: Plan, case: Case, name: str, samples: Samples, prepared: Prepared, ceilings: roofline.Ceilings
) -> dict[str, Any]:
    """The parts of a record that come from timing."""
    seconds = samples.samples[name]
    median = stats.median_interval(seconds)
    work, floor = roofline.work(case), roofline.floor(case, ceilings)
    parts: dict[str, Any] = {
        "timing": Timing(
            samples_s=seconds.tolist(),
            median_s=median.estimate,
            ci95_s=(_finite(median.low), _finite(median.high)),
            rounds=len(seconds),
            loops=samples.loops[name],
            method=METHOD,
            cold_cache=False,
        ),
        "compile_s": max(0.0, prepared.first_s - prepared.second_s),
        "rates": Rates(
            ratings_per_s=case.m * case.n / median.estimate,
            flops_per_s=work.flops / median.estimate,
            bytes_per_s=work.bytes / median.estimate,
        ),
        "roofline": Roofline(
            bound=floor.bound,
            fraction=floor.seconds / median.estimate,
            gemm_flops_per_s=ceilings.gemm_flops_per_s,
            copy_bytes_per_s=ceilings.copy_bytes_per_s,
        ),
        "peak_bytes": prepared.peak_bytes,
    }
    if plan.baseline in samples.samples:
        ratio = stats.ratio_interval(samples.samples[plan.baseline], seconds)
        parts["speedup"] = Speedup(
            baseline=plan.baseline,
            ratio=ratio.estimate,
            ci95=(_finite(ratio.low), _finite(ratio.high)),
            margin=plan.margin,
            verdict=stats.verdict(ratio, plan.margin),
        )
    return parts


def _record(plan: Plan, case: Case, provider: str, status: Status, reason: str | None = None, **parts: Any) -> Record:
    return Record(
        run_id=plan.run_id,
        time=datetime.datetime.now(datetime.timezone.utc).isoformat(),
        case=case,
        provider=provider,
        device=plan.device,
        status=status,
        reason=reason,
        env=environment.describe(plan.device),
        **parts,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
