"""Worker processes forked from one that has imported PyTorch: a start takes a tenth of a second rather than seconds.

The server imports what others wrote and a worker needs, runs none of it, and forks on request; no thread of OpenMP or
of the autograd engine exists that a fork would lose. What is measured is imported in the worker, which may take it from
another folder. Workers of one server have the same addresses, too, so two like providers differ by less. Every worker
has a guardian between itself and the server, which waits for it and tells its exit code.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from multiprocessing.connection import wait
from typing import NoReturn

from mfbench.installation import MEASURED

AVAILABLE = sys.platform == "linux"  # elsewhere system libraries do not survive a fork, or there is none
REQUEST_BYTES = 1 << 16
PR_SET_PDEATHSIG = 1  # prctl(2)
NUMBER = struct.Struct("<i")  # of a process, and its exit code
CHANGING = "PYTEST_CURRENT_TEST"  # no library looks at it, and it is another in every test
PRELOADED = ("torch", "psutil", "mfbench.problems.cases", "mfbench.measure.worker.pipe")
SERVE = "from mfbench.measure.worker.forkserver import serve; serve(int(sys.argv[1]))"


class Forked:
    """A worker as `subprocess.Popen` shows a process: `pid`, `poll` and `wait`, without being its parent."""

    def __init__(self, status: int) -> None:
        self._status = status
        self._pid: int | None = None
        self.returncode: int | None = None

    @property
    def pid(self) -> int:
        """Waits until there is a process.

        Raises:
            ProcessLookupError: the server died before.
        """
        if self._pid is None:
            self._pid = self._number()
        if self._pid is None:
            raise ProcessLookupError("the fork server is gone")
        return self._pid

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, a signal's number negated.

        Raises:
            subprocess.TimeoutExpired: it still runs after so many seconds.
        """
        if self.returncode is None:
            if self._pid is None:
                self._pid = self._number()
            if not wait([self._status], timeout):
                raise subprocess.TimeoutExpired("worker", timeout or 0)
            code = self._number()
            self.returncode = -signal.SIGKILL if code is None else code  # whoever killed its guardian killed it, too
            os.close(self._status)
        return self.returncode

    def _number(self) -> int | None:
        content = os.read(self._status, NUMBER.size)
        return NUMBER.unpack(content)[0] if content else None


class _Server:
    """The harness's side."""

    def __init__(self) -> None:
        self._connection, served = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with served:
            self._process = subprocess.Popen(
                [sys.executable, "-c", importing_alike(SERVE), str(served.fileno())],
                pass_fds=(served.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is the harness's
            )

    def alive(self) -> bool:
        return self._process.poll() is None

    def fork(self, request: dict[str, object], files: list[int]) -> None:
        socket.send_fds(self._connection, [json.dumps(request).encode()], files)


_servers: dict[frozenset[tuple[str, str]], _Server] = {}  # by environment, which libraries read as they load


def importing_alike(code: str) -> str:
    """The code, for a process that finds the same packages as this one: `python -c` looks into its folder first."""
    return f"import sys; sys.path[:] = {[os.path.abspath(entry) for entry in sys.path]}; {code}"


def warm_up() -> None:
    """Let the server import its libraries while this process imports its own."""
    if AVAILABLE:
        _server()


def start(code: str, requests: int, answers: int, output: int, arguments: list[str]) -> Forked:
    """Fork a worker that runs `code`; does not wait for it.

    Args:
        code: finds the two ends' numbers in `sys.argv`, and `arguments` after them.
        requests, answers: ends of pipes, which stay open here.
        output: file that its stdout and stderr go to.
    """
    server = _server()
    status, told = os.pipe()
    try:
        server.fork({"code": code, "arguments": arguments, "folder": os.getcwd()}, [requests, answers, output, told])
    finally:
        os.close(told)
    return Forked(status)


def _server() -> _Server:
    environment = frozenset((name, value) for name, value in os.environ.items() if name != CHANGING)
    if environment not in _servers or not _servers[environment].alive():
        _servers[environment] = _Server()
    return _servers[environment]


def end_with_parent() -> None:
    """A harness that is killed cannot end a provider that hangs."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def serve(descriptor: int) -> None:
    """Fork workers until the harness hangs up. Returns in the workers, too, when they are done."""
    for name in PRELOADED:
        importlib.import_module(name)
    assert not sys.modules.keys() & MEASURED
    gc.collect()
    gc.freeze()  # a collection in a worker would write to, and so copy, what they share
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the guardians
    connection = socket.socket(fileno=descriptor)
    while True:
        message, files, *_ = socket.recv_fds(connection, REQUEST_BYTES, 4)
        if not message:
            return
        if os.fork() == 0:
            break
        for file in files:
            os.close(file)
    connection.close()
    *pipes, output, status = files
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    end_with_parent()
    if pid := os.fork():
        for file in (*pipes, output):
            os.close(file)
        _guard(pid, status)
    os.close(status)
    request = json.loads(message)
    os.setpgid(0, 0)
    os.chdir(request["folder"])
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.argv[1:] = [*map(str, pipes), *request["arguments"]]
    exec(request["code"], {"__name__": "__main__"})


def _guard(pid: int, status: int) -> NoReturn:
    with contextlib.suppress(OSError):  # it did so already, or is gone
        os.setpgid(pid, pid)  # whoever knows of it may end its group
    os.write(status, NUMBER.pack(pid))
    _, ended = os.waitpid(pid, 0)
    os.write(status, NUMBER.pack(os.waitstatus_to_exitcode(ended)))
    os._exit(0)
