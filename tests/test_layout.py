"""Tests mirror the packages: a module has a test file of its name in the folder of its name."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = [
    path.relative_to(ROOT)
    for package in ("kernels", "mfbench", "reference")
    for path in sorted((ROOT / package).rglob("*.py"))
    if path.name != "__init__.py"
]

# Modules without a test file of their name: where they are tested, and why there.
ELSEWHERE = {
    "kernels/gpu/calls.py": ("kernels/test_aot.py", "what a plan consists of"),
    "kernels/gpu/sparse_config.py": ("kernels/gpu/test_sparse.py", "builds and shares of one kernel"),
    "kernels/gpu/sparse_plan.py": ("kernels/gpu/test_sparse.py", "the launches of one kernel"),
    "kernels/gpu/plan.py": ("kernels/test_aot.py", "a plan is what `plan_step` returns"),
    "kernels/gpu/tile_table.py": ("kernels/gpu/test_config.py", "a table"),
    "kernels/gpu/tiles.py": ("kernels/gpu/test_config.py", "rows of the table"),
    "kernels/gpu/chunked.py": ("kernels/gpu/test_interpret.py", "Triton code, which only runs as part of the step"),
    "kernels/gpu/fused.py": ("kernels/gpu/test_interpret.py", "Triton code, which only runs as part of the step"),
    "kernels/gpu/finish.py": ("kernels/gpu/test_interpret.py", "Triton code, which only runs as part of the step"),
    "kernels/gpu/prepare.py": ("kernels/gpu/test_interpret.py", "Triton code, which only runs as part of the step"),
    "kernels/gpu/products.py": ("kernels/gpu/test_interpret.py", "Triton code, which only runs as part of the step"),
    "kernels/gpu/reduce.py": ("kernels/gpu/test_interpret.py", "Triton code, which only runs as part of the step"),
    "kernels/admission.py": ("kernels/test_subclasses.py", "which tensors a step takes"),
    "kernels/decoding.py": ("kernels/test_encoding.py", "the other way round"),
    "kernels/levels.py": ("kernels/test_encoding.py", "levels that codes count"),
    "kernels/tiled_sparse.py": ("kernels/test_csr.py", "the sparse part of a backend"),
    "kernels/call.py": ("kernels/test_loss.py", "the arguments of the public functions"),
    "kernels/flops.py": ("kernels/test_transforms.py", "formulas for a counter of PyTorch"),
    "kernels/interception.py": ("kernels/test_transforms.py", "which modes and transforms are on"),
    "kernels/operators.py": ("kernels/test_transforms.py", "the step as compilers and tracers see it"),
    "kernels/step.py": ("kernels/test_loss.py", "one call, from its checks to its backend"),
    "mfbench/__main__.py": ("mfbench/test_cli.py", "one call"),
    "mfbench/commands/against.py": ("mfbench/providers/test_revision.py", "options and text"),
    "mfbench/commands/doctor.py": ("mfbench/test_cli.py", "text"),
    "mfbench/commands/options.py": ("mfbench/test_shell.py", "declarations"),
    "mfbench/gpu_check/options.py": ("mfbench/test_bare.py", "declarations"),
    "mfbench/gpu_check/task.py": ("mfbench/gpu_check/test_equivalence.py", "what all checks share"),
    "mfbench/inspect/devices.py": ("mfbench/inspect/test_model.py", "a table"),
    "mfbench/inspect/document.py": ("mfbench/inspect/test_builds.py", "a schema"),
    "mfbench/measure/devices/base.py": ("mfbench/measure/devices/test_simulated.py", "an interface"),
    "mfbench/problems/ratings/*.py": (
        "mfbench/problems/ratings/test_text.py",
        "steps from a file to its ratings, tested by the format of the file",
    ),
    "mfbench/report/*.py": ("mfbench/report/test_page.py", "parts of one page, which is read as a whole"),
    "mfbench/train/checkpointing.py": ("mfbench/train/test_checkpoint.py", "whether a run has checkpoints"),
    "mfbench/train/history.py": ("mfbench/train/test_loop.py", "what the loop records"),
    "mfbench/results/writer.py": ("mfbench/results/test_records.py", "what is written is read back"),
    "mfbench/results/foreign/*.py": ("mfbench/results/test_foreign.py", "one file of each tool"),
    "reference/*.py": ("reference/test_reference.py", "two implementations of one formula, side by side"),
}


def own_test(module: Path) -> Path:
    return ROOT / "tests" / module.parent / f"test_{module.stem}.py"


def exception(module: Path) -> str | None:
    """Return the pattern of a module without a test file of its name."""
    if own_test(module).is_file():
        return None
    return next((pattern for pattern in ELSEWHERE if fnmatch(str(module), pattern)), None)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_has_a_test_file(module: Path) -> None:
    pattern = exception(module)
    path = own_test(module) if pattern is None else ROOT / "tests" / ELSEWHERE[pattern][0]
    assert path.is_file(), f"{module} is tested nowhere: expected {path.relative_to(ROOT)}"
    assert "def test_" in path.read_text()


@pytest.mark.parametrize("pattern", ELSEWHERE)
def test_an_exception_is_needed(pattern: str) -> None:
    assert any(exception(module) == pattern for module in MODULES)
