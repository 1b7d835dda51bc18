"""`mfbench train`: the log, the summary, JSON and errors."""

import json
import re

import pytest

from mfbench.commands.train import train_and_log
from mfbench.train.loop import TrainingRun
from mfbench.train.options import TrainOptions
from tests.mfbench.cli_runner import mfbench_here

pytestmark = pytest.mark.usefixtures("one_thread")


def run_training(data: str = "seed", *, log, **options) -> TrainingRun:
    return train_and_log(TrainOptions(data=data, **options), log)


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


def test_the_target_stops_training_and_the_best_is_kept(rating_file):
    lines = []
    whole = run_training(rating_file, optimizer="momentum", epochs=200, every=10, rank=2, log=lines.append)
    assert whole.reached is None
    assert re.fullmatch(r"epoch 10 loss [\d.]+ held-out RMSE [\d.]+ after [\d.]+ s", lines[1])
    assert sum(line.startswith("epoch ") for line in lines) == len(whole.entries)
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


def test_the_command_prints_the_log(monkeypatch, capsys):
    assert mfbench_here(monkeypatch, "train", "--data", "seed", "--provider", "fused", "--epochs", 1001) == 0
    printed = capsys.readouterr()
    assert re.match(r"epoch 0 loss \d+\.\d+\nepoch 1000 loss \d+\.\d+\nheld-out squared error \d+", printed.out)
    assert printed.err == ""


def test_the_command_gives_json_and_says_what_it_left_out(monkeypatch, capsys, tmp_path):
    path = tmp_path / "u.data"
    path.write_text("".join(f"{i % 7}\t{i % 5}\t{1 + i % 3}\n" for i in range(35)) + "1\toops\t3\n")
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
