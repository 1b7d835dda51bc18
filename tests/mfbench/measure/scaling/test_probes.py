"""What the model is given."""

from __future__ import annotations

import pytest

from mfbench.measure.scaling.model import Network
from mfbench.measure.scaling.probes import CALIBRATE_ONE_IN, MESSAGES, Probes, calibrate, probe
from mfbench.problems.cases import Case
from mfbench.problems.inputs import draw

CASE = Case(suite="s", m=4096, n=512, rank=32, density=0.8, ratings_dtype="float32", mask="uint8", data="synthetic",
            seed=1)  # fmt: skip


def test_processes_are_combined() -> None:
    found = Probes.combined([Probes(3e9, (0.25, 4.0)), Probes(2e9, (0.75, 3.0))])
    assert found == Probes(2e9, (0.5, 3.5))
    assert Probes.combined([Probes(3e9, ())]) == Probes(3e9, ())


def test_the_network_is_fitted_to_the_messages() -> None:
    true = Network(1e-5, 1e9)
    found = Probes(1e9, tuple(true.seconds(size, 4) for size, _ in MESSAGES)).network(4)
    assert found is not None
    assert found[:2] == pytest.approx(true[:2])
    assert Probes(1e9, ()).network(1) is None


@pytest.mark.usefixtures("one_process")
def test_one_process_has_a_rate_and_no_messages() -> None:
    found = probe(1)
    assert found.messages_s == ()
    assert 1e8 < found.flops_per_s < 1e13


@pytest.mark.usefixtures("one_process")
def test_a_step_on_some_users_takes_longer_than_one_on_none() -> None:
    found = calibrate("fused", draw(CASE))
    assert found.share == 1 / CALIBRATE_ONE_IN
    assert 0 < found.overhead_s < found.seconds
