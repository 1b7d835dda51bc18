"""`placements`: every kind of block is measured, and scatter beyond the noise is detected."""

from __future__ import annotations

import re

import numpy as np
import pytest
from click.testing import CliRunner

from tests.studies import placements

pytestmark = pytest.mark.studies


def test_blocks_are_measured_between_moves_and_restarts() -> None:
    options = ["--provider", "tiled", "--size", "24x32", "--threads", "1", "--blocks", "3", "--rounds", "3"]
    done = CliRunner().invoke(placements.main, options, catch_exceptions=False)
    assert done.exit_code == 0
    found = re.findall(r"^(\D+?) +medians ([+-][\d.]+)%", done.output, re.MULTILINE)
    assert [name for name, _ in found] == ["nothing", "data moved", "processes restarted"]
    assert all(abs(float(median)) < 50 for _, median in found)


@pytest.mark.parametrize("effect", [0.0, 0.1])
def test_scatter_beyond_the_noise_is_that_of_the_blocks(effect: float) -> None:
    rng = np.random.default_rng(4)
    blocks = [rng.normal(rng.normal(0, effect), 0.02, 31) for _ in range(60)]
    beyond = float(re.search(r"beyond it ([\d.]+)%", placements.report("x", blocks))[1]) / 100
    assert beyond == pytest.approx(effect, abs=0.02)
