"""`training_loop`: the three loops are timed in turn, and their ratios are reported."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner

from kernels import backends
from tests.studies import training_loop

pytestmark = [
    pytest.mark.studies,
    pytest.mark.skipif(not backends()["native"].available, reason=backends()["native"].reason or "there is a kernel"),
]


@pytest.mark.parametrize("update", ["sgd", "momentum", "adam"])
def test_medians_and_ratios_of_three_loops(update: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_loop, "TURN_FLOPS", 1e8)
    arguments = ["--size", "300x200", "--rank", "8", "--update", update, "--rounds", "3"]
    done = CliRunner().invoke(training_loop.main, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert len(re.findall(r"[\d.]+ ms", done.output)) == 3
    ratios = re.findall(r"([\d.]+) \(([\d.]+) to ([\d.]+)\)", done.output)
    assert len(ratios) == 2
    for median, least, most in ratios:
        assert 0 < float(least) <= float(median) <= float(most)
