"""The memory of a case: the sum covers what is held, and a case that does not fit is skipped with the sum."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

import pytest

from mfbench.measure import footprint as module
from mfbench.measure.footprint import footprint, obstacle
from mfbench.problems.cases import Case
from mfbench.problems.shared import REMAPPED

GIB = 1 << 30

PEAK = """
import re, sys
from pathlib import Path
from mfbench.correctness import gate
from mfbench.problems.cases import Case
from mfbench.problems.inputs import draw

def resident(field):
    return int(re.search(rf"{field}:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

gate.standard(draw(Case.model_validate_json(sys.argv[1]).model_copy(update={"m": 64, "n": 64})))  # loads libraries
before = resident("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM
gate.standard(draw(Case.model_validate_json(sys.argv[1])))
print(resident("VmHWM") - before)
"""


def case(**changes: Any) -> Case:
    values = {"suite": "t", "m": 2000, "n": 3000, "rank": 4, "density": 0.5, "ratings_dtype": "float32",
              "mask": "uint8", "data": "synthetic", "seed": 1}  # fmt: skip
    return Case.model_validate(values | changes)


def set_free(monkeypatch: pytest.MonkeyPatch, size: float) -> None:
    monkeypatch.setattr(module, "free_memory", lambda: size)


@pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark of resident memory is Linux's")
@pytest.mark.parametrize(
    "changes",
    [
        {},
        *(
            pytest.param(changes, marks=pytest.mark.slow)
            for changes in (
                {"mask": "none"},
                {"mask": "float32"},
                {"data": "seed", "mask": "int32", "ratings_dtype": "float64"},
                {"data": "power-law", "layout": "sparse", "mask": "none", "rank": 30, "density": 0.05},
                {"data": "synthetic", "layout": "sparse", "mask": "none"},
            )
        ),
    ],
    ids=str,
)
def test_the_harness_stays_near_the_sum(changes: dict[str, Any]) -> None:
    measured = case(m=4000, n=5000, **changes)
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}  # the C library gives freed blocks back at once
    done = subprocess.run(
        [sys.executable, "-c", PEAK, measured.model_dump_json()], env=environment, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    total = footprint(measured, 0, "cpu").total
    assert total / 3 < int(done.stdout) < total


def test_every_worker_on_a_cpu_holds_the_inputs() -> None:
    alone, three = footprint(case(), 0, "cpu"), footprint(case(), 3, "cpu")
    assert alone.inputs == 2000 * 3000 * (4 + 1)
    assert three.inputs == 4 * alone.inputs
    assert footprint(case(), 3, "cuda").inputs == alone.inputs
    assert three.parameters > alone.parameters


def test_large_inputs_dominate_and_the_blocks_of_the_gate_do_not_grow() -> None:
    large = footprint(case(m=69878, n=10677, rank=30), 2, "cpu")
    matrix = 69878 * 10677 * 5
    assert large.inputs == matrix + 2 * REMAPPED  # all processes map one copy
    assert large.preparing == matrix + matrix // 5  # as drawn, before it is in the file, and a block's mask
    assert large.total < 2.4 * matrix


def test_sparse_ratings_need_nothing_of_the_size_of_the_matrix() -> None:
    shape = {"m": 162541, "n": 59047, "rank": 30, "density": 25e6 / (162541 * 59047), "data": "power-law"}
    sparse, dense = (footprint(case(layout=layout, **shape), 3, "cpu") for layout in ("sparse", "dense"))
    assert sparse.inputs < 25e6 * 8 + 8 * 162542 + 6 * REMAPPED
    assert sparse.total < 4 * GIB < dense.inputs


def test_what_does_not_fit_is_said_with_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    large = case(m=69878, n=10677, rank=30)
    set_free(monkeypatch, 5 * GIB)
    reason = obstacle(large, 2, "cpu")
    assert reason is not None
    total, *parts, free = (float(number) for number in re.findall(r"([\d.]+) GB", reason))
    assert total == pytest.approx(footprint(large, 2, "cpu").total / 1e9, abs=0.051)
    assert sum(parts) == pytest.approx(total, abs=0.2)
    assert free == pytest.approx(0.95 * 5 * GIB / 1e9, abs=0.051)
    assert "of 3 processes" in reason


def test_the_limit_is_what_is_free_less_the_headroom(monkeypatch: pytest.MonkeyPatch) -> None:
    total = footprint(case(), 2, "cpu").total
    set_free(monkeypatch, total / (1 - module.HEADROOM) + 1000)
    assert obstacle(case(), 2, "cpu") is None
    set_free(monkeypatch, total / (1 - module.HEADROOM) - 1000)
    assert obstacle(case(), 2, "cpu") is not None


def test_a_small_case_fits_into_this_machine() -> None:
    assert obstacle(case(m=50, n=40), 5, "cpu") is None


NETFLIX = {"m": 480189, "n": 17770, "rank": 30, "density": 0.0118}
ML_10M = {"m": 69878, "n": 10677, "rank": 30, "density": 0.0134}
ML_25M = {"m": 162541, "n": 59047, "rank": 30, "density": 0.0026}


@pytest.mark.parametrize(
    ("shape", "layout", "free_gb", "fits"),
    [
        (ML_10M, "dense", 24, True),
        (ML_10M, "dense", 12, True),
        (ML_10M, "dense", 6, False),
        (ML_10M, "sparse", 6, True),
        (ML_25M, "dense", 24, False),
        (ML_25M, "sparse", 12, True),
        (NETFLIX, "dense", 24, False),
        (NETFLIX, "sparse", 24, True),
        (NETFLIX, "sparse", 4, False),
    ],
)
def test_real_shapes_on_machines_of_some_sizes(monkeypatch, shape, layout: str, free_gb: int, fits: bool) -> None:
    """Of two providers and the harness together."""
    mask = "none" if layout == "sparse" else "uint8"
    measured = case(**shape, layout=layout, data="power-law", mask=mask)
    set_free(monkeypatch, free_gb * 10**9)
    reason = obstacle(measured, 2, "cpu")
    assert (reason is None) == fits
    if reason is not None:
        total, *_, free = (float(number) for number in re.findall(r"([\d.]+) GB", reason))
        assert total > free == pytest.approx(0.95 * free_gb, abs=0.051)
