"""Providers over processes, in a group of one. `test_session.py` of `measure/scaling` has several."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch.distributed as dist

from mfbench.correctness import gate
from mfbench.correctness.near_misses import to_arrays
from mfbench.errors import UsageError
from mfbench.problems.cases import Case
from mfbench.problems.inputs import draw
from mfbench.providers import over_processes, registry

CASE = Case(suite="s", m=24, n=10, rank=3, density=0.8, ratings_dtype="float32", mask="uint8", data="synthetic", seed=1)


@pytest.fixture(scope="module", autouse=True)
def one_process() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("ratings_dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", ["dense", "sparse"])
@pytest.mark.parametrize("name", over_processes.NAMES)
def test_each_passes_the_gate(name: str, layout: str, ratings_dtype: str) -> None:
    mask = "none" if layout == "sparse" else "uint8"
    case = CASE.model_copy(update={"layout": layout, "mask": mask, "ratings_dtype": ratings_dtype})
    inputs = draw(case)
    loss, grads = over_processes.prepare(name, inputs)()
    checks = gate.standard(inputs).judge(to_arrays((loss, list(grads))))
    assert all(check.ok for check in checks.values()), checks
    assert [grad.shape for grad in grads] == [parameter.shape for parameter in inputs[:5]]


def test_all_are_known_to_the_registry() -> None:
    assert set(over_processes.NAMES) <= set(registry.names())


def test_one_that_computes_alone_is_refused() -> None:
    over_processes.check("gather")
    with pytest.raises(UsageError, match=r"baseline: over several processes expected one of fused, .*, got 'compile'"):
        over_processes.check("compile", "baseline")
