"""Samples packed for the page."""

from __future__ import annotations

import base64

import numpy as np

from mfbench.report.samples import pack


def test_samples_are_packed_within_a_65535th_of_their_range() -> None:
    values = np.random.default_rng(1).uniform(1e-3, 2e-3, 1000)
    packed = pack(values)
    steps = np.frombuffer(base64.b64decode(packed["q"]), "<u2")
    found = packed["lo"] + steps / 65535 * (packed["hi"] - packed["lo"])
    assert np.abs(found - values).max() <= (packed["hi"] - packed["lo"]) / 65535
