"""Time one training step of every provider, after it has passed the correctness gate.

    pytest tests/benchmarks --benchmark-only

Groups are cases. Plain `pytest` skips these. To decide whether one provider is faster than another use `mfbench run`,
which interleaves the providers; pytest-benchmark runs one test after another.
"""

from __future__ import annotations

import functools

import pytest

from mfbench.correctness import gate
from mfbench.problems.cases import CaseSpec, load_suite
from mfbench.problems.inputs import Inputs, draw, resolve
from mfbench.providers import registry
from mfbench.testing.verify import check

CASES = [
    *load_suite("seed").specs({})[:1],  # the notebook's 200x300, rank 30, float64 ratings and int32 mask
    *load_suite("square").specs({"size": ["512x512", "1024x1024", "2048x2048"], "rank": [32]}),
]
PROVIDERS = ("fused", "autograd", "compile", "closed-form")


@functools.lru_cache(maxsize=1)
def drawn(case: CaseSpec) -> tuple[Inputs, gate.Standard]:
    inputs = draw(resolve(case))
    return inputs, gate.standard(inputs)


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_step(benchmark, case, provider):
    benchmark.group = case.label
    benchmark.name = provider
    inputs, standard = drawn(case)
    step = registry.load(provider).prepare(inputs)
    errors, wrong = check(registry.Provider(provider, lambda inputs: step), inputs, standard)
    if wrong:
        pytest.fail(f"{provider} is wrong and not timed: {wrong}")
    benchmark.extra_info["error over bound"] = errors
    benchmark(step)
