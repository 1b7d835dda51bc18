"""Start processes by torchrun's agent, and classify how they fail."""

from __future__ import annotations

import logging
import signal
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from mfbench.results.codes import Code, ProviderFailure

START_LIMIT_S = 120  # longest time for the agent to form its group
LOGGERS = ("torch.distributed.elastic.multiprocessing.api", "torch.multiprocessing.spawn")
TIMED_OUT = "timed out"  # in the words of gloo and of the store, when a process is waited for in vain


def launch(processes: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in new processes of this machine, as `torchrun --standalone` does; return the first one's result.

    Args:
        processes: number of them.
        function: of a module; called with the arguments in each.
        arguments: pickled.

    Raises:
        ProviderFailure: a process failed; the others have been ended.
    """
    with tempfile.TemporaryDirectory(prefix="mfbench-processes-") as folder, _handling_termination(), _silenced():
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            rdzv_configs={"timeout": START_LIMIT_S},
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(folder, redirects=Std.ALL),
            signals_to_handle="SIGTERM",  # SIGINT remains KeyboardInterrupt
        )
        try:
            return elastic_launch(config, function)(*arguments)[0]
        except ChildFailedError as error:
            process, failure = error.get_first_failure()
            raise _classified(process, failure) from None
        except SignalException as error:
            sys.exit(128 + error.sigval)


def _classified(process: int, failure: ProcessFailure) -> ProviderFailure:
    """Return what a failed process is for a record."""
    who = f"process {process}"
    if failure.exitcode == -signal.SIGKILL:
        return ProviderFailure(Code.KILLED, f"{who} got SIGKILL")
    if failure.exitcode < 0:
        return ProviderFailure(Code.SIGNAL, f"{who} died of {failure.signal_name()}")
    message: Any = failure.message
    if isinstance(message, dict):
        what = str(message["message"])
        return ProviderFailure(Code.TIMEOUT if TIMED_OUT in what.lower() else Code.EXCEPTION, f"{who}: {what}")
    return ProviderFailure(Code.EXIT, f"{who} ended with exit code {failure.exitcode}")


@contextmanager
def _handling_termination() -> Iterator[None]:
    """Restore this process's own handling of SIGTERM, which the agent replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _silenced() -> Iterator[None]:
    """Keep the agent from logging what becomes a record."""
    before = {logger: logger.level for logger in map(logging.getLogger, LOGGERS)}
    try:
        for logger in before:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for logger, level in before.items():
            logger.setLevel(level)
