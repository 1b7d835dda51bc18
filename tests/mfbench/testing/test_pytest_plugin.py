"""The fixture `mf_case` in a user's own suite: three lines, and a message that says what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch

pytest_plugins = ["pytester"]
ROOT = Path(__file__).parents[3]
LOADED = [] if entry_points(group="pytest11", name="mfbench") else ["-p", "mfbench.testing.pytest_plugin"]
OPTIONS = ["-p", "no:cacheprovider", *LOADED]

SUITE = """
import pytest
from reference import autograd_loss_and_grads as right

def wrong(*arguments):
    loss, (dP, dQ, dbu, dbi, dmu) = right(*arguments)
    return loss, (dP, dQ, dbu / 2, dbi, dmu)

kept = []

def cached(*arguments):
    if not kept:
        kept.append(right(*arguments))
    return kept[0]

def test_right(mf_case):
    errors = mf_case.check(right)
    assert 0 < max(errors.values()) < 1
    mf_case.check(lambda *arguments: right(*(each.requires_grad_() for each in arguments[:5]), *arguments[5:]))
    assert mf_case.check(right) == errors

def test_wrong(mf_case):
    mf_case.check(wrong)

@pytest.mark.mf_case(size="65x40", rank=4, ratings_dtype="float64", mask="none")
def test_marked(mf_case):
    assert mf_case.inputs.mask is None
    mf_case.check(right)

@pytest.mark.mf_case(size="65x40", rank=4)
def test_cached(mf_case):
    mf_case.check(cached)
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run pytest on a user's test file, in this process, and return what it prints."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(suite: str, *options: str) -> str:
        pytester.makepyfile(test_mine=suite)
        return str(pytester.runpytest_inprocess("-q", "--strict-markers", *OPTIONS, *options).stdout)

    return run


def test_a_users_suite_holds_its_kernel_against_the_gate(run) -> None:
    out = run(SUITE)
    assert "7 failed, 7 passed" in out
    assert out.count("FAILED test_mine.py::test_wrong[") == 6
    assert "(it is off by a factor of 0.5 everywhere)" in out
    assert (
        "65×40 rank 4, 0.7 observed, float32 + uint8 mask: on other parameters in the same tensors: loss is off" in out
    )


@pytest.mark.parametrize(
    ("marked", "told"),
    [
        ("sise='3x4'", "sise: no such name; did you mean 'size'?"),
        ("data='synthetic'", "size is missing, which drawn data needs"),
        ("size='3x4', device='gpu'", "device: expected 'cpu' or 'cuda', got 'gpu'"),
        ("'3x4'", "expected names, such as size='200x300', got '3x4' without one"),
    ],
)
def test_a_wrong_marker_is_told_in_a_line(run, marked: str, told: str) -> None:
    suite = f"import pytest\n@pytest.mark.mf_case({marked})\ndef test_mine(mf_case): pass\n"
    out = run(suite)
    assert f"test_mine.py::test_mine: mf_case: {told}" in out
    assert "pluggy" not in out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_where_there_is_no_gpu_its_cases_are_skipped(run) -> None:
    suite = "import pytest\n@pytest.mark.mf_case(size='3x4', device='cuda')\ndef test_mine(mf_case): assert False\n"
    out = run(suite, "-rs")
    assert "2 skipped" in out
    assert "PyTorch sees no GPU here" in out


@pytest.mark.parametrize("name", ["kernels", "reference"])
@pytest.mark.parametrize("order", ["imported first", "imported by nobody"])
def test_a_users_package_with_a_name_of_ours_is_named(tmp_path: Path, name: str, order: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("def step(*arguments): ...\n")
    line = f"from {name} import step\n" if order == "imported first" else ""
    (tmp_path / "test_mine.py").write_text(f"{line}def test_mine(mf_case): mf_case.check(print)\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *OPTIONS, "test_mine.py"], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert f"mf_case: the package '{name}' that Python finds ({tmp_path / name / '__init__.py'})" in done.stdout
    assert "rename it if it is yours" in done.stdout
    assert "Traceback" not in done.stdout


def test_nothing_is_imported_for_others(tmp_path: Path) -> None:
    suite = "import sys\ndef test_mine(): assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules)\n"
    (tmp_path / "test_mine.py").write_text(suite)
    options = ["-q", *OPTIONS, "-p", "no:benchmark", "-p", "no:hypothesispytest"]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options], cwd=tmp_path, env=os.environ | {"PYTHONPATH": path},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "1 passed" in done.stdout
