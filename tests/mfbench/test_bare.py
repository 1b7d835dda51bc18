"""The command line on a machine with PyTorch and Triton and nothing else that this project needs."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import click
import pytest
from packaging.requirements import Requirement

from mfbench import bare, installation
from mfbench.cli import cli
from mfbench.gpu_check.options import OPTIONS, CheckOptions
from mfbench.installation import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = ("torch", "triton", "numpy")


def closure(names: tuple[str, ...]) -> set[str]:
    """Return the distributions that are installed with these ones."""
    found: set[str] = set()
    queue = list(names)
    while queue:
        name = queue.pop()
        try:
            required = distribution(name).requires or []
        except PackageNotFoundError:
            continue
        found.add(name)
        requirements = [Requirement(text) for text in required]
        queue += [
            r.name for r in requirements if (not r.marker or r.marker.evaluate({"extra": ""})) and r.name not in found
        ]
    return found


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages as a machine has it where PyTorch and Triton were installed alone."""
    folder = tmp_path_factory.mktemp("packages")
    for name in closure(HERE):
        found = distribution(name)
        for top in {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}:
            target = Path(str(found.locate_file(top)))
            if not (folder / top).exists() and target.exists():
                (folder / top).symlink_to(target)
    return folder


def run(packages: Path, *arguments: str, module: str = "mfbench") -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(map(str, (ROOT, packages)))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [sys.executable, "-S", "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=280,
        env=environment | {"PYTHONPATH": path},
    )  # fmt: skip


def test_the_required_packages_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(installation.REQUIRED) == {Requirement(text).name for text in project["dependencies"]}
    assert set(bare.NEEDED) <= set(installation.REQUIRED)
    assert installation.missing_packages() == []


def test_both_parsers_have_the_same_options() -> None:
    command = cli.commands["gpu-check"]
    with_click = {parameter.name: parameter for parameter in command.params if isinstance(parameter, click.Option)}
    assert set(with_click) - {"quiet", "verbose"} == {option.name for option in OPTIONS}
    for option in OPTIONS:
        assert with_click[option.name].default == option.default == getattr(CheckOptions(), option.name)


@pytest.mark.parametrize("given", [["--seconds", "1"], ["--seed", "-1"], ["--suite", "x"]])
def test_bad_options_end_with_2(given: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bare, "missing_packages", lambda: ["click"])
    with pytest.raises(SystemExit) as caught:
        bare.run(["gpu-check", *given])
    assert caught.value.code == 2


def test_the_other_commands_name_what_is_missing(packages: Path) -> None:
    done = run(packages, "run")
    assert done.returncode == 2
    assert done.stderr == (
        "mfbench: not installed: scipy, click, rich, pydantic, psutil; gpu-check runs with PyTorch, Triton and NumPy "
        "alone [missing-package]\n"
    )
    assert done.stdout == ""


def test_without_a_gpu_it_says_so(packages: Path) -> None:
    done = run(packages, "gpu-check")
    assert done.returncode == 2
    assert done.stderr == "mfbench: expected a CUDA or ROCm GPU, and PyTorch sees none here [no-such-device]\n"


@pytest.mark.slow
@pytest.mark.interpret
def test_a_whole_check_needs_nothing_else(packages: Path, tmp_path: Path) -> None:
    out = tmp_path / "check.jsonl"
    done = run(packages, "--seconds", "270", "--out", str(out), module="tests.mfbench.gpu_check.stand_in")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("RIGHT: all ")
    for name in ("scipy", "psutil", "pydantic"):
        assert sum(line.startswith(f"without {name}: ") for line in lines) == 1
    assert "Traceback" not in done.stderr
    assert out.exists()
    assert not out.with_suffix(".html").exists()
