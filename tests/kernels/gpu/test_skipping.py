"""The GPU kernel skips tiles without an observed entry, and nothing else."""

import dataclasses

import numpy as np
import pytest
import torch

from kernels import encode_ratings, mf_loss_and_grads, mf_sse
from kernels.encoded import observations_of
from kernels.gpu import config, interpret
from kernels.problem import OCCUPIED_BLOCK, Observations, check_problem
from reference import oracle_loss_and_grads
from tests.problems import draw_inputs

pytest.importorskip("triton", reason="Triton is not installed")
from kernels.gpu.plan import plan_launches

pytestmark = [pytest.mark.interpret, pytest.mark.usefixtures("poisoned")]


def block_sparse(m, n, rank, seed, fraction=0.2):
    """Return integer ratings, observed in a fifth of the 64 x 64 tiles, in one of them only at a corner."""
    inputs = draw_inputs(m, n, rank, torch.float64, torch.uint8, torch.bool, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    tiles = torch.rand(-(-m // 64), -(-n // 64), generator=generator) < fraction
    tiles[-1, -1] = True
    mask = inputs.mask & tiles.repeat_interleave(64, 0).repeat_interleave(64, 1)[:m, :n]
    mask[m - 1, n - 1] = True
    return inputs._replace(mask=mask)


@pytest.mark.parametrize("deterministic", [False, True], ids=["fast", "deterministic"])
@pytest.mark.parametrize(("m", "n", "rank"), [(300, 400, 5), (257, 641, 62), (640, 130, 130), (70, 1000, 200)])
@pytest.mark.parametrize("encoding", ["uint8-code", "uint8-bits", "float32-nan"])
def test_block_sparse_ratings(m, n, rank, encoding, deterministic, monkeypatch):
    """There are several programs along both sides, some of them without a tile."""
    monkeypatch.setattr(interpret, "TARGET", config.Target("cpu", multiprocessors=3, shared_bytes=1 << 30))
    inputs = block_sparse(m, n, rank, seed=m)
    encoded = encode_ratings(inputs.ratings, inputs.mask, encoding, layout="dense")
    assert encoded.occupied is not None
    arguments = (*inputs[:5], encoded)
    loss, grads = mf_loss_and_grads(*arguments, deterministic=deterministic, backend="interpret")
    exact_loss, exact = oracle_loss_and_grads(*inputs)
    np.testing.assert_allclose(loss.item(), exact_loss, rtol=1e-12)
    for grad, expected in zip(grads, exact, strict=True):
        np.testing.assert_allclose(grad.numpy(), expected, rtol=0, atol=1e-11 * np.sqrt(np.mean(expected**2)))
    sse = mf_sse(*arguments, backend="interpret").item()
    np.testing.assert_allclose(sse, oracle_loss_and_grads(*inputs[:7], reg=0.0)[0], rtol=1e-12)


def test_empty_tiles_are_not_read():
    """Changing the ratings of an unoccupied tile changes nothing, unlike those of an occupied one."""
    inputs = block_sparse(256, 320, 7, seed=3)
    encoded = encode_ratings(inputs.ratings, inputs.mask, "uint8-code", layout="dense")
    expected = mf_loss_and_grads(*inputs[:5], encoded, backend="interpret")[0]
    tiles = encoded.occupied.unflatten(0, (-1, 4)).any(1).unflatten(1, (-1, 4)).any(2)
    assert not tiles.all()
    inside = tiles.repeat_interleave(64, 0).repeat_interleave(64, 1)
    for place, same in ((~inside, True), (inside, False)):
        lying = encoded._replace(values=torch.where(place, 1, encoded.values.int()).to(torch.uint8))
        assert (mf_loss_and_grads(*inputs[:5], lying, backend="interpret")[0] == expected).item() is same


def test_a_matrix_without_ratings():
    inputs = block_sparse(150, 200, 6, seed=4)
    encoded = encode_ratings(inputs.ratings, torch.zeros_like(inputs.mask), layout="dense")
    loss, grads = mf_loss_and_grads(*inputs[:5], encoded, backend="interpret")
    exact_loss, exact = oracle_loss_and_grads(*inputs[:6], torch.zeros_like(inputs.mask))
    np.testing.assert_allclose(loss.item(), exact_loss, rtol=1e-12)
    for grad, expected in zip(grads, exact, strict=True):
        np.testing.assert_allclose(grad.numpy(), expected, rtol=1e-12)


def test_full_ratings_keep_no_list():
    """A list does not pay if nearly every tile holds a rating."""
    inputs = draw_inputs(300, 300, 5, ratings_dtype=torch.uint8)
    assert encode_ratings(inputs.ratings, inputs.mask, layout="dense").occupied is None


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("name", "m", "n"), [("sm_80", 200, 130), ("sm_90", 130, 300), ("sm_90", 20, 20_000)])
def test_tiles_are_listed(name, m, n, transposed):
    """Every tile with an occupied block once, in order, and nothing else within the count."""
    generator = torch.Generator().manual_seed(0)
    occupied = torch.rand(-(-m // OCCUPIED_BLOCK), -(-n // OCCUPIED_BLOCK), generator=generator) < 0.1
    ratings = torch.zeros(1, 1).expand(m, n) if not transposed else torch.zeros(1, m).expand(n, m).T
    parameters = (torch.zeros(m, 30), torch.zeros(n, 30), torch.zeros(m), torch.zeros(n), torch.zeros(()))
    problem = check_problem(parameters, Observations(ratings, occupied=occupied), 0.1)
    prepare, step, _ = plan_launches(problem, config.TARGETS[name], "tf32", False, gradients=True).calls
    interpret.run(prepare)
    if transposed:
        occupied = occupied.T
    users, items = step.constants["BM"] // OCCUPIED_BLOCK, step.constants["BN"] // OCCUPIED_BLOCK
    lists, counts = (step.arguments[name].tolist() for name in ("tile_lists_ptr", "tile_counts_ptr"))
    assert len(counts) == -(-len(occupied) // users)
    for row, (tiles, count) in enumerate(zip(lists, counts, strict=True)):
        rows = occupied[row * users : (row + 1) * users]
        assert tiles[:count] == [t for t in range(len(tiles)) if rows[:, t * items : (t + 1) * items].any()]


def test_occupied_blocks_are_checked():
    inputs = block_sparse(100, 100, 5, seed=5)
    encoded = encode_ratings(inputs.ratings, inputs.mask, layout="dense")._replace(
        occupied=torch.ones(100, 7, dtype=torch.bool)
    )
    blocks = -(-100 // OCCUPIED_BLOCK)
    with pytest.raises(ValueError, match=rf"ratings.occupied: expected shape \({blocks}, {blocks}\)"):
        mf_loss_and_grads(*inputs[:5], encoded)


@pytest.mark.parametrize("encoding", [None, "uint8-code"])
def test_what_prepares_depends_on_the_tile_only_to_list_the_occupied_ones(encoding):
    """Otherwise each tile would compile the same kernel once more."""
    inputs = block_sparse(256, 320, 7, seed=3)
    ratings, mask = inputs.ratings, inputs.mask
    if encoding:
        ratings, mask = encode_ratings(ratings, mask, encoding, layout="dense"), None
    problem = check_problem(inputs[:5], observations_of(ratings, mask), 0.1)

    def constants(users: int) -> dict[str, object]:
        def select(_, build):
            return dataclasses.replace(build, BM=users)

        return plan_launches(problem, config.TARGETS["sm_90"], "ieee", False, True, select).calls[0].constants

    assert (constants(32) == constants(64)) is (encoding is None)
