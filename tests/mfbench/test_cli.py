"""The command line: help, completion, the nearest name, doctor and list, plain output without a terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from mfbench.cli import cli
from mfbench.installation import ROOT
from mfbench.problems.cases import suite_names
from tests.mfbench.cli_runner import mfbench, mfbench_here


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, click\nfrom click.testing import CliRunner\nfrom mfbench.cli import cli\n"
        "assert 'verify' in CliRunner().invoke(cli, ['--help']).output\n"
        "print([name for name in ('torch', 'numpy', 'scipy', 'pydantic', 'rich', 'triton') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_doctor_tells_every_backend(monkeypatch, capsys) -> None:
    assert mfbench_here(monkeypatch, "doctor", "--json") == 0
    findings = json.loads(capsys.readouterr().out)
    assert findings["backends"].keys() == {"triton", "native", "torch", "interpret"}
    assert findings["backends"]["torch"] == "available"
    assert findings["versions"]["torch"] != "none"
    assert findings["packages"].keys() == {"kernels", "mfbench", "reference"}


def test_a_foreign_package_of_the_same_name_is_told(tmp_path: Path) -> None:
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__init__.py").write_text("")
    done = mfbench("doctor", cwd=tmp_path)
    assert done.returncode == 2
    assert "the package 'kernels' that Python finds" in done.stderr
    assert "[foreign-package]" in done.stderr
    assert "rename it if it is yours" in done.stderr
    assert "Traceback" not in done.stderr


def test_another_checkout_in_the_current_folder_is_told(tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "mfbench").mkdir()
    (tmp_path / "mfbench" / "cli.py").write_text("")
    for folder, told in ((tmp_path, True), (tmp_path / "mfbench", False), (ROOT, False)):
        monkeypatch.chdir(folder)
        assert mfbench_here(monkeypatch, "list") == 0
        assert ("the current folder has another mfbench" in capsys.readouterr().err) == told


def test_list_names_everything(monkeypatch, capsys) -> None:
    assert mfbench_here(monkeypatch, "list") == 0
    text = capsys.readouterr().out
    for name in (*suite_names(), "fused-tf32x3", "closed-form", "movielens", "cpu"):
        assert f"  {name} " in text


def test_providers_are_given_with_commas_or_one_by_one(monkeypatch, capsys) -> None:
    options = ("verify", "--cases", 2, "--provider", "autograd,closed-form", "--provider", "fused", "--json")
    assert mfbench_here(monkeypatch, *options) == 0
    checked = json.loads(capsys.readouterr().out)["providers"]
    assert [entry["provider"] for entry in checked] == ["autograd", "closed-form", "fused"]
    assert mfbench_here(monkeypatch, "verify", "--provider", ",") == 2
    assert "--provider" in capsys.readouterr().err


def test_output_without_a_terminal_has_no_control_codes(tmp_path: Path) -> None:
    done = mfbench("verify", "--cases", 2, "--provider", "autograd", cwd=tmp_path)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr
    assert "\r" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_help_tells_exit_codes_and_volume(name: str) -> None:
    text = cli.commands[name].get_help(click.Context(cli.commands[name], info_name=name))
    assert "Exit code: 0" in text
    assert "--quiet" in text
    assert "--verbose" in text


@pytest.mark.parametrize(("arguments", "expected"), [
    pytest.param(["rum"], "Did you mean 'run'", marks=pytest.mark.skipif(
        not hasattr(click.exceptions, "NoSuchCommand"), reason="click suggests a command from 8.4 on")),
    (["run", "--sute", "x"], "--suite"),
    (["run", "--suite", "quik"], "did you mean 'quick'"), (["run", "--provider", "fusd"], "did you mean 'fused'"),
    (["run", "--data", "movilens"], "did you mean 'movielens'"),
    (["train", "--data", "movilens"], "did you mean 'movielens'"),
    (["train", "--optimizer", "adamw"], "adam, preconditioned, got 'adamw'; did you mean 'adam'?"),
    (["report", "r.jsonl", "--out", "o", "--format", "csvx"], "did you mean 'csv'?"),
    (["report", "r.jsonl", "--out", "o", "--plots-format", "SVGZ"], "did you mean 'svg'?"),
    (["run", "--ratings-dtype", "flaot32"], "did you mean 'float32'?"),
    (["run", "--device", "gpu"], "expected one of cpu, cuda, all, got 'gpu'"),
])  # fmt: skip
def test_the_nearest_name_is_suggested(arguments, expected, monkeypatch: pytest.MonkeyPatch, capsys, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    assert mfbench_here(monkeypatch, *arguments) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "message", "code"), [
    (["run", "--rank", "x"], "expected a whole number from 0 to 1048576, got 'x'", "bad-value"),
    (["run", "--rank", "2.5"], "expected a whole number from 0 to 1048576, got '2.5'", "bad-value"),
    (["run", "--seed", "9223372036854775808"], "from 0 to 9223372036854775807, got '9223372036854775808'", "bad-value"),
    (["run", "--budget", "nan"], "expected a number above 0, got 'nan'", "bad-value"),
    (["run", "--density", "1.5"], "expected a number from 0 to 1, got '1.5'", "bad-value"),
    (["train", "--epochs", "many"], "expected a whole number from 1, got 'many'", "bad-value"),
    (["train", "--holdout", "1"], "expected a number from 0 to below 1, got '1'", "bad-value"),
    (["compare", "a", "b", "--margin", "2%"], "expected a number, got '2%'", "bad-value"),
    (["verify", "--cases", "0"], "expected a whole number from 1, got '0'", "bad-value"),
    (["inspect", "--jobs", "1e3"], "expected a whole number from 1 to 1024, got '1e3'", "bad-value"),
    (["compare", "a"], "Missing argument 'NEW'", "bad-usage"),
    (["report", "a"], "Missing option '--out'", "bad-usage"),
    (["compare"], "Missing argument 'BASE'", "bad-usage"),
])  # fmt: skip
def test_a_value_that_does_not_fit_is_told_in_our_words(arguments, message, code, monkeypatch, capsys) -> None:
    assert mfbench_here(monkeypatch, *arguments) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.endswith(f"[{code}]\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    code = "import sys; sys.argv = ['mfbench']; from mfbench.cli import main; main()"
    settings = os.environ | {"_MFBENCH_COMPLETE": f"{shell}_source"}
    try:
        script = subprocess.run(
            [sys.executable, "-c", code], env=settings, capture_output=True, text=True, check=True
        ).stdout  # fmt: skip
    except subprocess.CalledProcessError as error:
        if "Bash" in error.stderr:
            pytest.skip("needs a Bash that click can complete for")
        raise
    assert "_MFBENCH_COMPLETE" in script


def completed(*words: str) -> list[str]:
    """Return the completions that a shell gets, from a process that may not import torch."""
    code = "import sys; sys.argv = ['mfbench']; sys.modules['torch'] = None; from mfbench.cli import main; main()"
    settings = os.environ | {"_MFBENCH_COMPLETE": "zsh_complete", "COMP_WORDS": " ".join(("mfbench", *words)),
                             "COMP_CWORD": str(len(words))}  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], env=settings, capture_output=True, text=True, check=False)
    return done.stdout.split("\n")[1::3]


@pytest.mark.parametrize(("words", "expected"), [
    (("run", "--suite", "s"), {"scaling", "seed", "sparse", "square"}),
    (("run", "--device", "c"), {"cpu", "cuda"}), (("ins",), {"inspect"}),
])  # fmt: skip
def test_values_are_completed_without_torch(words: tuple[str, ...], expected: set[str]) -> None:
    assert set(completed(*words)) == expected
