"""The model of a step over processes: its counts are those of the kernels, and it inverts what it was fitted to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist

from kernels.distributed import mf_loss_and_grads
from kernels.flops import of_step
from mfbench.measure.scaling.launch import launch
from mfbench.measure.scaling.model import H100_CLUSTER, Machine, Network, Problem, Processor
from mfbench.problems.cases import Case

DENSE = Problem(m=4096, n=512, k=32, density=0.8, sparse=False, rating_bytes=5)
SPARSE = DENSE._replace(density=0.01, sparse=True, rating_bytes=8)


def test_operations_of_all_processes_are_those_that_the_kernel_counts() -> None:
    counted = of_step((4096, 32), (512, 32), (4096,), (512,), (1,), (4096, 512))
    assert [4 * DENSE.operations(4), DENSE.operations(1)] == [counted, counted]
    assert SPARSE.operations(1) == pytest.approx(0.01 * counted)


def bytes_of_a_step() -> int | None:
    """The bytes that a step over the default group sums up in one message."""
    sent: list[int] = []
    all_reduce = dist.all_reduce

    def counted(buffer: torch.Tensor, **options: Any) -> Any:
        sent.append(buffer.nbytes)
        return all_reduce(buffer, **options)

    dist.init_process_group("gloo")
    parameters = torch.ones(3, 32), torch.ones(512, 32), torch.ones(3), torch.ones(512), torch.ones(1)
    mf_loss_and_grads(*parameters, torch.ones(3, 512))  # the first of its kind also compares arguments
    dist.all_reduce = counted
    mf_loss_and_grads(*parameters, torch.ones(3, 512))
    dist.destroy_process_group()
    (size,) = sent
    return size


@pytest.mark.processes
@pytest.mark.parametrize("processes", [2, 3])
def test_messages_are_as_long_as_those_of_a_step(processes: int) -> None:
    assert launch(processes, bytes_of_a_step) == DENSE.message_bytes(processes)


def test_memory_holds_at_least_the_ratings_and_the_parameters_of_the_own_users() -> None:
    whole, half = DENSE.memory_bytes(1), DENSE.memory_bytes(2)
    assert whole - half == pytest.approx((4096 * 512 * 5 + 2 * 4 * 4096 * 33) / 2)  # items are on both
    assert SPARSE.memory_bytes(1) < whole


def test_a_problem_is_that_of_its_case() -> None:
    case = Case(suite="s", m=4096, n=512, rank=32, density=0.8, ratings_dtype="float32", mask="uint8", data="synthetic",
                seed=1)  # fmt: skip
    assert Problem.of(case) == DENSE
    sparse = case.model_copy(update={"layout": "sparse", "mask": "none", "density": 0.01})
    assert Problem.of(sparse) == SPARSE


@pytest.mark.parametrize("processes", [2, 4, 7])
def test_latency_and_bandwidth_are_fitted(processes: int) -> None:
    true = Network(latency_s=3e-5, bytes_per_s=2e9)
    measured = [(size, true.seconds(size, processes)) for size in (64.0, 4e6)]
    found = Network.fitted(processes, *measured)
    assert found.latency_s == pytest.approx(3e-5)
    assert found.bytes_per_s == pytest.approx(2e9)
    assert found.seconds(1e5, processes) == pytest.approx(true.seconds(1e5, processes))


def test_a_fit_to_noise_stays_positive() -> None:
    found = Network.fitted(2, (64.0, 2e-3), (4e6, 1e-3))  # the longer message was faster
    assert found.latency_s >= 0
    assert found.bytes_per_s > 0


def test_a_group_of_one_exchanges_nothing_and_a_tree_is_taken_where_it_is_faster() -> None:
    ring, either = Network(1e-5, 1e9), Network(1e-5, 1e9, "ring or tree")
    assert ring.seconds(1e6, 1) == 0
    assert either.seconds(8, 1024) == pytest.approx(2 * 10 * 1e-5, rel=1e-3)
    assert either.seconds(1e12, 8) == ring.seconds(1e12, 8)


def test_communication_binds_from_the_first_power_of_2_at_which_it_takes_longer() -> None:
    network = Network(1e-5, 1e9)
    machine = Machine("test", Processor(1e12), network, network, together=1)
    binds = machine.binds_from(DENSE, 1024)
    assert binds is not None
    assert machine.communicating_s(DENSE, binds) > machine.computing_s(DENSE, binds)
    assert machine.communicating_s(DENSE, binds // 2) <= machine.computing_s(DENSE, binds // 2)
    assert machine.binds_from(DENSE._replace(m=10**9), 1024) is None


def test_machines_are_joined_by_another_network() -> None:
    assert H100_CLUSTER.network(8) is H100_CLUSTER.inside
    assert H100_CLUSTER.network(9) is H100_CLUSTER.between
