"""C++ of studies: what it measures is possible."""

from __future__ import annotations

import os

import pytest

from kernels import backends
from tests.studies import native

pytestmark = [
    pytest.mark.studies,
    pytest.mark.skipif(not backends()["native"].available, reason=backends()["native"].reason or "there is a compiler"),
]


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="there is one core")
def test_a_line_takes_longer_than_light_and_less_than_a_network():
    """0 is for a second thread that got no core for half a second."""
    assert any(1 < native.core_distance() < 1e6 for _ in range(5))


def test_a_file_is_compiled_once():
    assert native.compiled("core_distance.cpp") is native.compiled("core_distance.cpp")
