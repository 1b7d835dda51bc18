"""What the processes of a launch do: the first one conducts the rounds, and all of them follow what it says."""

from __future__ import annotations

import atexit
import datetime
import gc
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist

from kernels.cpu.threads import VARIABLE
from mfbench.measure.devices import memory
from mfbench.measure.devices.base import Reading
from mfbench.measure.devices.load import BackgroundLoad
from mfbench.measure.planning import Goal
from mfbench.measure.rounds import CaseTiming, TimingHooks, time_in_rounds
from mfbench.measure.scaling import probes
from mfbench.measure.scaling.probes import Calibration, Probes
from mfbench.problems import matrices, shared
from mfbench.problems.division import bounds
from mfbench.problems.inputs import Inputs, moved
from mfbench.problems.shared import Location
from mfbench.providers import over_processes, registry
from mfbench.providers.outputs import tensors
from mfbench.providers.registry import Step

BACKEND = "gloo"
COMPUTING = " computing"  # ends the name of a provider's step on the own users alone
WARM_UP = 10  # one step in so many is not counted, and at least one


class Job(NamedTuple):
    """One problem to time in a launch."""

    location: Location
    providers: Sequence[str]
    baseline: str
    goal: Goal
    seed: int
    grouped: bool = True  # False: the providers' own steps, without a group
    calibrate: str | None = None  # a provider whose step is also timed on some of the users


class JobResult(NamedTuple):
    """What the first process has gathered."""

    timing: CaseTiming  # of providers, and under names that end in `COMPUTING` of their steps without messages
    outputs: Mapping[str, list[np.ndarray]]  # float64 loss and gradients of all users, by provider
    calibration: Calibration | None


class Launched(NamedTuple):
    """Result of a launch."""

    jobs: Sequence[JobResult]
    probes: Probes


def run_member(jobs: Sequence[Job], threads: int, time_limit_s: float) -> Launched | None:
    """Take part in a launch; the first process returns its result.

    Args:
        jobs: one after the other.
        threads: of this process.
        time_limit_s: longest time to wait for the other processes.
    """
    memory.prefer_to_be_killed()
    torch.set_num_threads(threads)
    os.environ[VARIABLE] = str(threads)  # one thread would otherwise count as torchrun's default
    timeout = datetime.timedelta(seconds=time_limit_s)
    dist.init_process_group(BACKEND, timeout=timeout)
    try:
        member = Member(dist.new_group(timeout=timeout))
        launched = None
        if member.process:
            member.follow()
        else:
            launched = _conduct(member, jobs)
            member.all_do("end")
    finally:
        dist.destroy_process_group()
    # Otherwise a thread of gloo that still releases tensors would abort the process while the interpreter tidies up
    atexit.register(os._exit, 0)
    return launched


def _conduct(member: Member, jobs: Sequence[Job]) -> Launched:
    _, *others = member.all_do("pid")
    results = []
    for job in jobs:
        member.all_do("prepare", job)
        names = list(member.steps)
        estimates = {name: max(member.all_do("sample", name, 1)) for name in names}
        samplers = {name: _sampler(member, name) for name in names}
        hooks = TimingHooks(samplers, _placer(member), BackgroundLoad(others).cores)
        timing = time_in_rounds(hooks, job.baseline, job.goal, job.seed, estimates)
        outputs = {name: _whole(member.all_do("outputs", name)) for name in job.providers}
        calibration = member.all_do("calibrate")[0] if job.calibrate else None
        results.append(JobResult(timing, outputs, calibration))
    return Launched(results, Probes.combined(member.all_do("probe")))


def _sampler(member: Member, name: str) -> Callable[..., Reading]:
    def sample(loops: int, core: int | None = None) -> Reading:
        return Reading(max(member.all_do("sample", name, loops)))

    return sample


def _placer(member: Member) -> Callable[[], None]:
    def place() -> None:
        member.all_do("place")

    return place


class Member:
    """One process. Public methods without `all_do` and `follow` are commands, which all processes execute together."""

    def __init__(self, control: dist.ProcessGroup) -> None:
        """Take part in a launch.

        Args:
            control: a group of all processes, for commands and their results.
        """
        self.control = control
        self.process, self.processes = dist.get_rank(), dist.get_world_size()
        self.job: Job | None = None
        self.inputs: Inputs | None = None  # of the own users
        self.steps: dict[str, Step] = {}

    def all_do(self, command: str, *arguments: Any) -> list[Any]:
        """Execute a command in all processes; return their results in order. Only the first process calls it."""
        dist.broadcast_object_list([(command, arguments)], src=0, group=self.control)
        return self._execute(command, arguments)

    def follow(self) -> None:
        """Execute commands until the last one."""
        command = ""
        while command != "end":
            message: list[Any] = [None]
            dist.broadcast_object_list(message, src=0, group=self.control)
            command, arguments = message[0]
            self._execute(command, arguments)

    def _execute(self, command: str, arguments: Sequence[Any]) -> list[Any]:
        own = getattr(self, command)(*arguments)
        results: list[Any] = [None] * self.processes
        dist.gather_object(own, results if self.process == 0 else None, dst=0, group=self.control)
        return results

    def end(self) -> None:
        """Do nothing more."""

    def pid(self) -> int:
        """Return the id of this process."""
        return os.getpid()

    def prepare(self, job: Job) -> None:
        """Map a problem's inputs, and keep the own users' alone."""
        self.job, self.inputs, self.steps = job, None, {}
        gc.collect()
        memory.return_free_memory()
        whole = shared.mapped(job.location)
        of_users, _ = matrices.counts(whole.ratings, whole.mask)
        start, stop = bounds(of_users, self.processes)[self.process : self.process + 2]
        self.inputs = whole.of_users(slice(start, stop))
        self.place()

    def place(self) -> None:
        """Move the own inputs to new memory, and prepare the steps there."""
        job, inputs = self._prepared()
        self.steps = {}
        inputs = self.inputs = moved(inputs)
        memory.return_free_memory()
        alone = {name: registry.load(name).prepare(inputs) for name in job.providers}
        if not job.grouped:
            self.steps = alone
            return
        self.steps = {name: over_processes.prepare(name, inputs) for name in job.providers}
        if self.processes > 1:  # one process exchanges nothing
            self.steps |= {f"{name}{COMPUTING}": step for name, step in alone.items()}

    def sample(self, name: str, loops: int) -> float:
        """Return the seconds that `loops` evaluations took in this process, which all started together."""
        step = self.steps[name]
        try:
            for _ in range(max(1, loops // WARM_UP)):  # as many everywhere, since they wait for each other
                outputs = step()
            gc.disable()
            dist.barrier(self.control)
            start = time.perf_counter()
            for _ in range(loops):
                outputs = step()
            elapsed = time.perf_counter() - start
        except Exception as error:
            raise RuntimeError(f"{name}: {type(error).__name__}: {error}") from error
        finally:
            gc.enable()
        del outputs
        return elapsed

    def outputs(self, name: str) -> list[np.ndarray]:
        """Return the float64 loss and gradients of a step, as this process has them."""
        return [value.detach().to(torch.float64).numpy() for value in tensors(self.steps[name]())]

    def calibrate(self) -> Calibration | None:
        """Time steps of a provider on some of the users, and on none."""
        job, inputs = self._prepared()
        return probes.calibrate(job.calibrate, inputs) if job.calibrate else None

    def probe(self) -> Probes:
        """Measure this process's arithmetic, and messages of the default group."""
        return probes.probe(self.processes)

    def _prepared(self) -> tuple[Job, Inputs]:
        assert self.job is not None  # `prepare` comes first
        assert self.inputs is not None
        return self.job, self.inputs


def _whole(parts: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    """Return the outputs of the whole problem: users' gradients one below the other, the rest of the first process.

    Raises:
        RuntimeError: processes disagree about the rest.
    """
    loss, _, dQ, _, dbi, dmu = parts[0]
    for process, (other_loss, _, other_dQ, _, other_dbi, other_dmu) in enumerate(parts):
        for one, other in ((loss, other_loss), (dQ, other_dQ), (dbi, other_dbi), (dmu, other_dmu)):
            if not np.array_equal(one, other, equal_nan=True):
                raise RuntimeError(f"process {process} has another sum over the processes than process 0")
    dP, dbu = (np.concatenate([part[place] for part in parts]) for place in (1, 3))
    return [loss, dP, dQ, dbu, dbi, dmu]
