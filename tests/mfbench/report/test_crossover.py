"""The crossover of the layouts: found where the times cross, drawn where both were measured."""

from __future__ import annotations

import pytest

from mfbench.measure.recording import Origin
from mfbench.problems.cases import Case
from mfbench.report.crossover import applies, crossover, density
from mfbench.report.style import drawn
from mfbench.results.records import Record, Timing

DENSITIES = (0.01, 0.1, 0.5, 1.0)


def timed(layout: str, at: float, median: float, provider: str = "fused", rank: int = 8) -> Record:
    case = Case(suite="density", m=64, n=64, rank=rank, density=at, layout=layout, ratings_dtype="float32",
                mask="none" if layout == "sparse" else "uint8", data="synthetic", seed=1)  # fmt: skip
    timing = Timing(samples_s=[median], median_s=median, ci95_s=(None, None), rounds=1, loops=1, method="",
                    cold_cache=False)  # fmt: skip
    return Origin("r", case, "cpu").success(provider, timing=timing)


def sweep() -> list[Record]:
    """A sparse step takes a time proportional to the density, and as long as the dense one at a half."""
    found = [timed("dense", at, 1e-3) for at in DENSITIES] + [timed("dense", at, 5e-3, "autograd") for at in DENSITIES]
    return found + [timed("sparse", at, 2e-3 * at) for at in DENSITIES]


def test_the_crossover_is_interpolated() -> None:
    dense = dict.fromkeys((0.1, 0.4, 0.9), 1.0)
    assert crossover(dense, {at: 5 * at for at in dense}) == pytest.approx(0.2)
    assert crossover(dense, {at: at for at in dense}) is None
    assert crossover(dense, {at: 50 * at for at in dense}) is None
    assert crossover(dense, {}) is None


def test_the_figure_has_a_line_for_each_provider_and_layout() -> None:
    numbers = {"fused": 0, "autograd": 1}
    plot = density(sweep(), numbers)
    assert "64×64, rank 8, float32. The fastest providers of both layouts take equally long at 50% observed." in (
        plot.caption
    )
    assert plot.draw is not None
    (axes,) = drawn(plot.draw).axes
    labels = axes.get_legend_handles_labels()[1]
    assert labels == ["fused, dense", "fused, sparse", "autograd, dense", "crossover: 50%"]


def test_it_needs_both_layouts_at_two_densities() -> None:
    assert applies(sweep())
    assert not applies([record for record in sweep() if record.case.layout == "dense"])
    assert not applies([timed("dense", 0.1, 1.0), timed("sparse", 0.1, 1.0), timed("sparse", 0.2, 1.0)])
    assert not applies(
        [timed("dense", at, 1.0) for at in DENSITIES] + [timed("sparse", at, 1.0, rank=9) for at in DENSITIES]
    )
