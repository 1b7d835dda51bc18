"""One case: a record for every provider, whichever of them fails and whenever."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mfbench.measure.case import measure_case
from mfbench.measure.recording import Origin
from mfbench.providers import compilation
from mfbench.results.records import Record
from tests.mfbench.measure.in_process import CASE, InProcess, write_providers


def measure(workers: dict[str, InProcess], baseline: str = "autograd", **options) -> dict[str, Record]:
    origin = Origin("run", CASE, "cpu")
    return measure_case(origin, workers, baseline=baseline, margin=0.02, budget_s=0.1, **options)


@pytest.fixture
def workers(tmp_path: Path) -> dict[str, InProcess]:
    file = write_providers(tmp_path)
    names = {"autograd": "autograd", "tiled": "tiled"}
    names |= {name: f"{file}:{name}" for name in ("halves_a_gradient", "tires")}
    return {name: InProcess(provider) for name, provider in names.items()}


def test_those_that_pass_are_timed_and_those_that_fail_say_why(workers: dict[str, InProcess]) -> None:
    activities: list[str] = []
    records = measure(workers, progress=activities.append)
    assert {name: (record.status, record.code) for name, record in records.items()} == {
        "autograd": ("ok", None), "tiled": ("ok", None),
        "halves_a_gradient": ("wrong", "off-bound"), "tires": ("error", "exception"),
    }  # fmt: skip
    assert "user_bias" in (records["halves_a_gradient"].reason or "")
    assert not records["halves_a_gradient"].correctness["user_bias"].ok
    assert records["tiled"].timing.rounds == records["autograd"].timing.rounds
    assert records["tiled"].speedup.baseline == "autograd"
    assert records["autograd"].speedup.ratio == 1
    assert activities[:2] == ["data", "oracle"]
    assert activities.count("pilot") == 2  # again without the one that tired
    assert any(re.fullmatch(r"timing, \d+ rounds, about \d\S* s", activity) for activity in activities)
    assert activities[-1] == "gate again"
    assert all(worker.asked[-1] == "release" for worker in workers.values())


def test_without_its_baseline_a_provider_has_times_and_no_speedup(workers: dict[str, InProcess]) -> None:
    workers = {name: workers[name] for name in ("tiled", "halves_a_gradient")}
    records = measure(workers, baseline="halves_a_gradient")
    assert records["halves_a_gradient"].status == "wrong"
    assert records["tiled"].timing is not None
    assert records["tiled"].speedup is None


def test_a_case_in_which_all_fail_is_not_timed(workers: dict[str, InProcess]) -> None:
    activities: list[str] = []
    records = measure({"halves_a_gradient": workers["halves_a_gradient"]}, progress=activities.append)
    assert [record.status for record in records.values()] == ["wrong"]
    assert "pilot" not in activities


@pytest.mark.parametrize("method", ["prepare", "place", "sample", "evaluate_redrawn", "samples_in_a_row"])
def test_a_worker_that_dies_takes_no_other_with_it(workers: dict[str, InProcess], method: str) -> None:
    workers = {name: workers[name] for name in ("autograd", "tiled")}
    workers["tiled"].fail_on = method
    records = measure(workers)
    assert (records["tiled"].status, records["tiled"].code) == ("crashed", "signal")
    assert records["tiled"].timing is None
    assert records["autograd"].status == "ok"


COMPILED = """
import torch
from reference import autograd_loss_and_grads

calls = 0

@torch.compile(backend="eager", dynamic=False)
def scaled(loss, factor):
    return loss * factor / factor

def step(*arguments):
    global calls
    calls += 1
    loss, grads = autograd_loss_and_grads(*arguments)
    return scaled(loss, calls), grads  # another constant in every call

def settled(*arguments):
    loss, grads = autograd_loss_and_grads(*arguments)
    return scaled(loss, 2), grads
"""


@pytest.mark.parametrize(
    ("function", "disabled", "told"),
    [
        ("settled", False, None),
        ("step", False, "torch.compile gave up on 1 function, and ran that in eager mode"),
        ("settled", True, "torch.compile is switched off, and runs in eager mode what it should compile"),
    ],
)
def test_a_users_code_that_pytorch_ran_in_eager_mode_is_told(
    tmp_path: Path, capsys, function: str, disabled: bool, told: str | None
) -> None:
    import torch._dynamo

    path = tmp_path / "own.py"
    path.write_text(COMPILED)
    compilation.forget()
    with torch._dynamo.config.patch(disable=disabled):
        records = measure({"own": InProcess(f"{path}:{function}")}, baseline="own")
    assert records["own"].status == "ok"
    assert records["own"].env.get("eager") == told
    assert capsys.readouterr().err == (f"mfbench: own: {told}\n" if told else "")


SWITCHED = """
import torch
torch.backends.fp32_precision = "bf16"
torch.set_num_threads(1)
from reference import autograd_loss_and_grads as step
"""


def test_the_record_holds_what_a_provider_set_in_its_own_process(tmp_path: Path) -> None:
    import torch

    path, threads = tmp_path / "own.py", torch.get_num_threads()
    path.write_text(SWITCHED)
    torch.set_num_threads(2)
    try:
        env = measure({"own": InProcess(f"{path}:step")}, baseline="own")["own"].env
    finally:
        torch.backends.fp32_precision = "none"
        torch.set_num_threads(threads)
    assert env["product_precisions"]["cpu"] == "bf16"
    assert env["provider_threads"] == 1
