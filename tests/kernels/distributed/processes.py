"""Processes with gloo groups, which stay alive from test to test: starting one costs seconds."""

from __future__ import annotations

import multiprocessing
import pickle
import tempfile
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

TIMEOUT = timedelta(minutes=4)  # more than a busy machine takes to import what a test needs


class Processes:
    """Processes that call functions together; every test may use the first few of them, in a group of their own."""

    def __init__(self, count: int, start_groups: tuple[int, ...]) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._folder = tempfile.TemporaryDirectory()
        store = Path(self._folder.name) / "store"
        self.members = []
        self._pipes: list[Connection] = []
        for process in range(count):
            here, there = spawn.Pipe()
            member = spawn.Process(target=_serve, args=(there, store, process, count, start_groups), daemon=True)
            member.start()
            there.close()
            self.members.append(member)
            self._pipes.append(here)

    def call(self, function: Callable[..., Any], size: int, *arguments: Any) -> list[Any]:
        """Return `function(group, process, *arguments)` of each of the first `size` processes.

        An exception counts as a result, and as that of a process that ended, EOFError.
        """
        for pipe in self._pipes[:size]:
            pipe.send_bytes(pickle.dumps((function, size, arguments)))
        return [_received(pipe) for pipe in self._pipes[:size]]

    def close(self) -> None:
        """End the processes."""
        for pipe in self._pipes:
            pipe.close()
        for member in self.members:
            member.join()
        self._folder.cleanup()


def _received(pipe: Connection) -> Any:
    try:
        return pickle.loads(pipe.recv_bytes())
    except (EOFError, ConnectionError) as error:
        return error


def _serve(pipe: Connection, store: Path, process: int, count: int, start_groups: tuple[int, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=process, world_size=count, timeout=TIMEOUT)
    groups = {size: dist.new_group(range(size), timeout=TIMEOUT) for size in start_groups}
    while True:
        try:
            function, size, arguments = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return
        try:
            result = function(groups[size], process, *arguments)
        except Exception as error:
            result = error.with_traceback(None)
        pipe.send_bytes(pickle.dumps(result))
