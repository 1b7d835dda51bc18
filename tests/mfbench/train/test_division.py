"""A task divided among processes."""

from __future__ import annotations

import pytest
import torch

from mfbench.errors import UsageError
from mfbench.problems.matrices import to_dense
from mfbench.train.division import on_first, own_task, own_users, whole_users
from mfbench.train.options import TrainOptions
from mfbench.train.task import Task, make_task


def tasks() -> list[Task]:
    options = {"data": "power-law", "size": (40, 30), "density": 0.3}
    sparse, dense = (make_task(TrainOptions(**options, layout=layout)) for layout in ("sparse", "dense"))
    return [sparse, dense, make_task(TrainOptions(size=(40, 30)))]


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("processes", [1, 2, 3, 64])
def test_the_parts_of_a_task_make_up_the_whole(place: int, processes: int) -> None:
    task = tasks()[place]
    parts = [own_task(task, own_users(task, process, processes)) for process in range(processes)]
    for name in ("user_factors", "user_bias"):
        assert torch.equal(torch.cat([getattr(part.inputs, name) for part in parts]), getattr(task.inputs, name))
    for of in (lambda task: task.inputs.ratings, lambda task: task.held_out):
        whole, *others = (to_dense(of(each))[0] if task.inputs.sparse else of(each) for each in (task, *parts))
        assert torch.equal(torch.cat(others), whole)
    assert sum(part.inputs.observed for part in parts) == task.inputs.observed
    storage = parts[0].inputs.user_factors.untyped_storage()
    assert storage.nbytes() == parts[0].inputs.user_factors.nbytes  # the rest can be freed


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("place", range(3))
def test_one_process_judges_as_the_task_does(place: int) -> None:
    task = tasks()[place]
    own = own_task(task, own_users(task, 0, 1))
    assert own.held_out_count == task.held_out_count > 0
    assert own.held_out_sse() == task.held_out_sse()


@pytest.mark.usefixtures("one_process")
def test_exchanges_of_one_process() -> None:
    rows = torch.randn(3, 2)
    whole = whole_users(rows, 0, 1)
    assert whole is not None
    assert torch.equal(whole, rows)
    assert on_first(lambda: 0.1) == 0.1
    error = UsageError("no", code="bad-value", argument="lr")
    with pytest.raises(UsageError) as raised:
        on_first(lambda: throw(error))
    assert (str(raised.value), raised.value.code, raised.value.argument) == ("lr: no", "bad-value", "lr")


def throw(error: Exception) -> None:
    raise error
