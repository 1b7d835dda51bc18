"""Problems for tests, drawn by Hypothesis and judged by the correctness gate."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

from kernels.encoded import observations_of
from kernels.problem import Problem, check_problem
from mfbench.correctness.gate import standard
from mfbench.problems.inputs import Inputs

RATINGS = (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.uint8, torch.int8)
MASKS = (
    None, torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32,
    torch.uint64, torch.float16, torch.bfloat16, torch.float32, torch.float64,
)  # fmt: skip
LAYOUTS = ("contiguous", "transposed", "every second", "row repeated", "column repeated", "one value")


def in_layout(values: Tensor, layout: str) -> Tensor:
    """Return the values with other strides. Where a stride is 0, one row, column or value is repeated."""
    if layout == "transposed":
        return values.T.contiguous().T
    if layout == "every second":
        between = values.repeat_interleave(2, 0).repeat_interleave(3, 1)
        return between[::2, ::3]
    if layout == "row repeated":
        return values[:1].expand_as(values)
    if layout == "column repeated":
        return values[:, :1].expand_as(values)
    if layout == "one value":
        return values[:1, :1].expand_as(values)
    return values


def draw_inputs(
    m: int, n: int, rank: int, dtype: torch.dtype = torch.float32, ratings_dtype: torch.dtype = torch.float32,
    mask_dtype: torch.dtype | None = torch.bool, density: float = 0.7, layouts: tuple[str, str, str] = LAYOUTS[:1] * 3,
    seed: int = 0, columns: bool = True, reg: float = 0.1,
) -> Inputs:  # fmt: skip
    """Draw seeded inputs. Unobserved float ratings hold NaN and, with a mask, infinities.

    Args:
        mask_dtype: None for NaN in the ratings instead of a mask; values other than 0 and 1 where the dtype has them,
            in a float dtype weights of either sign.
        layouts: of the factors, the ratings, the mask.
        columns: biases as columns and a global bias of one element, or as vectors and a scalar.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    P, Q = (in_layout(normal(count, rank), layouts[0]) for count in (m, n))
    bu, bi, mu = 3 * normal(m, 1), normal(n, 1) - 2, normal(1) + 3.5
    if not columns:
        bu, bi, mu = bu[:, 0], bi[:, 0], mu[0]
    ratings = in_layout((torch.rand((m, n), generator=generator) * 10).to(ratings_dtype), layouts[1])
    observed = in_layout(torch.rand((m, n), generator=generator) < density, layouts[2])
    if ratings_dtype.is_floating_point and 0 not in ratings.stride():
        bad = [float("nan")] if mask_dtype is None else [float("nan"), float("inf"), -float("inf")]
        places = torch.arange(m * n).reshape(m, n) % len(bad)
        ratings[...] = torch.where(observed, ratings, torch.tensor(bad)[places].to(ratings_dtype))
    if mask_dtype is None:
        return Inputs(P, Q, bu, bi, mu, ratings, None, reg)
    weight = torch.randint(1, 100, (m, n), generator=generator)
    if mask_dtype.is_signed:
        weight *= torch.randint(0, 2, (m, n), generator=generator) * 2 - 1
    if mask_dtype.is_floating_point:
        weight = weight / 32
    mask = observed if mask_dtype == torch.bool else in_layout((observed * weight).to(mask_dtype), layouts[2])
    return Inputs(P, Q, bu, bi, mu, ratings, mask, reg)


@st.composite
def problems(draw, max_size: int = 40, max_rank: int = 12, dtypes=(torch.float32, torch.float64)) -> Inputs:
    """Draw inputs of any shape, strides, dtypes and masks."""
    return draw_inputs(
        m=draw(st.integers(1, max_size)),
        n=draw(st.integers(1, max_size)),
        rank=draw(st.integers(1, max_rank)),
        dtype=draw(st.sampled_from(dtypes)),
        ratings_dtype=draw(st.sampled_from(RATINGS)),
        mask_dtype=draw(st.sampled_from(MASKS)),
        density=draw(st.sampled_from((0.0, 0.05, 0.5, 0.9, 1.0))),
        layouts=draw(st.tuples(*[st.sampled_from(LAYOUTS)] * 3)),
        seed=draw(st.integers(0, 2**31)),
        columns=draw(st.booleans()),
        reg=draw(st.sampled_from((0.0, 0.1, 10.0))),
    )


def checked(inputs: Inputs) -> Problem:
    """Return the inputs as the backends receive them."""
    P, Q, bu, bi, mu, ratings, mask, reg = inputs
    return check_problem((P, Q, bu, bi, mu), observations_of(ratings, mask), reg)


def assert_right(inputs: Inputs, result) -> None:
    """Check shapes, dtypes, that no graph is attached, and that every output is within the gate's bound."""
    loss, grads = result
    assert (loss.shape, loss.dtype, loss.requires_grad) == ((), torch.float64, False)
    for grad, parameter in zip(grads, inputs[:5], strict=True):
        assert (grad.shape, grad.dtype, grad.requires_grad) == (parameter.shape, parameter.dtype, False)
    verdicts = standard(inputs).judge([value.detach().double().numpy() for value in (loss, *grads)])
    wrong = {name: verdict for name, verdict in verdicts.items() if not verdict.ok}
    assert not wrong, wrong
