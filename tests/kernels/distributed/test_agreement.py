"""What processes must pass alike: every process learns of a difference."""

from __future__ import annotations

import pytest
import torch

from kernels.distributed import mf_loss, mf_loss_and_grads
from kernels.distributed.agreement import checksum
from kernels.distributed.step import group_step
from tests.kernels.distributed.simulation import divided, simulated
from tests.problems import draw_inputs

DIFFERENCES = {
    "items": ("item_factors", "number of items", "got 7 on process 0 and 6 on process 1$"),
    "rank": ("item_factors", "rank", "got 3 on process 0 and 2 on process 1$"),
    "dtype": ("item_factors", "dtype", "got float32 on process 0 and float64 on process 1$"),
    "reg": ("reg", "value", "got 0.1 on process 0 and 0.2 on process 1$"),
    "deterministic": ("deterministic", "value", "got False on process 0 and True on process 1$"),
    "item_factors": ("item_factors", "values", r"got ones with checksum \w{16} on process 0"),
    "item_bias": ("item_bias", "values", ""),
    "global_bias": ("global_bias", "values", ""),
    "gradients": ("mf_loss", "need of gradients", "got False on process 0 and True on process 1$"),
}


def new_group_of_two(process):
    """Return a group of the first two processes, which has compared nothing yet; all processes must take part."""
    group = torch.distributed.new_group([0, 1])
    return group if process < 2 else None


def differing(_, process, what):
    group = new_group_of_two(process)
    if group is None:
        return None
    inputs = draw_inputs(5, 7, 3)
    if what in ("item_factors", "item_bias", "global_bias"):
        inputs = inputs._replace(**{what: getattr(inputs, what) + process})
    if what == "rank":
        inputs = draw_inputs(5, 7, 3 - process)
    if what == "items":
        inputs = draw_inputs(5, 7 - process, 3)
    if what == "dtype":
        inputs = draw_inputs(5, 7, 3, (torch.float32, torch.float64)[process])
    if what == "reg":
        inputs = inputs._replace(reg=0.1 * (process + 1))
    inputs[0].requires_grad_(what == "gradients" and process == 1)
    deterministic = what == "deterministic" and process == 1
    return mf_loss(*inputs, deterministic=deterministic, group=group)


@pytest.mark.processes
@pytest.mark.parametrize("what", DIFFERENCES)
def test_differences_are_named_on_every_process(processes, what):
    argument, name, values = DIFFERENCES[what]
    for error in processes.call(differing, 4, what)[:2]:
        with pytest.raises(ValueError, match=f"^{argument}: expected the same {name} on every process, {values}"):
            raise error


def gatherings(_, process):
    """Return how many messages, comparisons and sums, each step of a sequence took."""
    group = new_group_of_two(process)
    if group is None:
        return None
    inputs = draw_inputs(5, 7, 3)
    counts = []
    for reg in (0.1, 0.1, 0.2):
        with torch.profiler.profile() as profile:
            mf_loss_and_grads(*inputs[:7], reg, group=group)
        names = [event.key for event in profile.key_averages()]
        counts.append((sum("allgather" in name for name in names), sum("all_reduce" in name for name in names)))
    return counts


@pytest.mark.processes
def test_only_the_first_step_of_a_kind_compares(processes):
    for (compared, _), *later in processes.call(gatherings, 4)[:2]:
        assert compared
        assert all(not gathered and summed for gathered, summed in later)


def test_simulated_processes_with_other_items():
    inputs = draw_inputs(6, 7, 3)
    with simulated(2) as mesh:
        of = divided(inputs, (0, 3, 6), mesh)
        of.call.parameters[1]._local_tensors[1] = inputs.item_factors + 1
        with pytest.raises(ValueError, match=r"^item_factors: expected the same values on every process"):
            group_step(of)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("block", [5, 1 << 22])
def test_a_checksum_depends_on_every_bit_and_place(dtype, block, monkeypatch):
    monkeypatch.setattr("kernels.distributed.agreement.BLOCK_WORDS", block)
    values = torch.randn(4, 3, dtype=dtype)
    assert checksum(values) == checksum(values.clone()) == checksum(values.T.contiguous().T)
    assert checksum(values) != checksum(values.T)
    for place in range(12):
        other = values.clone()
        other.view(-1)[place] = torch.nextafter(other.view(-1)[place], torch.tensor(9.0, dtype=dtype))
        assert checksum(values) != checksum(other)


def test_a_checksum_does_not_depend_on_blocks(monkeypatch):
    values = torch.randn(7, 3)
    whole = checksum(values)
    monkeypatch.setattr("kernels.distributed.agreement.BLOCK_WORDS", 5)
    assert checksum(values) == whole
    assert checksum(values[:0]) == 0
