"""Tensors written by some processes and read by others: each gets its own rows, bit by bit."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor

from mfbench.train.resharding import Rows, RowsSavePlanner, read

WHOLE = {
    "parameters.user_factors": torch.randn(9, 3),
    "parameters.item_factors": torch.randn(5, 3),
    "parameters.user_bias": torch.randn(9, 1, dtype=torch.float64),
    "parameters.global_bias": torch.randn(1),
    "optimizer.user_factors.exp_avg": torch.randn(9, 3),
    "optimizer.user_factors.step": torch.tensor(7.0),
    "best.user_factors": torch.randn(9, 3),
    "best.item_bias": torch.randn(9, 1),  # as many items as users
}
NO_USERS = {name: torch.randn(0, 3) if "user_" in name else tensor for name, tensor in WHOLE.items()}
RANK_0 = {name: torch.randn(9, 0) if "factors" in name and tensor.dim() else tensor for name, tensor in WHOLE.items()}
DIVISIONS = [[0, 9], [0, 4, 9], [0, 0, 2, 2, 9, 9], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]]


def parts(edges: list[int], whole: dict[str, Tensor]) -> list[tuple[Rows, dict[str, Tensor]]]:
    """Return what each process has."""
    total = len(whole["parameters.user_factors"])
    divided = ("parameters.user_factors", "parameters.user_bias", "optimizer.user_factors.exp_avg", "best.user_factors")
    return [
        (
            Rows(start, stop, total),
            {name: tensor[start:stop] if name in divided else tensor for name, tensor in whole.items()},
        )
        for start, stop in pairwise(min(edge, total) for edge in edges)
    ]


def write(path: Path, divided: list[tuple[Rows, dict[str, Tensor]]]) -> None:
    """Do what `dcp.save` does on each process, one process after the other."""
    writers, planners, plans = [], [], []
    for place, (rows, tensors) in enumerate(divided):
        writer, planner = dcp.FileSystemWriter(path), RowsSavePlanner(rows)
        planner.set_up_planner(dict(tensors), is_coordinator=place == 0)
        writer.set_up_storage_writer(place == 0)
        plans.append(writer.prepare_local_plan(planner.create_local_plan()))
        writers.append(writer)
        planners.append(planner)
    plans, metadata = planners[0].create_global_plan(plans)
    plans = writers[0].prepare_global_plan(plans)
    results = [
        writer.write_data(planner.finish_plan(plan), planner).wait()
        for writer, planner, plan in zip(writers, planners, plans, strict=True)
    ]
    writers[0].finish(metadata, results)


@pytest.mark.parametrize("whole", [WHOLE, RANK_0, NO_USERS], ids=["usual", "rank 0", "no users"])
@pytest.mark.parametrize("reading", DIVISIONS, ids=str)
@pytest.mark.parametrize("writing", DIVISIONS, ids=str)
def test_any_division_reads_any_other(
    writing: list[int], reading: list[int], whole: dict[str, Tensor], tmp_path: Path
) -> None:
    write(tmp_path, parts(writing, whole))
    for rows, expected in parts(reading, whole):
        found = read(tmp_path, rows)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.equal(found[name], tensor), name
            assert found[name].dtype == tensor.dtype


def test_users_are_written_once(tmp_path: Path) -> None:
    many = {**WHOLE, "parameters.user_factors": torch.randn(9, 10_000)}
    write(tmp_path, parts([0, 4, 9], many))
    written = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert written < 1.2 * many["parameters.user_factors"].nbytes
