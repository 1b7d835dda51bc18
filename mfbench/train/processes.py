"""Train over the processes that torchrun starts, each with its own users."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from kernels.cpu.threads import VARIABLE
from mfbench.errors import UsageError
from mfbench.providers import registry
from mfbench.providers.over_processes import FUSED, prepare
from mfbench.train.checkpointing import checkpoints_in, folder_of
from mfbench.train.division import on_first, own_task, own_users, whole_users
from mfbench.train.history import LogEntry, TrainingRun
from mfbench.train.identity import identity
from mfbench.train.loop import train_as_asked
from mfbench.train.options import TrainOptions
from mfbench.train.rates import default_rate
from mfbench.train.saving import BestParameters, check_writable
from mfbench.train.task import Task, make_task

if TYPE_CHECKING:
    from mfbench.train.checkpoint_folder import Folder

BACKENDS = {"cpu": "gloo", "cuda": "nccl"}


def several_processes() -> bool:
    """Return whether torchrun has started this process and others."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def set_threads(threads: int) -> None:
    """Set the threads of this process, also where one is meant, which otherwise counts as torchrun's default."""
    torch.set_num_threads(threads)
    if several_processes():
        os.environ[VARIABLE] = str(threads)


def is_silent() -> bool:
    """Return whether another process writes the log."""
    return several_processes() and int(os.environ.get("RANK", "0")) > 0


def run_training_over_processes(
    options: TrainOptions, on_entry: Callable[[LogEntry], Any] = lambda entry: None
) -> TrainingRun:
    """Train as `mfbench train` does under torchrun. Arguments, result and errors are those of `run_training`.

    Every process makes the whole task and keeps only the ratings of its own users. The first finds the learning rate
    that a single process would find.
    """
    provider = provider_over_processes(options.provider)
    if Path(options.data).is_fifo():
        raise UsageError("expected a file, which every process can read; got a pipe", code="bad-data", argument="data")
    with _process_group(options.device):
        process, processes = dist.get_rank(), dist.get_world_size()
        folder = on_first(lambda: _check_files(options))
        task = make_task(options)
        problem = identity(options, task) if folder else {}
        task = task.to(options.device)
        observed, users = task.inputs.observed, own_users(task, process, processes)
        rate = on_first(functools.partial(_rate_alone, task, options))
        m, own = len(task.inputs.user_factors), own_task(task, users)
        del task
        best = BestParameters(own)
        # A separate group, since checkpoints are written while training communicates
        group = dist.new_group(backend="gloo") if folder else None
        interval = options.checkpoint_interval
        with checkpoints_in(folder, problem, best, interval, users, m, group) as checkpoints:
            run = train_as_asked(own, provider, options, best, on_entry, lambda *_: rate, checkpoints)
        if options.save:
            for name in ("user_factors", "user_bias"):
                whole = whole_users(best.kept[name], process, processes)
                if whole is not None:
                    best.kept[name] = whole
            if process == 0:
                best.write(options.save)
        return run._replace(trained_on=observed)


def _check_files(options: TrainOptions) -> Folder | None:
    if options.save:
        check_writable(options.save, options.data)
    return folder_of(options)


def _rate_alone(task: Task, options: TrainOptions) -> float:
    return default_rate(task, options.update_rule, registry.load(options.provider).prepare(task.inputs))


def provider_over_processes(name: str) -> registry.Provider:
    """Return a provider whose step is one over the processes.

    Raises:
        UsageError: the provider computes alone.
    """
    if name not in FUSED:
        message = f"over several processes expected one of {', '.join(FUSED)}, got {name!r}"
        raise UsageError(message, code="bad-provider", argument="provider")

    return registry.Provider(name, functools.partial(prepare, name))


@contextmanager
def _process_group(device: str) -> Iterator[None]:
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    store, process, processes = next(rendezvous("env://"))
    # torchrun keeps the store when it starts processes again, and in it the addresses of those that have ended
    own_store = PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    dist.init_process_group(BACKENDS[device], store=own_store, rank=process, world_size=processes)
    try:
        yield
    finally:
        dist.destroy_process_group()
