"""Shared set-up: worker processes, test tiers, Hypothesis profiles, builds shared by a test run, poisoned memory.

`pytest` alone runs the quick tests. The heavy ones are in tiers, one marker each (`pytest --markers` describes them):
`pytest -m browser` runs one tier, `pytest --all` everything, and a file or test named on the command line runs
whatever its tier.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch
import torch.distributed as dist

from mfbench.results.environment import usable_cpus

FOLDER = Path(__file__).parent
MAX_PROCESSES = 4  # a test may start two threads
TIERS = ("slow", "processes", "compilers", "cheats", "ptx", "browser", "studies")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a script's background jobs; subprocesses inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

for profile, examples in (("quick", 40), ("thorough", 150)):
    hypothesis.settings.register_profile(
        profile, max_examples=examples, deadline=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
hypothesis.settings.load_profile("quick")  # --hypothesis-profile=thorough replaces it


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run the tests of every tier, not only the quick ones")


def pytest_configure(config: pytest.Config) -> None:
    """Keep compiled kernels in pytest's own cache: built once, whatever HOME a test sets, and never the user's."""
    if hasattr(config, "cache"):  # -p no:cacheprovider
        for variable in ("MFBENCH_CACHE", "TRITON_CACHE_DIR"):
            os.environ[variable] = str(config.cache.mkdir(variable.lower()))


def pytest_report_header(config: pytest.Config) -> str | None:
    if _tiers_selected(config):
        return None
    return f"tiers: quick tests only; --all adds {', '.join(TIERS)}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return 0 where tests would disturb each other: in benchmarks, or on a GPU whose memory they would share."""
    alone = config.getoption("benchmark_only") or torch.cuda.is_available() or torch.xpu.is_available()
    return 0 if alone else min(usable_cpus(), MAX_PROCESSES)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not _tiers_selected(config):
        named = [Path(path).resolve() for path in (arg.partition("::")[0] for arg in config.args) if path]
        heavy = [item for item in items if item.path not in named and any(map(item.get_closest_marker, TIERS))]
        if heavy:
            config.hook.pytest_deselected(items=heavy)
            items[:] = [item for item in items if item not in heavy]
    items.sort(key=lambda item: (item.get_closest_marker("slow") is None, item.path.parent != FOLDER))  # longest first
    if not (torch.cuda.is_available() or torch.xpu.is_available()):
        skip = pytest.mark.skip(reason="no CUDA, ROCm or XPU device")
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(skip)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many tests of each tier had which outcome, and the seconds of their calls over all processes."""
    for tier in TIERS:
        reports = {  # a report of a collection has no keywords
            outcome: [
                report for report in terminalreporter.getreports(outcome) if tier in getattr(report, "keywords", ())
            ]
            for outcome in ("passed", "failed", "error", "skipped")
        }
        if any(reports.values()):
            counts = ", ".join(f"{len(found)} {outcome}" for outcome, found in reports.items() if found)
            seconds = sum(report.duration for found in reports.values() for report in found)
            terminalreporter.write_line(f"{tier}: {counts} in {seconds:.0f} s")


def _tiers_selected(config: pytest.Config) -> bool:
    """Return whether the command line chooses by marker, or asks for everything."""
    return bool(config.getoption("markexpr") or config.getoption("all"))


@pytest.fixture(autouse=True)
def memory_limit() -> Iterator[None]:
    """Undo the memory limit that a worker running in this process sets; sanitizers could not start under it."""
    if sys.platform != "linux":
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    yield
    resource.setrlimit(resource.RLIMIT_DATA, before)


@pytest.fixture(scope="module")
def poisoned():
    """Allocate float tensors full of NaN, so that an output never written shows."""

    def filled(allocate):
        def allocated(*args, **keywords):
            memory = allocate(*args, **keywords)
            return memory.fill_(float("nan")) if memory.is_floating_point() else memory

        return allocated

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
            patch.setattr(owner, name, filled(getattr(owner, name)))
        yield


@pytest.fixture
def one_process() -> Iterator[None]:
    """A group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def switches() -> Iterator[None]:
    """Restore PyTorch's switches of precision."""
    kinds = [("generic", "all"), *itertools.product(("cuda", "mkldnn"), ("all", "matmul", "conv", "rnn"))]
    before = {kind: torch._C._get_fp32_precision_getter(*kind) for kind in kinds}
    products = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(products)  # first: it sets some of the others
    for kind, setting in before.items():
        torch._C._set_fp32_precision_setter(*kind, setting)
