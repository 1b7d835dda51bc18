"""`mfbench run --resume`: measures what is missing, and refuses to continue a run made with other options."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfbench.results.records import read
from tests.mfbench.cli_runner import mfbench_here, tiny_suite
from tests.mfbench.measure.test_interruption import WHOLE, keys


def test_resume_measures_only_what_is_missing_in_a_case(tmp_path: Path, monkeypatch, capsys) -> None:
    out = tmp_path / "out.jsonl"
    options = ("--suite", tiny_suite(tmp_path), "--out", out, "--threads", 1, "--budget", 0.2)
    assert mfbench_here(monkeypatch, "run", *options) == 0
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:3]) + lines[3][:100])  # the second case lost its baseline, the third is missing
    capsys.readouterr()
    assert mfbench_here(monkeypatch, "run", *options, "--resume") == 0
    assert "--resume: 3 measurements are kept" in capsys.readouterr().err
    after, notes = read(out)
    assert notes == []
    assert keys(after) == WHOLE
    assert out.read_bytes().startswith(b"".join(lines[:3]))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--suite", "seed"), "is of suite 'tiny', not 'seed'"),
        (("--size", "6x6", "--size", "7x7"), "has a case that is not asked for, 5×5"),
        (("--size", "5x5"), "makes 2 comparisons, not 1"),
        (("--provider", "closed-form"), "has a provider that is not asked for, fused on cpu"),
        (("--provider", "fused,closed-form"), "makes 2 comparisons, not 4"),
        (("--baseline", "fused"), "is against autograd, not fused"),
        (("--margin", "0.3"), "has a margin of 0.02, not 0.3"),
        (("--threads", "2"), "was measured with threads 1, not 2"),
        (("--resolve", "0.05"), "was measured without --resolve, not with --resolve 0.05"),
    ],
)
def test_resume_refuses_a_run_that_began_with_other_options(
    begun: Path, monkeypatch, capsys, given: tuple[str, ...], told: str
) -> None:
    options = {"--suite": [begun.parent / "tiny.toml"], "--size": ["5x5", "6x6"], "--threads": [1]}
    for name in given[::2]:
        options[name] = list(given[1::2])
    arguments = [part for name, values in options.items() for value in values for part in (name, value)]
    before = begun.read_bytes()
    assert mfbench_here(monkeypatch, "run", *arguments, "--resume", "--budget", 0.1, "--out", begun) == 2
    err = capsys.readouterr().err
    assert told in err
    assert err.endswith("[different-run]\n")
    assert begun.read_bytes() == before


@pytest.mark.slow
def test_resume_refuses_what_was_measured_of_another_file(tmp_path: Path, monkeypatch, capsys) -> None:
    file, out = tmp_path / "mine.py", tmp_path / "out.jsonl"
    file.write_text("from kernels import mf_loss_and_grads as step")
    options = ("--suite", tiny_suite(tmp_path), "--size", "5x5", "--provider", f"{file}:step", "--out", out,
               "--threads", 1, "--budget", 0.1)  # fmt: skip
    assert mfbench_here(monkeypatch, "run", *options) == 0
    assert mfbench_here(monkeypatch, "run", *options, "--resume") == 0
    with file.open("a") as changed:
        changed.write("  # faster")
    capsys.readouterr()
    assert mfbench_here(monkeypatch, "run", *options, "--resume") == 2
    assert f"was measured before {file} changed" in capsys.readouterr().err


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The records of a run that lacks its last case."""
    folder = tmp_path_factory.mktemp("begun")
    out = folder / "out.jsonl"
    options = ("--suite", tiny_suite(folder), "--size", "5x5", "--size", "6x6", "--threads", 1, "--budget", 0.1)
    with pytest.MonkeyPatch.context() as patch:
        assert mfbench_here(patch, "run", *options, "--out", out) == 0
    out.write_bytes(b"".join(out.read_bytes().splitlines(keepends=True)[:2]))
    return out
