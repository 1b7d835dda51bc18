"""The harness's side of a worker process: requests with a time limit, and a name for whatever ends it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from mfbench.errors import UsageError
from mfbench.measure.worker import forkserver, pipe
from mfbench.results.records import Status

START_LIMIT_S = 120.0
DEATH_LIMIT_S = 10.0  # of a process that closed its pipe
START = "sys.path[:0] = sys.argv[6:]; from mfbench.measure.worker.main import main; main()"
START_HARNESS_FIRST = "from mfbench.measure.worker.main import main; sys.path[:0] = sys.argv[6:]; main()"
MESSAGE_BYTES = 2000  # of what a worker wrote before it died


class ProviderFailure(Exception):
    """A provider did not give what was asked; `status` is the record's."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class WorkerProcess:
    """One provider in a process of its own; started again after it died.

    What lies in `folder` is imported before anything else of the name; with `harness_first`, after the harness.
    On a CPU the process is forked from one that has imported the libraries, where the system allows it.
    """

    def __init__(
        self, provider: str, device: str, threads: int | None, time_limit_s: float, folder: Path | None = None,
        harness_first: bool = False,
    ) -> None:  # fmt: skip
        self.provider, self.device, self.threads, self.time_limit_s = provider, device, threads, time_limit_s
        self.folder = folder
        self._code = forkserver.importing_alike(START_HARNESS_FIRST if harness_first else START)
        self._forked = forkserver.AVAILABLE and device == "cpu"
        self._process: subprocess.Popen[bytes] | forkserver.Forked | None = None

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process without waiting for it: several workers import their libraries side by side.

        The first request waits.
        """
        requests_read, requests_write = os.pipe()
        answers_read, answers_write = os.pipe()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 (closed in stop)
        arguments = [self.provider, self.device, str(self.threads or 0), *([str(self.folder)] if self.folder else [])]
        if self._forked:
            output = self._output.fileno()
            self._process = forkserver.start(self._code, requests_read, answers_write, output, arguments)
        else:
            self._process = subprocess.Popen(
                [sys.executable, "-c", self._code, str(requests_read), str(answers_write), *arguments],
                pass_fds=(requests_read, answers_write),
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the harness alone, which then ends the workers
            )
        os.close(requests_read)
        os.close(answers_write)
        self._requests, self._answers = requests_write, answers_read
        self._greeting: bytes | None = self._send("load")

    def ready(self) -> None:
        """Wait until the provider is loaded.

        Raises:
            UsageError: it cannot be loaded.
        """
        try:
            self._load()
        except ProviderFailure as failure:
            raise UsageError(failure.reason, code="provider-load-failed", argument="provider") from None

    def request(self, method: str, *arguments: Any) -> Any:
        """The worker's answer.

        Raises:
            ProviderFailure: it raised, crashed, ran out of memory or out of time.
        """
        self._load()
        return self._receive(self._send(method, *arguments), self.time_limit_s)

    def stop(self) -> None:
        """End the process and everything that it started."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for descriptor in (self._requests, self._answers):
            os.close(descriptor)
        self._output.close()
        self._process = None

    def _load(self) -> None:
        if self._process is None:
            self.start()
        if not self._greeting:
            return
        try:
            self._receive(self._greeting, START_LIMIT_S)
        except ProviderFailure as failure:
            if failure.status == "error":  # the process lived to tell, and names its file
                raise
            raise ProviderFailure(failure.status, f"{self.provider} cannot be loaded: {failure.reason}") from None
        self._greeting = None

    def _send(self, method: str, *arguments: Any) -> bytes:
        token = pipe.new_token()
        with contextlib.suppress(BrokenPipeError):
            pipe.send(self._requests, token, (method, arguments))
        return token

    def _receive(self, token: bytes, limit_s: float) -> Any:
        process = self._process
        assert process is not None
        try:
            status, payload = pipe.receive_answer(self._answers, token, limit_s, lambda: process.poll() is None)
        except TimeoutError:
            self.stop()
            raise ProviderFailure("timeout", f"no answer in {limit_s:.0f} s") from None
        except pipe.GarbledPipe:
            self.stop()
            raise ProviderFailure("wrong", "wrote into the harness's own pipe") from None
        except EOFError:
            raise self._death() from None
        if status != "ok":
            if self.device != "cpu":  # an illegal access leaves a context behind in which everything fails
                self.stop()
            raise ProviderFailure(status, payload)
        return payload

    def _death(self) -> ProviderFailure:
        assert self._process is not None
        try:
            code = self._process.wait(timeout=DEATH_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.stop()
            return ProviderFailure("crashed", "the process closed its pipe to the harness")
        self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, self._output.tell() - MESSAGE_BYTES))
        last_words = self._output.read().decode(errors="replace").strip().splitlines()[-1:]
        self.stop()
        if code == -signal.SIGKILL:
            return ProviderFailure("oom", "killed from outside, as the system does when memory runs out")
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return ProviderFailure("crashed", ": ".join(["the process ended " + how, *last_words]))
