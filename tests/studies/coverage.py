"""Check interval coverage and the detection of throttled and cold samples on a simulated device.

    python -m tests.studies.coverage --timings 8000

Each timing runs the harness's pilot, placements, rounds and intervals. The simulated machine drifts by 30 %, has
correlated heavy-tailed noise, a coarse clock and launch latency, and speed depends on where the data lies.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import click
import numpy as np

from mfbench.measure.devices.base import Reading
from mfbench.measure.planning import Goal
from mfbench.measure.rounds import time_in_rounds
from mfbench.stats import intervals
from tests.mfbench.measure.devices.simulated import Machine, Nature, SimulatedDevice, timing_hooks

BASE_S, NEW_S = 0.9e-3, 0.6e-3


class Kind(NamedTuple):
    """A machine and what is known about it."""

    nature: Nature
    l2_known: bool = True
    step_waits: bool = False
    budget_s: float = 1.0


CALM = Nature()
BURSTS = {"noise": 0.05, "correlation": 0.2, "spikes": 0.06, "placement": 0.0}
KINDS = {
    "correlated": Kind(CALM),
    "independent": Kind(CALM._replace(correlation=0.0)),
    "placement matters": Kind(CALM._replace(placement=0.04)),
    # Neighbours on a shared machine: quartiles of the ratio 10 % apart, standard deviation 20 %, none of it between
    # placements. Short runs have medians of blocks, long ones a trimmed mean
    "bursts": Kind(CALM._replace(**BURSTS)),
    "bursts, long": Kind(CALM._replace(**BURSTS), budget_s=4.0),
    "placement matters, long": Kind(CALM._replace(placement=0.04), budget_s=4.0),
    "coarse clock": Kind(CALM._replace(tick_s=1e-4)),
    "throttled": Kind(CALM._replace(throttling=0.5)),
    "launches lag": Kind(CALM._replace(launch_s=2e-4)),
    "warm": Kind(CALM, l2_known=False),
    "steps that wait": Kind(CALM, step_waits=True),
}


class Seen(NamedTuple):
    """Counts over a number of timings."""

    timings: int
    covered: int
    half_width: float  # median of the ratios' intervals, relative
    throttled: int  # samples throttled in truth
    found: int  # of those, reported as throttled
    accused: int  # samples reported as throttled that were not
    samples: int
    labelled_cold: int
    falsely_cold: int
    gaps: int


def simulate(kind: Kind, count: int, first_seed: int) -> Seen:
    """Time a pair of providers `count` times, with seeds from `first_seed` on."""
    tally = dict.fromkeys(("throttled", "found", "accused", "samples", "labelled_cold", "falsely_cold", "gaps"), 0)
    covered, widths = 0, []
    for seed in range(first_seed, first_seed + count):
        machine = Machine(seed, kind.nature)
        devices = {
            name: SimulatedDevice(machine, seconds, kind.l2_known, kind.step_waits)
            for name, seconds in (("base", BASE_S), ("new", NEW_S))
        }

        def see(device: SimulatedDevice, reading: Reading, machine: Machine = machine) -> None:
            held_back = any(machine.episode(time) is not None for time in device.span)
            tally["throttled"] += held_back
            tally["found"] += held_back and reading.throttled
            tally["accused"] += reading.throttled and not held_back
            tally["samples"] += 1
            tally["labelled_cold"] += reading.cold
            tally["falsely_cold"] += reading.cold and not all(device.was_cold[1:])
            tally["gaps"] += reading.gaps

        timing = time_in_rounds(
            timing_hooks(machine, devices, see), "base", Goal(kind.budget_s), seed, {"base": BASE_S, "new": NEW_S}
        )  # fmt: skip
        ratio = intervals.ratio_interval(*(timing.providers[name].samples for name in ("base", "new")))
        cold_s = kind.nature.cold_s if kind.l2_known else 0.0
        covered += ratio.low <= (BASE_S + cold_s) / (NEW_S + cold_s) <= ratio.high
        widths.append((ratio.high - ratio.low) / 2 / ratio.estimate)
    return Seen(count, covered, float(np.median(widths)), **tally)


def lines(kinds: dict[str, Seen]) -> Iterator[str]:
    for name, seen in kinds.items():
        yield (
            f"{name:23} covered {seen.covered:4} of {seen.timings} ({seen.covered / seen.timings:.1%}), "
            f"half width {seen.half_width:.2%}; throttled found {seen.found} of {seen.throttled}, "
            f"falsely {seen.accused} of {seen.samples}; cold {seen.labelled_cold}, falsely {seen.falsely_cold}; "
            f"with gaps {seen.gaps}"
        )


@click.command(help=__doc__)
@click.option("--timings", type=click.IntRange(min=1), default=8000, show_default=True, help="Over all kinds.")
@click.option("--seed", default=1, show_default=True)
def main(timings: int, seed: int) -> None:
    each = max(1, timings // len(KINDS))
    found = {}
    for place, (name, kind) in enumerate(KINDS.items()):
        found[name] = simulate(kind, each, seed + place * each)
        click.echo(next(lines({name: found[name]})))
    covered, count = (sum(getattr(seen, field) for seen in found.values()) for field in ("covered", "timings"))
    throttled, caught = (sum(getattr(seen, field) for seen in found.values()) for field in ("throttled", "found"))
    click.echo(f"\ncovered {covered} of {count}: {covered / count:.1%}")
    click.echo(f"throttled samples found: {caught} of {throttled}: {caught / max(1, throttled):.2%}")
    click.echo(f"called cold and were not: {sum(seen.falsely_cold for seen in found.values())}")


if __name__ == "__main__":
    main()
