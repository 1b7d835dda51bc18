"""`cpu_phases`: the phases of a step add up to its time, and products take no less than their bound."""

from __future__ import annotations

import re

import pytest
import torch
from click.testing import CliRunner

from kernels import backends
from tests.studies import cpu_phases

pytestmark = [
    pytest.mark.studies,
    pytest.mark.skipif(not backends()["native"].available, reason=backends()["native"].reason or "there is a kernel"),
]
EXACT = 0.5  # of a step's time; other load disturbs bounds and times alike


def test_the_time_of_a_step_is_accounted_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    threads = torch.get_num_threads()
    options = ["--size", "700x600", "--rank", "24", "--ratings", "bfloat16", "--rounds", "3"]
    done = CliRunner().invoke(cpu_phases.main, options, catch_exceptions=False)
    assert done.exit_code == 0
    assert torch.get_num_threads() == threads
    row = r"│ (\w[\w: ]*?) +│ +([\d.]+) us +│ +([\d.]+)% +│ +(?:([\d.]+) us +)?│"
    found = re.findall(row, done.output)
    phases = {name: (float(time), float(share), float(bound or 0)) for name, time, share, bound in found}
    in_registers = {"errors"} - set(phases)  # which then belong to the predictions
    expected = {*cpu_phases.PHASES, "rest", "Python", "waking: spinning", "waking: asleep"} - in_registers
    assert set(phases) == expected
    assert phases["decoding"][0] > 0
    assert sum(share for name, (_, share, _) in phases.items() if "waking" not in name) == pytest.approx(100, abs=1)
    for product in ("predictions", "dP", "dQ"):
        time, _, bound = phases[product]
        assert 0 < bound < time * (1 + EXACT)
