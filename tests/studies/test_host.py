"""`host`: both checkouts are timed in turn, and their ratio is reported."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.studies import host

pytestmark = pytest.mark.studies


def test_a_checkout_against_itself() -> None:
    root = Path(__file__).parents[2]
    done = CliRunner().invoke(host.main, ["--against", str(root), "--rounds", "9"], catch_exceptions=False)
    assert done.exit_code == 0
    assert [float(us) > 0 for us in re.findall(r"median ([\d.]+) us", done.output)] == [True, True]
    ratio = re.search(r"here / there: median ([\d.]+)", done.output)
    assert ratio
    assert 0.2 < float(ratio[1]) < 5
