"""The launches of a series: which cells there are, and that one process is measured before and after all others."""

from __future__ import annotations

import pytest

from mfbench.measure.scaling.plan import VISITS, plan
from mfbench.problems.cases import Case
from mfbench.results import environment

CASE = Case(
    suite="s", m=100, n=20, rank=3, density=0.8, ratings_dtype="float32", mask="uint8", data="synthetic", seed=1
)


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "usable_cpus", lambda: 4)


def test_cells_are_strong_and_weak() -> None:
    found = plan(CASE, [4, 2], None)
    cells = [(cell.kind, cell.case.processes, cell.case.m, cell.threads) for cell in found.cells]
    assert cells == [
        (None, None, 100, 4),  # every core, no group
        (None, 1, 100, 1),  # measured though nobody asked for it
        ("strong", 2, 100, 1), ("weak", 2, 200, 1), ("strong", 4, 100, 1), ("weak", 4, 400, 1),
    ]  # fmt: skip


def test_one_process_is_launched_before_and_after_all_others() -> None:
    found = plan(CASE, [1, 2, 4], None)
    launches = list(found.launches())
    for turn, cells in enumerate(launches):
        assert (list(cells) == [found.one]) == (turn % 2 == 0)
        assert len({(cell.processes, cell.threads) for cell in cells}) == 1
    assert len(launches) == 2 * 3 * VISITS + 1
    assert launches[-1] == [found.one]


@pytest.mark.parametrize(
    ("counts", "threads", "each", "alone"),
    [([1, 2], None, 2, 4), ([1, 2], 1, 1, 2), ([1], None, 4, None), ([3], None, 1, 3), ([8], None, 1, 4)],
)
def test_threads_share_the_cores(counts: list[int], threads: int | None, each: int, alone: int | None) -> None:
    found = plan(CASE, counts, threads)
    assert found.one.threads == each
    assert (found.alone.threads if found.alone else None) == alone


def test_too_many_threads_are_noted(capsys: pytest.CaptureFixture[str]) -> None:
    plan(CASE, [1, 4], 2)
    assert "4 processes of 2 threads share 4 CPUs" in capsys.readouterr().err
    plan(CASE, [1, 4], 1)
    assert not capsys.readouterr().err


def test_a_data_set_cannot_grow() -> None:
    found = plan(CASE.model_copy(update={"data": "movielens"}), [2], None)
    assert [cell.kind for cells in found.several for cell in cells] == ["strong"]
