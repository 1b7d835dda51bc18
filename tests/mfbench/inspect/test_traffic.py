"""Modelled traffic of a large step."""

import pytest

pytest.importorskip("triton", reason="Triton is not installed")
from mfbench.inspect.builds import traffic_of
from tests.mfbench.inspect.configurations import spec


@pytest.mark.parametrize(
    ("target", "mode", "most"),
    [("sm_80", "fast", 1.05), ("sm_90", "fast", 1.05), ("gfx942", "fast", 1.07), ("sm_90", "deterministic", 1.2)],
)
def test_a_large_step_moves_little_more_than_its_ratings(target, mode, most):
    assert 1 < traffic_of(spec(target, 32, "tf32", mode=mode)) <= most
