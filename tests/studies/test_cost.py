"""`cost`: every second of a run is counted once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.mfbench.cli_runner import tiny_suite
from tests.studies import cost

pytestmark = pytest.mark.studies


def test_all_the_time_of_a_run_is_accounted_for(tmp_path: Path) -> None:
    options = ["--suite", str(tiny_suite(tmp_path)), "--budget", "0.2", "--threads", "1"]
    done = CliRunner().invoke(cost.main, options, catch_exceptions=False)
    assert done.exit_code == 0
    spent = {name.strip(): float(seconds) for name, seconds in re.findall(r"^(\D+?)\s+([\d.]+) s\b", done.output, re.M)}
    altogether = spent.pop("altogether")
    assert spent["evaluations, timed"] > 0
    assert sum(seconds for name, seconds in spent.items() if "outside" not in name) == pytest.approx(
        altogether, abs=0.2
    )
