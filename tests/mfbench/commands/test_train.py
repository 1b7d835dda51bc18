"""`mfbench train`: its log, its JSON, and one line where it stops."""

import json
import re

import pytest

from tests.mfbench.cli_runner import mfbench_here


def test_the_command_prints_the_log(monkeypatch, capsys):
    assert mfbench_here(monkeypatch, "train", "--data", "seed", "--provider", "fused", "--epochs", 1001) == 0
    printed = capsys.readouterr()
    assert re.match(r"epoch 0 loss \d+\.\d+\nepoch 1000 loss \d+\.\d+\nheld-out squared error \d+", printed.out)
    assert printed.err == ""


def test_quiet_training_prints_the_summary_alone(monkeypatch, capsys):
    assert mfbench_here(monkeypatch, "train", "--provider", "fused", "--epochs", 1001, "--quiet") == 0
    printed = capsys.readouterr()
    assert re.match(r"held-out squared error .*\n1001 epochs in ", printed.out)
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
