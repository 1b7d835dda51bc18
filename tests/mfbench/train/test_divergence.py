"""Divergence: a default rate that proves too large is halved, and a rate that a message suggests works."""

import math
import re
from itertools import pairwise

import numpy as np
import pytest
import torch

from mfbench.errors import UsageError
from mfbench.problems import datasets
from mfbench.problems.datasets import Ratings
from mfbench.problems.matrices import to_sparse, with_values
from mfbench.providers import registry
from mfbench.train.history import TrainingRun
from mfbench.train.loop import Diverged, train
from mfbench.train.options import Optimizer
from mfbench.train.rates import default_rate
from mfbench.train.task import rating_task

FUSED = registry.load("fused")
EPOCHS = 150
NOTE = re.compile(
    r"mfbench: training diverged: loss \S+ at epoch \d+, \S+ at first, with the default rate (\S+); "
    r"starting again with (\S+)\n"
)
SUGGESTION = re.compile(r"lr: training diverged: .*, with \S+; (\S+) would work \(tried for 150 epochs\)")


def heavy_tailed_counts(scale: float = 1.0, m: int = 60, n: int = 45, alpha: float = 0.7) -> Ratings:
    """Draw counts from a Pareto distribution, cut off at 1e6; multiply them by `scale`."""
    rng = np.random.default_rng(0)
    counts = np.minimum(np.floor(rng.pareto(alpha, (m, n)) + 1), 1e6)
    mask = torch.tensor(rng.random((m, n)) < 0.6).to(torch.uint8)
    return Ratings(to_sparse(torch.tensor(counts * scale, dtype=torch.float32), mask), "counts")


def stars(scale: float) -> Ratings:
    ratings = heavy_tailed_counts()
    return ratings._replace(matrix=with_values(ratings.matrix, ratings.matrix.values().clamp(max=5) * scale))


def trained(ratings: Ratings, rank: int, optimizer: Optimizer, lr: float | None = None) -> TrainingRun:
    return train(rating_task(ratings, rank, reg=0.1), FUSED, EPOCHS, 50, optimizer, lr)


def converged(run: TrainingRun) -> bool:
    """Return whether the loss was finite at every entry, and less in the end than at the start."""
    losses = [entry.loss for entry in run.entries]
    assert [entry.epoch for entry in run.entries] == [0, 50, 100, 150]
    return all(map(math.isfinite, losses)) and losses[-1] < losses[0]


def suggested_rate(error: Diverged) -> float:
    message = SUGGESTION.fullmatch(str(error))
    assert message, str(error)
    return float(message[1])


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "preconditioned"])
@pytest.mark.parametrize("rank", [1, 8, 64])
def test_heavy_tailed_counts_are_trained_at_the_default_rate(rank, optimizer):
    assert converged(trained(heavy_tailed_counts(), rank, optimizer))


@pytest.mark.parametrize("rank", [1, 8, 64])
@pytest.mark.parametrize("scale", [1e12, 1e-12])
def test_ratings_of_any_magnitude_are_trained_at_the_default_rate(scale, rank):
    assert converged(trained(stars(scale), rank, "sgd"))
    run = trained(stars(scale), rank, "momentum")
    assert converged(run)
    left = 0.95 if rank == 1 else 0.5  # one factor explains little of ratings without structure
    assert run.entries[-1].loss < left * run.entries[0].loss


@pytest.mark.parametrize("scale", [1e12, 1e6, 1e-12])
def test_adams_default_rate_follows_the_scale_of_the_ratings(capsys, scale):
    biases_alone, factors = trained(stars(scale), 0, "adam"), trained(stars(scale), 8, "adam")
    assert converged(biases_alone)
    assert converged(factors)
    assert factors.entries[-1].loss < 0.5 * factors.entries[0].loss
    at_one = trained(stars(1.0), 0, "adam")
    assert biases_alone.learning_rate == pytest.approx(scale * at_one.learning_rate, rel=1e-3)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("scale", [100, 1, 0.01])
def test_the_defaults_serve_ratings_of_any_magnitude(rating_file, scale, capsys):
    one = datasets.load(rating_file)
    ratings = one._replace(matrix=with_values(one.matrix, scale * one.matrix.values()))
    task = rating_task(ratings, 8)
    assert task.inputs.reg == pytest.approx(scale * rating_task(one, 8).inputs.reg, rel=1e-4)
    run = train(task, FUSED, 200, 10, "preconditioned", patience=5)
    assert run.best.held_out_rmse < 0.7 * float(ratings.matrix.values().std())
    assert capsys.readouterr().err == ""


def test_adams_default_rate_is_finite_where_there_is_nothing_to_explain():
    ratings = Ratings(to_sparse(torch.full((6, 5), 3.0), None), "constant")
    assert default_rate(rating_task(ratings, rank=0), "adam", FUSED.prepare) == 3e-3


def test_each_halving_is_noted_and_the_run_has_one_rate(capsys):
    ratings = heavy_tailed_counts(m=300, n=200)
    task = rating_task(ratings, 64, reg=0.1)
    first = default_rate(task, "momentum", FUSED.prepare(task.inputs))
    run = trained(ratings, 64, "momentum")
    err = capsys.readouterr().err
    rates = [tuple(map(float, rates)) for rates in NOTE.findall(err)]
    assert NOTE.sub("", err) == ""
    assert len(rates) >= 2
    assert rates[0][0] == pytest.approx(first, rel=1e-5)
    assert all(after == pytest.approx(before / 2, rel=1e-5) for before, after in rates)
    assert all(one[1] == two[0] for one, two in pairwise(rates))
    assert run.learning_rate == first / 2 ** len(rates)

    given = trained(ratings, 64, "momentum", lr=run.learning_rate)
    assert [entry.loss for entry in run.entries] == [entry.loss for entry in given.entries]
    assert capsys.readouterr().err == ""


def test_a_default_rate_that_works_is_not_changed(capsys):
    task = rating_task(stars(1.0), 8, reg=0.1)
    expected = default_rate(task, "momentum", FUSED.prepare(task.inputs))
    assert trained(stars(1.0), 8, "momentum").learning_rate == expected
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize(
    "ratings",
    [heavy_tailed_counts(), heavy_tailed_counts(1e6), stars(1e12), stars(1e-12)],
    ids=["counts", "counts times 1e6", "1e12", "1e-12"],
)
def test_the_suggested_rate_works(ratings, optimizer):
    lr = 1e30 if optimizer == "adam" else 1e6
    task = rating_task(ratings, 8, reg=0.1)
    before = [parameter.clone() for parameter in task.inputs[:5]]
    with pytest.raises(Diverged) as raised:
        train(task, FUSED, EPOCHS, 50, optimizer, lr)
    assert all(map(torch.equal, task.inputs[:5], before))
    works = suggested_rate(raised.value)
    assert 0 < works <= lr / 2
    run = trained(ratings, 8, optimizer, works)
    assert run.learning_rate == works
    assert converged(run)


def test_the_suggestion_is_below_a_default_rate_that_diverges():
    """The stability limit at the start is too large for what comes later."""
    ratings = heavy_tailed_counts(m=300, n=200)
    task = rating_task(ratings, 64, reg=0.1)
    default = default_rate(task, "momentum", FUSED.prepare(task.inputs))
    with pytest.raises(Diverged) as raised:
        trained(ratings, 64, "momentum", lr=100 * default)
    works = suggested_rate(raised.value)
    assert works <= default / 2
    assert converged(trained(ratings, 64, "momentum", works))


def test_the_default_rate_knows_the_curvature_that_rounding_hides():
    """At a mean of 1e12, a shift of all predictions by 0.1 changes no float32 prediction."""
    ratings = Ratings(to_sparse(torch.full((60, 45), 1e12), None), "constant")
    task = rating_task(ratings, rank=0)
    assert default_rate(task, "sgd", FUSED.prepare(task.inputs)) <= 1 / (2 * task.inputs.observed)


def test_gradients_that_are_never_right_are_not_blamed_on_the_rate():
    def prepare(inputs):
        step = FUSED.prepare(inputs)

        def uphill():
            loss, grads = step()
            return loss, type(grads)(*(-math.inf * torch.ones_like(grad) for grad in grads))

        return uphill

    task = rating_task(stars(1.0), 2)
    before = [parameter.clone() for parameter in task.inputs[:5]]
    for lr in (None, 1.0):
        with pytest.raises(UsageError, match="provider: training diverged at every learning rate tried") as raised:
            train(task, registry.Provider("mine", prepare), 20, 10, "sgd", lr)
        assert raised.value.code == "bad-loss"
        assert all(map(torch.equal, task.inputs[:5], before))
