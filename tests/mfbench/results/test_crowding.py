"""The factor that other programs may have caused, against threads that take turns on cores."""

from __future__ import annotations

import itertools
import math

import pytest

from mfbench.results.crowding import MOST_SHARING, Crowding, crowding, worst

ENV = {"cpus": 2, "threads": 1}


def shares(cores: int, threads: int, rivals: int) -> tuple[float, float]:
    """Return the least and the most programs on a core of one of the threads, when queues are balanced."""
    queues = [0] * cores
    for _ in range(threads + rivals):
        queues[queues.index(min(queues))] += 1
    return min(queues), max(queues)


@pytest.mark.parametrize(("cores", "threads", "rivals"), list(itertools.product((2, 4, 16), (1, 2, 4), (1, 2, 3, 8))))
def test_it_bounds_what_balanced_queues_do_to_one_side(cores: int, threads: int, rivals: int) -> None:
    threads = min(threads, cores)
    foreign = cores * rivals / max(cores, rivals + threads)  # fair shares
    slowdown = Crowding(cores, threads, foreign).slowdown
    fewest, most = shares(cores, threads, rivals)
    assert slowdown >= max(most, 2) / max(fewest, 1)
    assert math.isfinite(slowdown) == (threads / (cores - foreign) <= MOST_SHARING)


def test_with_cores_to_spare_one_side_may_have_shared_its_cores_with_one_program() -> None:
    assert Crowding(64, 8, 20.0).slowdown == Crowding(2, 1, 0.3).slowdown == 2


@pytest.mark.parametrize("foreign", [1.6, 1.9, 2.0, 2.3, None])
def test_nothing_bounds_it_where_other_programs_took_nearly_all(foreign: float | None) -> None:
    found = Crowding(2, 1, foreign)
    assert found.slowdown == math.inf
    assert "so nothing is a verdict" in str(found) or foreign is None


def test_more_of_the_cores_taken_never_means_a_smaller_factor() -> None:
    factors = [Crowding(2, 1, taken / 100).slowdown for taken in range(210)]
    assert factors == sorted(factors)
    assert worst(None, Crowding(2, 1, 1.2), Crowding(2, 1, 0.5)) == Crowding(2, 1, 1.2)
    assert worst(None) is None


def test_it_counts_only_where_half_of_the_rounds_were_disturbed() -> None:
    assert crowding(20, 9, 1.0, ENV) is None
    assert crowding(20, None, None, ENV) is None
    assert crowding(20, 10, 0.9, ENV) == Crowding(2, 1, 1.8)  # all of it in the ten that were disturbed
    assert crowding(20, 20, None, ENV).slowdown == math.inf
    assert crowding(20, 20, 0.5, {"cpus": 2}).slowdown == math.inf
