"""Sums over simulated processes."""

from __future__ import annotations

import math
import random

import pytest
import torch

from kernels.distributed.group import Group
from kernels.distributed.reduction import sum_over_processes
from tests.kernels.distributed.simulation import of_each, on_each, simulated

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
DETERMINISTIC = pytest.mark.parametrize("deterministic", [False, True])


def numbers(*values):
    return [torch.tensor(value, dtype=torch.float64) for value in values]


def summed(parts, values, deterministic=False):
    """Return the sums of one tensor of each process, and of their numbers, as each process has them."""
    processes = len(values)
    with simulated(processes) as mesh:
        group = Group(mesh.get_group(), mesh.get_local_rank(), processes)
        tensors = [of_each(parts)] if parts else []
        sums = sum_over_processes(tensors, [of_each(numbers(*values))], group, deterministic)
    return [on_each(total, processes) for total in sums]


@DTYPES
@DETERMINISTIC
@pytest.mark.parametrize("processes", [2, 3, 7])
def test_every_place_of_any_shape(dtype, deterministic, processes):
    parts = [torch.randint(-1000, 1000, (5, 3)).to(dtype) for _ in range(processes)]
    sums, _ = summed(parts, [0.0] * processes, deterministic)
    for total in sums:
        assert torch.equal(total, sum(parts))


@DTYPES
@DETERMINISTIC
@pytest.mark.parametrize("seed", range(3))
def test_the_number_keeps_all_of_float64(dtype, deterministic, seed):
    draw = random.Random(seed)
    values = [draw.uniform(-1, 1) * 10.0 ** draw.randint(-300, 300) for _ in range(3)]
    _, totals = summed([torch.zeros(2, dtype=dtype)] * 3, values, deterministic)
    for total in totals:
        assert total.item() == sum(values)


@DTYPES
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((5e-324, 0.0), 5e-324),
        ((1.7e308, 1.7e308), math.inf),
        ((-math.inf, 1.0), -math.inf),
        ((math.inf, -math.inf), math.nan),
        ((math.nan, 1.0), math.nan),
    ],
)
def test_numbers_that_float32_has_not(dtype, values, expected):
    for total in summed([torch.zeros(2, dtype=dtype)] * 2, values)[1]:
        assert total.item() == expected or (math.isnan(expected) and total.isnan())


def test_the_number_alone():
    ((first, second),) = summed([], [1.0, 2.0**-53])
    assert first.item() == second.item() == 1.0 + 2.0**-53


def test_deterministic_sums_start_at_the_first_process():
    parts = [torch.tensor(row) for row in ([1e8, 1.0], [1.0, 1e8], [-1e8, -1e8])]
    sums, _ = summed(parts, [0.0] * 3, deterministic=True)
    for total in sums:
        assert total.tolist() == [(torch.tensor(1e8) + 1.0 - 1e8).item(), (torch.tensor(1.0) + 1e8 - 1e8).item()]


@DTYPES
@DETERMINISTIC
def test_several_numbers_of_either_shape(dtype, deterministic):
    with simulated(3) as mesh:
        group = Group(mesh.get_group(), mesh.get_local_rank(), 3)
        scalars, columns = of_each(numbers(1.0, 2.0, 1e-16)), of_each([x[None] for x in numbers(0.1, 1e300, -1e300)])
        parts = of_each([torch.full((2,), place, dtype=dtype) for place in (1.0, 2.0, 4.0)])
        sums = sum_over_processes([parts], [scalars, columns], group, deterministic)
    for tensor, scalar, column in zip(*(on_each(total, 3) for total in sums), strict=True):
        assert tensor.tolist() == [7.0, 7.0]
        assert (scalar.shape, scalar.item()) == ((), 1.0 + 2.0 + 1e-16)
        assert (column.shape, column.item()) == ((1,), 0.1 + 1e300 - 1e300)
