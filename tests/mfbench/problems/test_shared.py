"""Inputs in a file: every process sees the same pages, and nobody can change what others see."""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
from pathlib import Path

import pytest
import torch

from mfbench.problems import shared as module
from mfbench.problems.cases import Case
from mfbench.problems.inputs import Inputs, draw, fingerprints
from mfbench.problems.matrices import parts
from mfbench.problems.shared import SharedInputs, mapped, moved

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's process file system")
CASES = {
    "dense": {"layout": "dense", "mask": "bool"},
    "without a mask": {"layout": "dense", "mask": "none", "ratings_dtype": "bfloat16"},
    "sparse": {"layout": "sparse", "mask": "none"},
    "sparse codes": {"layout": "sparse", "mask": "none", "ratings_dtype": "uint8"},
    "no users": {"layout": "sparse", "mask": "none", "m": 0},
    "no rank": {"layout": "dense", "mask": "uint8", "rank": 0},
}


def drawn(name: str = "sparse") -> Inputs:
    values = {"suite": "t", "m": 67, "n": 41, "rank": 5, "density": 0.3, "ratings_dtype": "float32",
              "data": "synthetic", "seed": 1}  # fmt: skip
    return draw(Case.model_validate(values | CASES[name]))


def tensors(inputs: Inputs) -> list[torch.Tensor]:
    return [part for value in inputs if isinstance(value, torch.Tensor) for part in parts(value)]


def assert_same(got: Inputs, expected: Inputs) -> None:
    assert got.reg == expected.reg
    assert (got.mask is None) == (expected.mask is None)
    assert got.ratings.shape == expected.ratings.shape
    for part, other in zip(tensors(got), tensors(expected), strict=True):
        assert part.dtype == other.dtype
        assert part.shape == other.shape
        assert torch.equal(part.nan_to_num(7), other.nan_to_num(7))
        assert part.data_ptr() % 64 == 0


@pytest.mark.parametrize("name", CASES)
def test_every_mapping_holds_the_same_and_keeps_what_is_written_to_it(name: str) -> None:
    inputs = drawn(name)
    shared = SharedInputs(inputs)
    one, other = mapped(shared.location), mapped(shared.location)
    for found in (shared.inputs, one, other):
        assert_same(found, inputs)
    before = fingerprints(other)
    for part in tensors(one):
        part.fill_(1)
    assert fingerprints(other) == before == fingerprints(shared.inputs)
    assert_same(mapped(shared.location), inputs)


def _sum(location: module.Location, answers: multiprocessing.SimpleQueue) -> None:
    inputs = mapped(location)
    before = [float(part.double().sum()) for part in tensors(inputs)]
    inputs.ratings.values().zero_()
    try:
        with open(location.path, "r+b") as file:
            file.write(b"x" * 64)
        written = True
    except OSError:
        written = False
    answers.put((before, written))


@linux
def test_another_process_maps_them_and_cannot_write_to_the_file() -> None:
    inputs = drawn()
    shared = SharedInputs(inputs)
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    process = context.Process(target=_sum, args=[shared.location, answers])
    process.start()
    found, written = answers.get()
    process.join()
    assert found == [float(part.double().sum()) for part in tensors(inputs)]
    assert not written
    assert_same(shared.inputs, inputs)


@pytest.mark.parametrize("remapped", [0, 1 << 12, 1 << 30])
def test_moved_inputs_lie_elsewhere(monkeypatch: pytest.MonkeyPatch, remapped: int) -> None:
    monkeypatch.setattr(module, "REMAPPED", remapped)
    shared = SharedInputs(drawn())
    now = shared.inputs
    now.global_bias.fill_(4.0)
    new = moved(shared.location, now)
    assert not {part.data_ptr() for part in tensors(now)} & {part.data_ptr() for part in tensors(new)}
    for name in ("ratings", "user_factors"):
        for part, other in zip(parts(getattr(new, name)), parts(getattr(now, name)), strict=True):
            assert torch.equal(part, other)
    if remapped > 4:  # a small tensor is copied as it is, a large one is as it was drawn
        assert float(new.global_bias) == 4.0


@linux
def test_large_inputs_share_their_pages() -> None:
    def own_bytes() -> int:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous:"))

    ratings = torch.ones(module.REMAPPED // 4 + 1)
    small = drawn("dense")
    shared = SharedInputs(small._replace(ratings=ratings.reshape(1, -1)))
    del ratings
    before = own_bytes()
    for inputs in (mapped(shared.location), moved(shared.location, shared.inputs)):
        assert int(inputs.ratings.count_nonzero()) == module.REMAPPED // 4 + 1
        assert own_bytes() - before < module.REMAPPED // 4


@linux
def test_the_file_goes_with_the_object() -> None:
    shared = SharedInputs(drawn())
    path = shared.location.path
    assert os.path.exists(path)
    del shared
    gc.collect()
    assert not os.path.exists(path) or "mfbench-inputs" not in os.readlink(path)


def test_a_system_without_memory_files_has_a_temporary_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    inputs = drawn()
    shared = SharedInputs(inputs)
    assert_same(mapped(shared.location), inputs)
    path = Path(shared.location.path)
    assert path.exists()
    del shared
    gc.collect()
    assert not path.exists()
