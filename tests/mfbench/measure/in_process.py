"""A worker without a process, so that tests of the harness's side start none."""

from __future__ import annotations

from pathlib import Path

from mfbench.measure.worker.main import Worker
from mfbench.problems.cases import Case
from mfbench.results.codes import Code, ProviderFailure

CASE = Case(suite="t", m=40, n=30, rank=4, density=0.6, ratings_dtype="float32", mask="uint8", data="synthetic", seed=1)
PROVIDERS = """
from reference import autograd_loss_and_grads as honest

calls = 0

def halves_a_gradient(*arguments):
    loss, grads = honest(*arguments)
    return loss, [*grads[:2], grads[2] / 2, *grads[3:]]

def tires(*arguments):
    global calls
    calls += 1
    if calls == 5:
        raise ValueError("tired")
    return honest(*arguments)
"""


class InProcess:
    """Answers requests as `WorkerProcess` does. `fail_on` names a method whose next call fails."""

    def __init__(self, provider: str) -> None:
        self.worker = Worker(provider, "cpu", None)
        self.pid: int | None = 1
        self.fail_on = ""
        self.asked: list[str] = []

    def request(self, method: str, *arguments: object) -> object:
        self.asked.append(method)
        if method == self.fail_on:
            self.fail_on, self.pid = "", None
            raise ProviderFailure(Code.SIGNAL, "by SIGSEGV")
        try:
            return getattr(self.worker, method)(*arguments)
        except ValueError as error:
            raise ProviderFailure(Code.EXCEPTION, str(error)) from None


def write_providers(folder: Path) -> Path:
    path = folder / "providers.py"
    path.write_text(PROVIDERS)
    return path
