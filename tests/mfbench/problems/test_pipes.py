"""Pipes have a name, not the number of a file descriptor, in records and messages; and each is read once."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from mfbench.errors import UsageError
from mfbench.problems import datasets
from mfbench.problems.cases import CaseSpec
from mfbench.problems.inputs import draw, resolve
from mfbench.problems.pipes import shown

needs_descriptors = pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="no /dev/fd")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/dev/fd/63", "<pipe>"),
        ("/proc/self/fd/11", "<pipe>"),
        ("/proc/1234/fd/11", "<pipe>"),
        ("/dev/fd/63#columns=user,item,rating#format=libmf", "<pipe>#columns=user,item,rating#format=libmf"),
        ("/dev/stdin", "<stdin>"),
        ("/dev/fd/0", "<stdin>"),
        ("/dev/stdin#format=libmf", "<stdin>#format=libmf"),
        ("/dev/fd/63/ratings.csv", "/dev/fd/63/ratings.csv"),
        ("dev/fd/63", "dev/fd/63"),
        ("/dev/stdin.csv", "/dev/stdin.csv"),
        ("63", "63"),
    ],
)
def test_only_open_files_are_renamed(path: str, name: str) -> None:
    assert shown(path) == name


@pytest.fixture
def pipes() -> Iterator[list[str]]:
    """The paths of two pipes with two ratings each."""
    datasets.forget()
    paths, ends = [], []
    for content in (b"1,1,5\n2,2,3\n", b"1,1,1\n1,2,2\n"):
        source, sink = os.pipe()
        with open(sink, "wb") as stream:
            stream.write(content)
        paths.append(f"/dev/fd/{source}")
        ends.append(source)
    yield paths
    for end in ends:
        os.close(end)
    datasets.forget()


def spec(data: str) -> CaseSpec:
    return CaseSpec(suite="quick", size=None, rank=3, density=None, ratings_dtype="float32", mask="uint8", data=data,
                    seed=1)  # fmt: skip


@needs_descriptors
def test_a_case_of_a_pipe_is_named_and_drawn_more_than_once(pipes: list[str]) -> None:
    asked = spec(pipes[0])
    case = resolve(asked)
    assert (case.data, case.m, case.n) == ("<pipe>", 2, 2)
    assert case.label.startswith("<pipe> 2×2 rank 3")
    assert asked.label == "<pipe> rank 3"
    assert asked.leads_to(case)
    for _ in range(2):
        ratings = draw(case).ratings
        assert ratings.diagonal().tolist() == [5.0, 3.0]
    assert datasets.load(pipes[0]).name == "<pipe>"


@needs_descriptors
def test_two_pipes_are_never_taken_for_each_other(pipes: list[str]) -> None:
    resolve(spec(pipes[0]))
    with pytest.raises(UsageError, match=rf"expected one pipe, got {pipes[0]} and {pipes[1]}"):
        resolve(spec(pipes[1]))
    datasets.forget()
    assert datasets.load(pipes[1]).matrix.values().tolist() == [1.0, 2.0]


@needs_descriptors
def test_messages_name_the_pipe() -> None:
    source, sink = os.pipe()
    threading.Thread(target=lambda: os.fdopen(sink, "wb").close()).start()
    with pytest.raises(UsageError) as raised:
        datasets.load(f"/dev/fd/{source}")
    os.close(source)
    datasets.forget()
    assert "<pipe>: " in raised.value.message
    assert "/dev/fd" not in raised.value.message


def test_a_file_that_changed_between_two_runs_is_read_again(tmp_path, monkeypatch) -> None:
    """The ratings of a run or of a training are read at its beginning, in a notebook, too."""
    from mfbench.train.options import TrainOptions
    from mfbench.train.task import make_task

    path = tmp_path / "r.csv"
    for rating in (5.0, 2.0):
        path.write_text("".join(f"{user},{item},{rating}\n" for user in range(4) for item in range(5)))
        task = make_task(TrainOptions(data=str(path), device="cpu", rank=2))
        assert float(task.inputs.global_bias) == rating
