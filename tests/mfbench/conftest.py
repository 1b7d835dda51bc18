"""Fixtures of the harness's tests: ratings to train on, and one thread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Use one thread, as steps of tiny problems lose more time than they gain by threads on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def rating_file(tmp_path: Path) -> str:
    """Ratings with a mean, biases and two factors to learn, 60 % of them observed."""
    rng, m, n = np.random.default_rng(3), 60, 45
    biases = 0.5 * rng.standard_normal((m, 1)) + 0.5 * rng.standard_normal((1, n))
    ratings = 3.5 + biases + 0.6 * rng.standard_normal((m, 2)) @ rng.standard_normal((2, n))
    ratings += 0.2 * rng.standard_normal((m, n))
    ratings[rng.random((m, n)) > 0.6] = np.nan
    np.save(tmp_path / "ratings.npy", ratings)
    return str(tmp_path / "ratings.npy")
