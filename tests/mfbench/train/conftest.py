from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.mfbench.train.runs import write_ratings


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Use one thread: in steps this short, threads cost more than they save on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def rating_file(tmp_path: Path) -> str:
    return write_ratings(tmp_path / "ratings.npy", 60, 45)
