"""The worker moves its inputs: the values stay, the places change, the parameters are those of the draw."""

from __future__ import annotations

import errno

import pytest
import torch

from mfbench.correctness.audit.probe import Challenge
from mfbench.correctness.audit.projection import new_bits
from mfbench.measure.worker import main
from mfbench.measure.worker.main import Worker
from mfbench.problems.cases import Case
from mfbench.problems.inputs import Inputs, draw, moved, redraw_parameters
from mfbench.problems.shared import Location, SharedInputs
from mfbench.providers import registry
from mfbench.providers.graphs import NeedsGpu


def case(**changes) -> Case:
    fields = {"suite": "t", "m": 67, "n": 41, "rank": 5, "density": 0.5, "ratings_dtype": "float32", "mask": "uint8",
              "data": "synthetic", "seed": 1}  # fmt: skip
    return Case(**(fields | changes))


SHARED = SharedInputs(draw(case()))


def pointers(inputs: Inputs) -> list[int]:
    return [value.data_ptr() for value in inputs if isinstance(value, torch.Tensor)]


@pytest.mark.parametrize("ratings_dtype", ["float64", "float32", "bfloat16", "float16", "uint8", "int8"])
@pytest.mark.parametrize("mask", ["bool", "uint8", "int64", "float32"])
def test_moved_inputs_are_the_same_elsewhere(ratings_dtype: str, mask: str) -> None:
    inputs = draw(case(ratings_dtype=ratings_dtype, mask=mask))
    copy = moved(inputs)
    assert not set(pointers(inputs)) & set(pointers(copy))
    for old, new in zip(inputs[:7], copy[:7], strict=True):
        assert (new.dtype, new.shape, new.stride()) == (old.dtype, old.shape, old.stride())
        assert torch.equal(old, new)
        assert new.data_ptr() % 64 == 0
    copy.ratings.zero_()
    assert inputs.ratings.count_nonzero() > 0


@pytest.mark.parametrize("size", [{"m": 0}, {"rank": 0}, {"mask": "none"}])
def test_empty_inputs_and_ones_without_a_mask_are_moved_too(size) -> None:
    inputs = draw(case(**size))
    copy = moved(inputs)
    assert [value.shape for value in copy[:6]] == [value.shape for value in inputs[:6]]
    assert (copy.mask is None) == (inputs.mask is None)


def test_offsets_within_a_page_differ() -> None:
    inputs = draw(case())
    assert len({moved(inputs).ratings.data_ptr() % 4096 for _ in range(20)}) > 5


def test_a_placement_moves_and_redraws_and_the_step_follows() -> None:
    one = Worker("closed-form", "cpu", 1)
    one.prepare(SHARED.location)
    before = pointers(one._prepared())
    one.place(case(), 77)
    inputs = one._prepared()
    assert not set(before) & set(pointers(inputs))
    for name, values in redraw_parameters(case(), 77).items():
        assert torch.equal(getattr(inputs, name), values)
    expected = Worker("autograd", "cpu", 1)
    expected.prepare(SHARED.location)
    expected.place(case(), 77)
    observed = []
    for each in (one, expected):
        reading, (seen,) = each.sample(2, None, Challenge([0.1, 0.2], frozenset([1])))
        assert reading.seconds > 0
        assert seen.turn == 1
        observed.append(seen)
    assert observed[0] == pytest.approx(observed[1], rel=1e-3)
    bits = new_bits()
    assert one.project(bits) == pytest.approx(expected.project(bits), rel=1e-3)


def test_where_memory_has_no_room_for_a_copy_the_inputs_stay(monkeypatch) -> None:
    one = Worker("closed-form", "cpu", 1)
    one.prepare(SHARED.location)
    before = pointers(one._prepared())

    def fail(location: Location, inputs: Inputs) -> Inputs:
        raise OSError(errno.ENOMEM, "no memory")

    monkeypatch.setattr(main.shared, "moved", fail)
    one.place(case(), 5)
    assert pointers(one._prepared()) == before
    assert one.sample(1)[0].seconds > 0


WRITERS = """
from reference import autograd_loss_and_grads

def writes_a_rating(*arguments):
    arguments[5][0, 0] += 1
    return autograd_loss_and_grads(*arguments)

def writes_an_unobserved_rating(*arguments):
    arguments[5][arguments[6] == 0] = 9
    return autograd_loss_and_grads(*arguments)

def writes_the_mask(*arguments):
    outputs = autograd_loss_and_grads(*arguments)
    arguments[6][arguments[6] != 0] = 2
    return outputs

def honest(*arguments):
    return autograd_loss_and_grads(*arguments)
"""


@pytest.mark.parametrize(
    ("function", "found"),
    [
        ("writes_a_rating", "changed its input ratings"),
        ("writes_an_unobserved_rating", "changed its input ratings"),
        ("writes_the_mask", "changed its input mask"),
        ("honest", None),
    ],
)
def test_the_matrix_made_of_sparse_ratings_is_watched(tmp_path, function: str, found: str | None) -> None:
    """A user's function that does not take sparse ratings is given a copy of them."""
    (tmp_path / "own.py").write_text(WRITERS)
    sparse = case(layout="sparse", mask="none")
    location = (shared := SharedInputs(draw(sparse))).location
    one = Worker(f"{tmp_path}/own.py:{function}", "cpu", 1)
    expected = [] if found is None else [found]
    assert [flaw.message for flaw in one.prepare(location).evaluated.flaws] == expected
    one.place(sparse, 7)
    after = one.evaluate_redrawn(sparse, 8)  # on another copy
    assert [flaw.message for flaw in after.flaws] == expected
    assert shared.inputs.sparse


@pytest.mark.parametrize("name", registry.GRAPHS)
def test_a_provider_that_needs_a_gpu_is_skipped(name: str) -> None:
    with pytest.raises(NeedsGpu) as raised:
        Worker(name, "cpu", 1).prepare(SHARED.location)
    code, (reason,) = main._failure(raised.value)
    assert (code.status, code, reason) == ("skipped", "needs-gpu", "a CUDA graph needs tensors on a GPU, got cpu")
