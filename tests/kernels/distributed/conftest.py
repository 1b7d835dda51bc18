"""Processes for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kernels.distributed.processes import Processes

MOST = 4


@pytest.fixture(scope="session")
def processes() -> Iterator[Processes]:
    """Four processes, and groups of the first 1, 2, 3 and all of them."""
    started = Processes(MOST, tuple(range(1, MOST + 1)))
    yield started
    started.close()
