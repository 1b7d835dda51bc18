"""Store tensors of users, of which each process has a range of rows, so that any number of processes can read them.

`DTensor` describes only the shards that `torch.chunk` makes. torch.distributed.checkpoint itself stores chunks at any
offset; the planners here say which rows those of this process are.
"""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, SavePlan, TensorWriteData, WriteItem, WriteItemType
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list
from torch.distributed.checkpoint.state_dict_loader import load

OF_USERS = ("user_factors", "user_bias")  # the second part of a tensor's name, as in `optimizer.user_bias.exp_avg`
ALONE = "torch.distributed is disabled"  # begins the warning of the library where one process reads or writes


class Rows(NamedTuple):
    """The users of a process, as a range of those of the whole problem."""

    start: int
    stop: int
    total: int

    def sizes(self, name: str, whole: torch.Size) -> torch.Size:
        """Return the size of this process's part of a tensor."""
        return torch.Size((self.stop - self.start, *whole[1:])) if is_of_users(name, whole) else whole

    def offsets(self, name: str, sizes: torch.Size) -> torch.Size:
        """Return where in the whole tensor this process's part begins."""
        begin = torch.Size([0] * len(sizes))
        return torch.Size((self.start, *begin[1:])) if is_of_users(name, sizes) else begin


def is_of_users(name: str, sizes: torch.Size) -> bool:
    """Return whether the rows of a tensor are divided among processes; a count of steps, 0-d, is not."""
    return name.split(".")[1] in OF_USERS and len(sizes) > 0


class RowsSavePlanner(DefaultSavePlanner):
    """Plans to write this process's rows of the tensors of users; other tensors are written by one process each."""

    def __init__(self, rows: Rows) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)
        self._rows = rows

    def create_local_plan(self) -> SavePlan:
        plan = super().create_local_plan()
        self.plan = dataclasses.replace(plan, items=[self._placed(item) for item in plan.items if self._has(item)])
        return self.plan

    def lookup_object(self, index: MetadataIndex) -> Any:
        return self.state_dict[index.fqn]

    def _has(self, item: WriteItem) -> bool:
        """Return whether there is something to write: a part without rows has the offset of the next one."""
        assert item.tensor_data is not None
        of_users = is_of_users(item.index.fqn, item.tensor_data.size)
        return not of_users or self._rows.start < self._rows.stop or not self._rows.total

    def _placed(self, item: WriteItem) -> WriteItem:
        name, data = item.index.fqn, item.tensor_data
        assert data is not None
        if not is_of_users(name, data.size):
            return item
        offsets = self._rows.offsets(name, data.size)
        return WriteItem(
            index=MetadataIndex(name, offsets),
            type=WriteItemType.SHARD,
            tensor_data=TensorWriteData(
                chunk=ChunkStorageMetadata(offsets, data.size),
                properties=data.properties,
                size=torch.Size((self._rows.total, *data.size[1:])),
            ),
        )


class RowsLoadPlanner(DefaultLoadPlanner):
    """Plans to read this process's rows of the tensors of users, whatever parts they were written in."""

    def __init__(self, rows: Rows) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)
        self._rows = rows

    def set_up_planner(
        self, state_dict: dict[str, Any], metadata: Metadata | None = None, is_coordinator: bool = False
    ) -> None:
        """Allocate what the checkpoint holds: there is no need to know its names before."""
        assert metadata is not None
        tensors = {
            name: torch.empty(self._rows.sizes(name, value.size), dtype=value.properties.dtype, device="cpu")
            for name, value in metadata.state_dict_metadata.items()
            if isinstance(value, TensorStorageMetadata)
        }
        super().set_up_planner(tensors, metadata, is_coordinator)

    def create_local_plan(self) -> LoadPlan:
        assert self.metadata is not None
        items = []
        for name, tensor in self.state_dict.items():
            chunk = ChunkStorageMetadata(self._rows.offsets(name, tensor.size()), tensor.size())
            stored: Any = self.metadata.state_dict_metadata[name]
            items += create_read_items_for_chunk_list(name, stored, [chunk])
        return LoadPlan(items)

    def lookup_tensor(self, index: MetadataIndex) -> Tensor:
        tensor: Tensor = self.state_dict[index.fqn]
        return tensor


def read(path: Path, rows: Rows, group: Any = None) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name, on the CPU: of users this process's rows.

    Args:
        path: of one complete checkpoint.
        rows: that this process wants, whatever it had when the checkpoint was written.
        group: of the processes that read together, communicating on the CPU; None: this process reads alone.

    Raises:
        CheckpointException: a file is missing or damaged, as seen by any process.
    """
    planner = RowsLoadPlanner(rows)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ALONE, UserWarning)
        load({}, storage_reader=FileSystemReader(path), planner=planner, process_group=group, no_dist=group is None)
    return planner.state_dict
