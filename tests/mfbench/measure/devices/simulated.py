"""A simulated machine whose truth is known, and its devices: what timing sees of a real one, and how wrong it may go.

Time is virtual. A host launches kernels one after another, a device works through them; it drifts, jitters with
correlated noise of heavy tails, is throttled now and then, keeps what it read in a cache, and has a coarse clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from mfbench.measure.devices.base import NO_HOOKS, Clocks, Hooks, Reading, Step
from mfbench.measure.devices.stream import StreamSampler
from mfbench.measure.rounds import Sampler, TimingHooks

BOOST_MHZ = 1980.0


class Nature(NamedTuple):
    """What the machine does to the times; 0 is never or not at all."""

    noise: float = 0.01
    correlation: float = 0.5  # of a provider's neighbouring samples
    spikes: float = 0.03  # of the samples, which take up to three times as long
    drift: float = 0.3
    placement: float = 0.01  # standard deviation of what the data's place in memory is worth
    throttling: float = 0.0  # episodes a second
    launch_s: float = 5e-6
    kernels: int = 4  # a step
    cold_s: float = 40e-6  # what a step takes longer where the cache is empty
    tick_s: float = 1e-6


class Machine:
    """The time, and everything that devices share."""

    def __init__(self, seed: int, nature: Nature) -> None:
        self.rng, self.nature = np.random.default_rng(seed), nature
        self.now = 0.0
        self._phase = self.rng.uniform(0, 2 * np.pi)
        self._episodes: list[tuple[float, float, bool]] = []  # start, end, whether the driver names it
        self._drawn_until = 0.0

    def slowness(self, time: float) -> float:
        """At a time, from drift and throttling."""
        held_back = 1 / 0.7 if self.episode(time) else 1.0
        return held_back * (1 + self.nature.drift * np.sin(time / 7 + self._phase))

    def episode(self, time: float) -> tuple[float, float, bool] | None:
        """The episode of throttling at that time."""
        if not self.nature.throttling:
            return None
        while self._drawn_until <= time:
            start = self._drawn_until + self.rng.exponential(1 / self.nature.throttling)
            self._drawn_until = start + self.rng.uniform(0.05, 1.0)
            self._episodes.append((start, self._drawn_until, bool(self.rng.integers(2))))
        return next((episode for episode in reversed(self._episodes) if episode[0] <= time < episode[1]), None)


class SimulatedDevice:
    """One provider's; implements `Device` and `Queue`, and notes the truth of its last sample."""

    def __init__(self, machine: Machine, seconds: float, l2_known: bool = True, step_waits: bool = False) -> None:
        self.machine, self.seconds, self.l2_known, self.step_waits = machine, seconds, l2_known, step_waits
        self.free = 0.0  # when the device is done with what it was given
        self._log_noise = 0.0
        self._placement = 0.0
        self._cached = False
        self._factor = 1.0
        self._sampler = StreamSampler(self)
        self.was_cold: list[bool] = []  # of each step since the sample began, the first is not timed
        self.span = (0.0, 0.0)

    def place(self) -> None:
        self._placement = self.machine.rng.normal(0, self.machine.nature.placement)

    def step(self) -> None:
        nature = self.machine.nature
        self.was_cold.append(not self._cached)
        seconds = self.seconds + (0.0 if self._cached else nature.cold_s)
        for _ in range(nature.kernels):
            self._enqueue(seconds / nature.kernels * self._factor * self.machine.slowness(self.machine.now))
        self._cached = True
        if self.step_waits:
            self.synchronize()

    def sample(self, steps: Sequence[Step], loops: int, hooks: Hooks = NO_HOOKS) -> tuple[Reading, Any]:
        self._factor = np.exp(self._jitter() + self._placement)
        self.was_cold, start = [], self.machine.now
        reading, outputs = self._sampler.sample(steps, loops, hooks)
        self.span = start, self.machine.now
        return reading, outputs

    def synchronize(self) -> None:
        self.machine.now = max(self.machine.now, self.free)

    def clear_cache(self) -> bool:
        if not self.l2_known:
            return False
        self._enqueue(30e-6)
        self._cached = False
        return True

    def clocks(self) -> Clocks:
        episode = self.machine.episode(self.machine.now)
        if episode is None:
            return Clocks(BOOST_MHZ * self.machine.rng.uniform(0.97, 1.0))
        return Clocks(0.7 * BOOST_MHZ, limited=episode[2])

    def rotation(self, input_bytes: int) -> int:
        return 1

    def mark(self) -> float:
        tick = self.machine.nature.tick_s
        return np.floor(max(self.free, self.machine.now) / tick) * tick

    def between(self, start: float, end: float) -> float:
        return end - start

    def block(self, seconds: float) -> float:
        self._enqueue(seconds)
        return self.free

    def passed(self, mark: float) -> bool:
        return mark <= self.machine.now

    def _enqueue(self, seconds: float) -> None:
        self.machine.now += self.machine.nature.launch_s
        self.free = max(self.free, self.machine.now) + seconds

    def _jitter(self) -> float:
        """AR(1) with shocks of Student's t with 3 degrees of freedom, and spikes beside."""
        nature, rng = self.machine.nature, self.machine.rng
        shock = rng.standard_t(3) / 1.7 * np.sqrt(1 - nature.correlation**2)
        self._log_noise = nature.correlation * self._log_noise + nature.noise * shock
        spike = np.log(rng.uniform(1, 3)) if rng.random() < nature.spikes else 0.0
        return self._log_noise + spike


def timing_hooks(
    machine: Machine,
    devices: dict[str, SimulatedDevice],
    see: Callable[[SimulatedDevice, Reading], None] = lambda *_: None,
    background_cores: Callable[[], float] = lambda: 0.0,
) -> TimingHooks:
    """Timing's view of the devices; `see` is shown every reading, and other programs take `background_cores`."""

    def sampler(device: SimulatedDevice) -> Sampler:
        def sample(loops: int, core: int | None = None) -> Reading:
            reading, _ = device.sample([device.step], loops)
            see(device, reading)
            return reading

        return sample

    def place() -> None:
        for device in devices.values():
            device.place()

    samplers = {name: sampler(device) for name, device in devices.items()}
    return TimingHooks(samplers, place, background_cores, lambda: machine.now)
