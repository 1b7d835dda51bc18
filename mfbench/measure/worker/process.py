"""Start worker processes, send them requests with a time limit, and classify how they fail."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from mfbench.correctness.audit.tokens import new_token
from mfbench.errors import UsageError
from mfbench.measure.worker import forkserver, pipe
from mfbench.results.codes import Code, ProviderFailure

START_LIMIT_S = 120.0  # longest time to load a provider
DEATH_LIMIT_S = 10.0  # longest time a process may live after it closed its pipe
START = "sys.path[:0] = sys.argv[6:]; from mfbench.measure.worker.main import main; main()"
START_HARNESS_FIRST = "from mfbench.measure.worker.main import main; sys.path[:0] = sys.argv[6:]; main()"
LAST_WORDS_BYTES = 2000  # end of a dead worker's output that is searched for its last line


class WorkerProcess:
    """A process that runs one provider, and is restarted if it dies.

    For a provider on the CPU it is forked from a process that has imported the libraries, where the system allows it.
    """

    def __init__(
        self, provider: str, device: str, threads: int | None, time_limit_s: float, folder: Path | None = None,
        harness_first: bool = False,
    ) -> None:  # fmt: skip
        """Describe the process; the first request starts it.

        Args:
            provider: as `mfbench.providers.registry.load` takes it.
            device: "cpu" or "cuda".
            threads: for PyTorch; None leaves its default.
            time_limit_s: for a single answer.
            folder: its packages take precedence over all others.
            harness_first: packages of the harness take precedence over those in `folder`.
        """
        self.provider, self.device, self.threads, self.time_limit_s = provider, device, threads, time_limit_s
        self.folder = folder
        self._code = forkserver.importing_alike(START_HARNESS_FIRST if harness_first else START)
        self._forked = forkserver.AVAILABLE and device == "cpu"
        self._process: subprocess.Popen[bytes] | forkserver.Forked | None = None

    @property
    def pid(self) -> int | None:
        """Return the id of the process; None while there is none."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process without waiting, so that several workers import their libraries in parallel."""
        requests_read, requests_write = os.pipe()
        answers_read, answers_write = os.pipe()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 (closed in `stop`)
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
                start_new_session=True,  # Ctrl-C goes to the harness alone, which ends the workers
            )
        os.close(requests_read)
        os.close(answers_write)
        self._requests, self._answers = requests_write, answers_read
        self._greeting: bytes | None = self._send("load")

    def ready(self) -> None:
        """Wait until the provider is loaded.

        Raises:
            UsageError: the provider cannot be loaded.
        """
        try:
            self._load()
        except ProviderFailure as failure:
            code = failure.usage_code or "provider-load-failed"
            raise UsageError(failure.reason, code=code, argument="provider") from None

    def request(self, method: str, *arguments: Any) -> Any:
        """Call a method of `mfbench.measure.worker.main.Worker` in the process; return its result.

        Raises:
            ProviderFailure: the provider raised, crashed, or ran out of memory or time.
        """
        self._load()
        return self._receive(self._send(method, *arguments), self.time_limit_s)

    def stop(self) -> None:
        """Kill the process and its process group."""
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
            if failure.code.status == "error":  # the worker answered, and its reason names the file
                raise
            raise ProviderFailure(failure.code, f"{self.provider} cannot be loaded: {failure.reason}") from None
        self._greeting = None

    def _send(self, method: str, *arguments: Any) -> bytes:
        token = new_token()
        with contextlib.suppress(BrokenPipeError):
            pipe.send(self._requests, token, (method, arguments))
        return token

    def _receive(self, token: bytes, limit_s: float) -> Any:
        process = self._process
        assert process is not None
        try:
            failure, payload = pipe.receive_answer(self._answers, token, limit_s, lambda: process.poll() is None)
        except TimeoutError:
            self.stop()
            raise ProviderFailure(Code.TIMEOUT, f"no answer within {limit_s:.0f} s") from None
        except pipe.GarbledPipe:
            self.stop()
            raise ProviderFailure(Code.GARBLED_PIPE, "wrote into the harness's pipe") from None
        except EOFError:
            raise self._death() from None
        if failure is not None:
            if self.device != "cpu":  # after an illegal access everything fails in this CUDA context
                self.stop()
            raise ProviderFailure(failure, *payload)
        return payload

    def _death(self) -> ProviderFailure:
        assert self._process is not None
        try:
            code = self._process.wait(timeout=DEATH_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.stop()
            return ProviderFailure(Code.CLOSED_PIPE, "the process closed its pipe to the harness")
        self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, self._output.tell() - LAST_WORDS_BYTES))
        last_words = self._output.read().decode(errors="replace").strip().splitlines()[-1:]
        self.stop()
        if code == -signal.SIGKILL:
            return ProviderFailure(Code.KILLED, "killed by SIGKILL, which the system sends when memory runs out")
        if code < 0:
            return ProviderFailure(Code.SIGNAL, ": ".join([f"died of {signal.Signals(-code).name}", *last_words]))
        return ProviderFailure(Code.EXIT, ": ".join([f"exited with code {code}", *last_words]))
