"""The step with the arithmetic that tensor cores have: executed, simulated, and within the gate for many items."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kernels.gpu import config
from kernels.gpu.version import is_old
from mfbench.correctness import gate
from mfbench.problems.inputs import Inputs

from .simulation import Factors, simulate
from .steps import Problem, execute
from .tensor_core import TENSOR_CORES

# (target, precision, rank): each kind of product, both kernels.
BUILDS = [
    ("sm_80", "tf32", 30),
    ("sm_80", "tf32x3", 30),
    ("sm_90", "tf32x3", 30),
    ("sm_80", "bf16x3", 30),
    ("sm_80", "tf32x3", 62),
    ("sm_90", "tf32", 30),
    ("sm_90", "bf16x3", 30),
    ("sm_90", "tf32x3", 62),
    ("sm_80", "tf32x3", 130),
]
QUICK = BUILDS[:1]


def of_one_sign(m: int, n: int, rank: int, seed: int = 0) -> Inputs:
    """Draw factors that are positive, ratings of 0 and no biases: every sum is of one sign, so no error cancels."""
    generator = torch.Generator().manual_seed(seed)
    P, Q = (torch.randn(rows, rank, generator=generator).abs() for rows in (m, n))
    return Inputs(P, Q, torch.zeros(m, 1), torch.zeros(n, 1), torch.zeros(1), torch.zeros(m, n), None)


def first_step(m: int, n: int, rank: int, seed: int = 0) -> Inputs:
    """Draw what training starts from: small factors, no biases, half stars; the errors are of one sign."""
    generator = torch.Generator().manual_seed(seed)
    P, Q = (torch.randn(rows, rank, generator=generator) / 10 for rows in (m, n))
    stars = torch.randint(1, 11, (m, n), generator=generator) / 2
    return Inputs(P, Q, torch.zeros(m, 1), torch.zeros(n, 1), torch.zeros(1), stars, None)


def high_mean(m: int, n: int, rank: int, seed: int = 0) -> Inputs:
    """Draw a global bias above all ratings beside positive factors."""
    inputs = of_one_sign(m, n, rank, seed)
    stars = torch.randint(1, 11, (m, n), generator=torch.Generator().manual_seed(seed + 1)) / 2
    return inputs._replace(ratings=stars, global_bias=torch.full((1,), 10.0))


def build(target: str, precision: str, rank: int) -> config.Config:
    return config.pick(config.TARGETS[target], rank, precision, deterministic=False)


def outputs(inputs: Inputs, target: str, built: config.Config) -> list[np.ndarray]:
    """Return loss and gradients as the step would, from the simulated sums."""
    P, Q, bu, bi, mu, R = (tensor.numpy() for tensor in inputs[:6])
    factors = Factors(P, Q, (bu + mu).ravel(), bi.ravel(), R)
    squares, *sums = simulate(factors, built, TENSOR_CORES[target])
    norms = sum(np.square(x, dtype=np.float64).sum() for x in (P, Q, bu, bi))
    reg = np.float32(inputs.reg)
    pairs = zip(sums, (P, Q, bu, bi), strict=True)
    grads = [2 * (total.reshape(x.shape) + reg * x) for total, x in pairs]
    return [np.float64(squares + inputs.reg * norms), *grads, 2 * sums[2].sum(dtype=np.float64).reshape(1)]


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in QUICK else pytest.mark.ptx) for case in BUILDS], ids=str
)
def test_simulation_and_execution_give_the_same_bits(case, monkeypatch):
    target, precision, rank = case
    one = {name: config.Target(name, 1, device.shared_bytes) for name, device in config.TARGETS.items()}
    monkeypatch.setattr(config, "TARGETS", one)
    monkeypatch.setattr(config, "PROGRAMS_PER_MULTIPROCESSOR", 1)
    built = build(target, precision, rank)
    inputs = high_mean(built.BM, 3 * built.BN + (-3 * built.BN) % 16, rank)._replace(reg=0.0)
    ratings = inputs.ratings
    problem = Problem(list(inputs[:5]), ratings, None, ratings, torch.ones_like(ratings, dtype=torch.float64), 0.0)
    plan = problem.plan(target, precision)
    assert [launch.grid for launch in plan.launches if "step" in launch.name] == [(1, 1, 1)]
    assert execute(plan, multiply_add=TENSOR_CORES[target]) == []
    assert max(problem.errors(plan, precision).values()) <= 1
    loss, grads = plan.result()
    expected = outputs(inputs, target, built)
    exactly_summed = 3 if built.sums else 5  # with `sums`, the order in which E is summed is the compiler's
    for got, value in list(zip((loss, *grads), expected, strict=True))[1:exactly_summed]:
        assert np.array_equal(got.numpy().ravel(), value.astype(np.float32).ravel())
    assert float(loss) == pytest.approx(float(expected[0]), rel=1e-6)


def worst(inputs: Inputs, target: str, precision: str) -> float:
    """Return the largest error over its bound of the gate, over all outputs."""
    standard = gate.standard(inputs).coarsened(gate.PRECISION_EPS.get(precision, 0.0))
    checks = standard.judge(outputs(inputs, target, build(target, precision, inputs.user_factors.shape[1])))
    return max(max(check.error / check.bound, check.rms_error / check.rms_bound) for check in checks.values())


@pytest.mark.parametrize("draw", [of_one_sign, first_step, high_mean])
@pytest.mark.parametrize("precision", ["tf32", "tf32x3", "bf16x3"])
@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
def test_sums_of_one_sign_pass_the_gate(target, precision, draw):
    assert worst(draw(64, 1024, 30), target, precision) < 0.8


@pytest.mark.ptx
@pytest.mark.parametrize("target", ["sm_80", "sm_86", "sm_90", "sm_100", "sm_120"])
@pytest.mark.parametrize("precision", ["tf32", "tf32x3", "bf16x3"])
@pytest.mark.parametrize("rank", [62, 126, 256])
def test_wide_ranks_pass_the_gate(target, precision, rank):
    try:
        config.pick(config.TARGETS[target], rank, precision, False)
    except config.NotShipped as reason:
        if not is_old():
            raise
        pytest.skip(str(reason))
    assert worst(of_one_sign(64, 512, rank), target, precision) < 0.9


@pytest.mark.ptx
@pytest.mark.parametrize("draw", [of_one_sign, first_step])
@pytest.mark.parametrize("precision", ["tf32", "tf32x3", "bf16x3"])
@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
def test_65536_items_per_program_pass_the_gate(target, precision, draw):
    assert worst(draw(16, 65536, 30), target, precision) < 0.8
