"""One training step by every provider, each behind the correctness gate before it is timed.

    pytest tests/benchmarks --benchmark-only

Groups are cases. Plain `pytest` skips these. `mfbench run` is what decides whether one provider is faster than
another: it interleaves the providers, which pytest-benchmark, one test after another, cannot do.
"""

from __future__ import annotations

import functools

import pytest

from mfbench.correctness import gate
from mfbench.problems.cases import Case, load_suite
from mfbench.problems.inputs import Inputs, draw
from mfbench.providers import registry
from mfbench.testing.verify import check

CASES = [
    *load_suite("seed").cases({})[:1],  # the notebook's 200x300, rank 30, float64 ratings and int32 mask
    *load_suite("square").cases({"size": ["512x512", "1024x1024", "2048x2048"], "rank": [32]}),
]
PROVIDERS = ("fused", "autograd", "compile", "closed-form")


@functools.lru_cache(maxsize=1)
def drawn(case: Case) -> tuple[Inputs, gate.Standard]:
    inputs = draw(case)
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
        pytest.fail(f"{provider} is not timed, since it is not right: {wrong}")
    benchmark.extra_info["error over bound"] = errors
    benchmark(step)
