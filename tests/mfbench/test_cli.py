"""Small habits of the command line: help is quick, doctor and list tell, output without a terminal is plain."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from mfbench.problems.cases import suite_names
from mfbench.providers.revision import ROOT
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
    assert "environment of its own" in done.stderr
    assert "Traceback" not in done.stderr


def test_another_checkout_in_the_current_folder_is_told(tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "mfbench").mkdir()
    (tmp_path / "mfbench" / "cli.py").write_text("")
    for folder, told in ((tmp_path, True), (tmp_path / "mfbench", False), (ROOT, False)):
        monkeypatch.chdir(folder)
        assert mfbench_here(monkeypatch, "list") == 0
        assert ("another mfbench lies in the current folder" in capsys.readouterr().err) == told


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
