"""The factorization problem: its arguments checked once, its shapes named."""

from __future__ import annotations

import sys
from numbers import Real
from typing import NamedTuple

import torch
from torch import Tensor

PARAMETER_DTYPES = (torch.float32, torch.float64)
RATING_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.uint8, torch.int8)
LARGEST = sys.float_info.max
OCCUPIED_BLOCK = 16  # users and items of a block in `Problem.occupied`


class Grads(NamedTuple):
    """Gradients of the loss in parameter order, each with its parameter's shape and dtype."""

    user_factors: Tensor  # (m, k)
    item_factors: Tensor  # (n, k)
    user_bias: Tensor  # (m,) or (m, 1)
    item_bias: Tensor  # (n,) or (n, 1)
    global_bias: Tensor  # () or (1,)


class Problem(NamedTuple):
    """Checked arguments of one step, as the caller gave them: any strides, biases as vectors or columns."""

    user_factors: Tensor  # (m, k)
    item_factors: Tensor  # (n, k)
    user_bias: Tensor  # (m,) or (m, 1)
    item_bias: Tensor  # (n,) or (n, 1)
    global_bias: Tensor  # () or (1,)
    ratings: Tensor  # (m, n)
    mask: Tensor | None  # (m, n), non-zero = observed; None: NaN in ratings = missing
    reg: float
    grid: Tensor | None = None  # (2,) float64: ratings are uint8 codes, code * grid[0] + grid[1], 255 = missing
    packed: bool = False  # the mask is (m, packed_words(n)) int32: bit c % 32 of word c // 32 is column c
    occupied: Tensor | None = None  # bool: which blocks of 16 users x 16 items hold an observed entry; None: any may

    @property
    def shape(self) -> tuple[int, int, int]:
        """Users, items, rank: (m, n, k)."""
        m, rank = self.user_factors.shape
        return m, self.item_factors.shape[0], rank

    @property
    def parameters(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        return self[:5]


def check_problem(
    user_factors: Tensor,
    item_factors: Tensor,
    user_bias: Tensor,
    item_bias: Tensor,
    global_bias: Tensor,
    ratings: Tensor,
    mask: Tensor | None,
    reg: float,
    grid: Tensor | None = None,
    packed: bool = False,
    occupied: Tensor | None = None,
) -> Problem:
    """The arguments as a `Problem`.

    Raises:
        TypeError: an argument is not a dense tensor, its dtype is not one that the step takes, or `reg` is no number.
        ValueError: a shape or a device does not fit the others, or `reg` is not finite.
    """
    _check_tensor("user_factors", user_factors)
    _check_tensor("item_factors", item_factors)
    check_ratings(ratings, mask)
    dtype, device = user_factors.dtype, user_factors.device
    if dtype not in PARAMETER_DTYPES:
        raise TypeError(f"user_factors: expected float32 or float64, got {dtype}")
    m, rank = _rows_and_columns("user_factors", user_factors)
    n, _ = _rows_and_columns("item_factors", item_factors)
    for name, parameter, shapes in (
        ("item_factors", item_factors, ((n, rank),)),
        ("user_bias", user_bias, ((m,), (m, 1))),
        ("item_bias", item_bias, ((n,), (n, 1))),
        ("global_bias", global_bias, ((), (1,))),
    ):
        _check_tensor(name, parameter)
        if parameter.dtype is not dtype:
            raise TypeError(f"{name}: expected {dtype} as user_factors, got {parameter.dtype}")
        _check_place(name, parameter, shapes, device)
    _check_place("ratings", ratings, ((m, n),), device)
    if mask is not None:
        _check_place("mask", mask, ((m, packed_words(n) if packed else n),), device)
    if grid is not None:
        _check_place("ratings.grid", grid, ((2,),), device)
    if occupied is not None:
        blocks = (-(-m // OCCUPIED_BLOCK), -(-n // OCCUPIED_BLOCK))
        _check_place("ratings.occupied", occupied, (blocks,), device)
    if not isinstance(reg, (float, Real, torch.SymFloat, torch.SymInt)):
        raise TypeError(f"reg: expected a finite number of Python, got {reg!r}")
    if not -LARGEST <= reg <= LARGEST:  # NaN, infinite, or an integer that no float64 can hold
        raise ValueError(f"reg: expected a finite number, got {reg!r}")
    return Problem(
        user_factors, item_factors, user_bias, item_bias, global_bias, ratings, mask, reg, grid, packed, occupied
    )


def packed_words(n: int) -> int:
    """Words of 32 columns in a row of a packed mask: whole tiles of 64 columns."""
    return 2 * -(-n // 64)


def check_ratings(ratings: Tensor, mask: Tensor | None) -> None:
    """Raises TypeError where ratings or mask are not dense tensors, or have a dtype that the step does not take."""
    _check_tensor("ratings", ratings)
    if ratings.dtype not in RATING_DTYPES:
        expected = ", ".join(str(dtype).removeprefix("torch.") for dtype in RATING_DTYPES)
        raise TypeError(f"ratings: expected one of {expected}, got {ratings.dtype}")
    if mask is not None:
        _check_tensor("mask", mask)
        if mask.dtype.is_complex:
            raise TypeError(f"mask: expected bool, an integer or a float dtype, got {mask.dtype}")


def _check_tensor(name: str, value: Tensor) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
    if value.layout is not torch.strided or value.is_neg():
        came = "a lazily negated one, see resolve_neg()" if value.layout is torch.strided else value.layout
        raise TypeError(f"{name}: expected a dense tensor, got {came}")


def _check_place(name: str, tensor: Tensor, shapes: tuple[tuple[int, ...], ...], device: torch.device) -> None:
    if tensor.shape not in shapes:
        expected = " or ".join(map(str, shapes))
        raise ValueError(f"{name}: expected shape {expected}, got {tuple(tensor.shape)}")
    if tensor.device != device:
        raise ValueError(f"{name}: expected device {device} as user_factors, got {tensor.device}")


def _rows_and_columns(name: str, factors: Tensor) -> tuple[int, int]:
    if factors.dim() != 2:
        raise ValueError(f"{name}: expected 2 dimensions, got shape {tuple(factors.shape)}")
    rows, columns = factors.shape
    return rows, columns


def squared_norms(problem: Problem) -> Tensor:
    """Sum of the squares of the four regularised parameters, 0-d float64."""
    return torch.stack([p.detach().double().square().sum() for p in problem.parameters[:4]]).sum()
