"""The factorization problem: arguments bundled, checked once, and their shapes named."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from numbers import Real
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.parameter import Parameter, UninitializedBuffer, UninitializedParameter

PARAMETER_DTYPES = (torch.float32, torch.float64)
PLAIN = frozenset({Tensor, Parameter})  # types of tensors with memory
WIDE_INTEGERS = (torch.int32, torch.int64)  # accepted where the parameters' dtype holds every observed rating exactly
RATING_DTYPES = (
    torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.uint8, torch.int8, *WIDE_INTEGERS,
)  # fmt: skip
POINTER_DTYPES = (torch.int64, torch.int32)
COLUMN_DTYPES = (torch.uint16, torch.int32, torch.int64)
LARGEST = sys.float_info.max  # bound on |reg|
OCCUPIED_BLOCK = 16  # users and items of a block in `Observations.occupied`


Parameters = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # in the order, and with the shapes, of `Grads`


class Grads(NamedTuple):
    """Gradients of the loss in parameter order, each with its parameter's shape and dtype."""

    user_factors: Tensor  # (m, k)
    item_factors: Tensor  # (n, k)
    user_bias: Tensor  # (m,) or (m, 1)
    item_bias: Tensor  # (n,) or (n, 1)
    global_bias: Tensor  # () or (1,)


class Observations(NamedTuple):
    """Ratings and which of them are observed: dense with any strides, or in compressed sparse rows (CSR)."""

    # Dense (m, n), or sparse (observed,): values; where `levels` is given uint8 codes, of which dense 255 = missing
    ratings: Tensor
    # (m, n). Float: weights, 0 = unobserved. Bool or integer: non-zero = observed. None: NaN in ratings = missing.
    mask: Tensor | None = None
    levels: Tensor | None = None  # (2,) float64: rating = code * levels[0] + levels[1]
    packed: bool = False  # the mask is (m, packed_words(n)) int32: bit c % 32 of word c // 32 is column c
    occupied: Tensor | None = None  # bool: which blocks of 16 users x 16 items hold an observed entry; None: any may
    rows: Tensor | None = None  # Sparse (m + 1,): row i has the entries rows[i] to rows[i + 1]. None: dense
    columns: Tensor | None = None  # Sparse (observed,): the item of every entry, each once in a row
    items: int = 0  # Sparse: n

    @property
    def sparse(self) -> bool:
        """The ratings are entries of compressed rows, all of them observed."""
        return self.rows is not None

    @property
    def shape(self) -> tuple[int, ...]:
        """Users and items, (m, n), if the ratings are a matrix."""
        return tuple(self.ratings.shape) if self.rows is None else (self.rows.shape[0] - 1, self.items)

    @property
    def weighted(self) -> bool:
        """The mask holds weights, by which errors are multiplied."""
        return self.mask is not None and self.mask.is_floating_point()

    @property
    def transposed(self) -> Observations:
        """The same observations with users and items exchanged. Packed masks and sparse ratings have no transpose."""
        mask, occupied = (None if t is None else t.T for t in (self.mask, self.occupied))
        return self._replace(ratings=self.ratings.T, mask=mask, occupied=occupied)


class Problem(NamedTuple):
    """Checked arguments of one step: any strides, biases as vectors or columns."""

    parameters: Parameters
    observations: Observations
    reg: float

    @property
    def shape(self) -> tuple[int, int, int]:
        """Users, items, rank: (m, n, k)."""
        user_factors, item_factors, *_ = self.parameters
        m, rank = user_factors.shape
        return m, item_factors.shape[0], rank

    @property
    def dtype(self) -> torch.dtype:
        """The parameters' dtype, float32 or float64."""
        return self.parameters[0].dtype

    @property
    def device(self) -> torch.device:
        """The device of every tensor."""
        return self.parameters[0].device

    @property
    def transposed(self) -> Problem:
        """The same problem with users and items exchanged."""
        P, Q, bu, bi, mu = self.parameters
        return Problem((Q, P, bi, bu, mu), self.observations.transposed, self.reg)


def check_problem(parameters: Parameters, observations: Observations, reg: float) -> Problem:
    """Return the arguments as a `Problem`.

    Raises:
        TypeError: an argument is not a dense tensor or has a dtype that the step does not accept, or `reg` is not a
            number.
        ValueError: a shape or a device does not match the others, or `reg` is not finite.
    """
    user_factors, item_factors, user_bias, item_bias, global_bias = parameters
    ratings, mask, levels, packed, occupied, rows, columns, _ = observations
    check_tensor("user_factors", user_factors)
    check_tensor("item_factors", item_factors)
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
        check_tensor(name, parameter)
        if parameter.dtype is not dtype:
            raise TypeError(f"{name}: expected {dtype} as user_factors, got {parameter.dtype}")
        _check_shape_and_device(name, parameter, shapes, device)
    if observations.shape != (m, n):
        raise ValueError(f"ratings: expected shape {(m, n)}, got {observations.shape}")
    _check_device("ratings", ratings, device)
    if rows is not None and columns is not None:
        _check_integers("ratings.crow_indices()", rows, POINTER_DTYPES)
        _check_integers("ratings.col_indices()", columns, COLUMN_DTYPES)
        _check_device("ratings.crow_indices()", rows, device)
        _check_shape_and_device("ratings.col_indices()", columns, (tuple(ratings.shape),), device)
    if mask is not None:
        _check_shape_and_device("mask", mask, ((m, packed_words(n) if packed else n),), device)
    if levels is not None:
        if ratings.dtype is not torch.uint8:
            raise TypeError(f"ratings.values: expected uint8, the dtype of codes, beside levels; got {ratings.dtype}")
        _check_shape_and_device("ratings.levels", levels, ((2,),), device)
    if occupied is not None:
        blocks = (-(-m // OCCUPIED_BLOCK), -(-n // OCCUPIED_BLOCK))
        _check_shape_and_device("ratings.occupied", occupied, (blocks,), device)
    check_reg(reg)
    return Problem(parameters, observations, reg)


def check_reg(reg: float) -> None:
    """Raise TypeError or ValueError where the weight of the regulariser is not a finite number."""
    check_number("reg", reg)
    if not -LARGEST <= reg <= LARGEST:  # NaN, infinite, or an integer beyond float64
        raise ValueError(f"reg: expected a finite number, got {reg!r}")


def check_number(name: str, value: float) -> None:
    """Raise TypeError where a value is not a real number."""
    if not isinstance(value, (float, Real)):
        raise TypeError(f"{name}: expected a finite number, got {value!r}")


def packed_words(n: int) -> int:
    """Return the number of 32-bit words in a row of a packed mask: whole tiles of 64 columns."""
    return 2 * -(-n // 64)


def check_ratings(ratings: Tensor, mask: Tensor | None) -> None:
    """Raise TypeError where ratings or mask are not dense tensors of a dtype that the step accepts."""
    check_tensor("ratings", ratings)
    if ratings.dtype not in RATING_DTYPES:
        expected = ", ".join(str(dtype).removeprefix("torch.") for dtype in RATING_DTYPES)
        raise TypeError(f"ratings: expected one of {expected}, got {ratings.dtype}")
    if mask is not None:
        check_tensor("mask", mask)
        if mask.dtype.is_complex:
            raise TypeError(f"mask: expected bool, an integer or a float dtype, got {mask.dtype}")


def check_tensor(name: str, value: Tensor) -> None:
    """Raise TypeError where a value is not a dense tensor."""
    if type(value) not in PLAIN:  # asks a metaclass in Python
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
        if isinstance(value, (UninitializedParameter, UninitializedBuffer)):
            raise TypeError(f"{name}: expected a dense tensor, got an uninitialized one of a lazy module")
    if value.layout is not torch.strided or value.is_neg() or value.is_nested:
        lazily = "a lazily negated one, see resolve_neg()" if value.layout is torch.strided else value.layout
        raise TypeError(f"{name}: expected a dense tensor, got {'a nested one' if value.is_nested else lazily}")


def _check_shape_and_device(
    name: str, tensor: Tensor, shapes: tuple[tuple[int, ...], ...], device: torch.device
) -> None:
    if tensor.shape not in shapes:
        expected = " or ".join(map(str, shapes))
        raise ValueError(f"{name}: expected shape {expected}, got {tuple(tensor.shape)}")
    _check_device(name, tensor, device)


def _check_integers(name: str, indices: Tensor, dtypes: tuple[torch.dtype, ...]) -> None:
    if indices.dtype not in dtypes:
        expected = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise TypeError(f"{name}: expected one of {expected}, got {indices.dtype}")


def _check_device(name: str, tensor: Tensor, device: torch.device) -> None:
    if tensor.device != device:
        raise ValueError(f"{name}: expected device {device} as user_factors, got {tensor.device}")


def _rows_and_columns(name: str, factors: Tensor) -> tuple[int, int]:
    if factors.dim() != 2:
        raise ValueError(f"{name}: expected 2 dimensions, got shape {tuple(factors.shape)}")
    rows, columns = factors.shape
    return rows, columns


def check_memory(problem: Problem) -> None:
    """Raise ValueError where a tensor has elements but no memory, such as a parameter whose storage was freed."""
    for place, value in enumerate((*problem.parameters, *problem.observations)):
        if isinstance(value, Tensor) and not _has_memory(value) and value.numel():
            name = (*Grads._fields, *Observations._fields)[place]
            raise ValueError(f"{name}: expected a tensor with memory, got one with an empty storage")


def _has_memory(tensor: Tensor) -> bool:
    if not tensor.data_ptr():
        return False
    # A view of a freed storage still points to its offset; to ask for the storage takes a while.
    return not tensor.storage_offset() or bool(tensor.untyped_storage().nbytes())


def empty_gradient(parameter: Tensor) -> Tensor:
    """Allocate a contiguous gradient. Naming shape, dtype and device, or the format, would take twice as long."""
    if parameter.is_contiguous():
        return torch.empty_like(parameter)
    return torch.empty_like(parameter, memory_format=torch.contiguous_format)


def squared_norms(parameters: Iterable[Tensor]) -> Tensor:
    """Return the sum of the squares of all parameters, 0-d float64."""
    return torch.stack([p.detach().double().square().sum() for p in parameters]).sum()
