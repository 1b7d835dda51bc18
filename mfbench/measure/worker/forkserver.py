"""Fork worker processes from a server that has imported PyTorch, which takes a tenth of a second instead of seconds.

The server imports the third-party libraries that a worker needs, runs none of their code, and forks on request, so no
OpenMP or autograd thread exists that a fork would lose. The kernels are imported in the worker, which may take them
from another folder. Workers of one server have their libraries at the same addresses, which makes like providers
differ by less. Each worker has a guardian process between itself and the server, which waits for it and reports its
exit code.

`docs/decisions/0001-fork-server.md` says why this is not `multiprocessing`'s fork server.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
from multiprocessing.connection import wait
from typing import Any, NoReturn

from mfbench.installation import MEASURED

AVAILABLE = sys.platform == "linux"  # elsewhere there is no fork, or system libraries do not survive one
REQUEST_BYTES = 1 << 16  # longest request
PR_SET_PDEATHSIG = 1  # prctl(2)
INTEGER = struct.Struct("<i")  # a process id or an exit code
READ_ON_LOAD = re.compile(
    "ATEN_|BLIS_|CU|DNNL_|GLIBC_|GOMP_|GOTO_|HIP_|HSA_|KMP_|LANG|LC_|LD_|MALLOC_|MFBENCH_|MKL_|NCCL_|NPY_|NUMEXPR_|"
    "NVIDIA_|OMP_|ONEDNN_|OPENBLAS_|PYTHON|PYTORCH_|ROC|TORCH|TRITON_|VECLIB_"
)  # environment variables that libraries may read as they load, and that a server therefore cannot change later
PRELOADED = ("torch", "psutil", "mfbench.problems.cases", "mfbench.measure.worker.pipe")
SERVE = "from mfbench.measure.worker.forkserver import serve; serve(int(sys.argv[1]))"


class Forked:
    """A worker with `pid`, `poll` and `wait` as `subprocess.Popen` has them, for a process that is not a child."""

    def __init__(self, status: int) -> None:
        """Wrap a worker that has been requested.

        Args:
            status: read end of the pipe on which its guardian reports its process id and exit code.
        """
        self._status = status
        self._pid: int | None = None
        self.returncode: int | None = None

    @property
    def pid(self) -> int:
        """Return the process id, after waiting until there is a process.

        Raises:
            ProcessLookupError: the server died before it forked.
        """
        if self._pid is None:
            self._pid = self._read()
        if self._pid is None:
            raise ProcessLookupError("the fork server is gone")
        return self._pid

    def poll(self) -> int | None:
        """Return the exit code; None while the worker runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the worker to end; return its exit code, or the negated number of the signal that ended it.

        Raises:
            subprocess.TimeoutExpired: it still runs after `timeout` seconds.
        """
        if self.returncode is None:
            if self._pid is None:
                self._pid = self._read()
            if not wait([self._status], timeout):
                raise subprocess.TimeoutExpired("worker", timeout or 0)
            code = self._read()
            self.returncode = -signal.SIGKILL if code is None else code  # a guardian dies with its worker
            os.close(self._status)
        return self.returncode

    def _read(self) -> int | None:
        content = os.read(self._status, INTEGER.size)
        return INTEGER.unpack(content)[0] if content else None


class _Server:
    """The harness's end of a server."""

    def __init__(self) -> None:
        self._environment = dict(os.environ)
        self._connection, served = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with served:
            self._process = subprocess.Popen(
                [sys.executable, "-c", importing_alike(SERVE), str(served.fileno())],
                pass_fds=(served.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C goes to the harness alone
            )

    def alive(self) -> bool:
        return self._process.poll() is None

    def fork(self, code: str, arguments: list[str], files: list[int]) -> None:
        """Send a request. The worker gets this process's working directory and environment."""
        names = self._environment.keys() | os.environ.keys()
        request = {
            "code": code,
            "arguments": arguments,
            "folder": os.getcwd(),
            "environment": {
                name: os.environ.get(name) for name in names if os.environ.get(name) != self._environment.get(name)
            },
        }
        socket.send_fds(self._connection, [json.dumps(request).encode()], files)


_servers: dict[frozenset[tuple[str, str]], _Server] = {}  # by the variables that libraries read as they load


def importing_alike(code: str) -> str:
    """Prefix code for `python -c`, so that it finds the same packages as this process."""
    return f"import sys; sys.path[:] = {[os.path.abspath(entry) for entry in sys.path]}; {code}"


def warm_up() -> None:
    """Start the server, which imports its libraries while this process imports its own."""
    if AVAILABLE:
        _server()


def start(code: str, requests: int, answers: int, output: int, arguments: list[str]) -> Forked:
    """Fork a worker that runs `code`, without waiting for it.

    Args:
        code: reads the descriptors of the two pipe ends from `sys.argv`, followed by `arguments`.
        requests: read end of a pipe; stays open here.
        answers: write end of a pipe; stays open here.
        output: file for the worker's stdout and stderr; stays open here.
        arguments: further command-line arguments.
    """
    server = _server()
    status, reported = os.pipe()
    try:
        server.fork(code, arguments, [requests, answers, output, reported])
    finally:
        os.close(reported)
    return Forked(status)


def _server() -> _Server:
    key = frozenset((name, value) for name, value in os.environ.items() if READ_ON_LOAD.match(name))
    if key not in _servers or not _servers[key].alive():
        _servers[key] = _Server()
    return _servers[key]


def end_with_parent() -> None:
    """Make this process die with its parent: a harness that is killed cannot end a provider that hangs."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def serve(descriptor: int) -> None:
    """Fork workers until the harness closes the connection. Also returns in each worker when it is done."""
    for name in PRELOADED:
        importlib.import_module(name)
    assert not sys.modules.keys() & MEASURED
    gc.collect()
    gc.freeze()  # a collection in a worker would write to shared pages, and so copy them
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
    _become_worker(json.loads(message), pipes, output)


def _become_worker(request: dict[str, Any], pipes: list[int], output: int) -> None:
    os.setpgid(0, 0)
    os.chdir(request["folder"])
    for name, value in request["environment"].items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.argv[1:] = [*map(str, pipes), *request["arguments"]]
    exec(request["code"], {"__name__": "__main__"})


def _guard(pid: int, status: int) -> NoReturn:
    """Report the worker's process id and exit code, and exit."""
    with contextlib.suppress(OSError):  # the worker did so already, or is gone
        os.setpgid(pid, pid)  # whoever reads the id may kill the group
    os.write(status, INTEGER.pack(pid))
    _, ended = os.waitpid(pid, 0)
    os.write(status, INTEGER.pack(os.waitstatus_to_exitcode(ended)))
    os._exit(0)
