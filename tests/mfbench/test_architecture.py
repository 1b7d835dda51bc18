"""The architecture: each room imports from itself and from rooms below, and its docstring is one sentence."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from mfbench.installation import ROOT

PACKAGES = ("kernels", "reference", "mfbench")
FLAT = 14  # most files in mfbench/ itself

# From bottom to top. Rooms of one floor do not import each other.
FLOORS = (
    ("kernels", "reference"),
    ("mfbench.errors", "mfbench.wording", "mfbench.log", "mfbench.installation"),
    ("mfbench.git", "mfbench.stats"),
    ("mfbench.problems",),
    ("mfbench.results", "mfbench.inspect"),
    ("mfbench.providers",),
    ("mfbench.correctness",),
    ("mfbench.measure",),
    ("mfbench.report",),
    ("mfbench.testing",),
    ("mfbench.api", "mfbench.train", "mfbench.gpu_check"),
    ("mfbench.commands",),
    ("mfbench.shell",),
    ("mfbench.cli", "mfbench.bare"),
    ("mfbench", "mfbench.__main__"),
)
# What a worker takes from the packages that `--against` swaps: an older revision must have each of these, too.
FROM_OTHER_REVISIONS = {
    "kernels.mf_loss_and_grads",
    "kernels.encode_ratings",
    "kernels.loss.PRECISIONS",
    "kernels.cpu.launch",
    "reference.oracle_loss_and_grads",
    "reference.oracle.BLOCK_ELEMENTS",
    "reference.autograd.notebook_loss",
    "reference.autograd.notebook_operands",
    # For the provider `gather` alone, which imports them when it prepares a case
    "reference.autograd.gather_loss",
    "reference.problem.Triplets",
    # For a note of the harness itself, before any worker starts
    "kernels.cpu.threads.cpu_quota",
}
GATE = "mfbench.correctness.gate"  # only in the harness's own process, which has the present revision
GROUPS = ("mfbench.providers.over_processes", "mfbench.measure.scaling.member")  # not beside another revision
IN_WORKERS = ("mfbench.problems", "mfbench.results", "mfbench.providers", "mfbench.correctness", "mfbench.measure")
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def module_name(path: Path) -> str:
    """Return the dotted name of a source file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def imported(tree: ast.Module, package: list[str], known: Collection[str]) -> Iterator[str]:
    """Yield the known modules that a module imports anywhere, also in functions and for type checkers.

    Args:
        tree: of the module.
        package: parts of the name of the package that relative imports start from.
        known: names of modules.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            prefix = package[: len(package) + 1 - node.level] if node.level else []
            source = ".".join([*prefix, *filter(None, [node.module])])
            for alias in node.names:
                submodule = f"{source}.{alias.name}"
                if submodule in known or source in known:
                    yield submodule if submodule in known else source


def imports_of(module: str) -> set[str]:
    """Return the project's modules that a module imports."""
    path = FILES[module]
    package = module.split(".") if path.stem == "__init__" else module.split(".")[:-1]
    return set(imported(ast.parse(path.read_text(encoding="utf-8")), package, FILES)) - {module}


IMPORTS = {module: sorted(imports_of(module)) for module in FILES}


def room(module: str) -> str:
    """Return the longest entry of the table that the module lies in."""
    parts = module.split(".")
    return next(name for end in range(len(parts), 0, -1) if (name := ".".join(parts[:end])) in FLOOR)


def test_no_module_imports_itself_by_a_detour() -> None:
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_rooms_import_downwards_only() -> None:
    wrong = [
        f"{module} imports {target}"
        for module, targets in IMPORTS.items()
        for target in targets
        if room(target) != room(module) and FLOOR[room(target)] >= FLOOR[room(module)]
    ]
    assert not wrong, "\n".join(wrong)


def test_workers_import_only_what_older_revisions_have() -> None:
    found = {
        f"{node.module}.{alias.name}"
        for module, path in FILES.items()
        if room(module) in IN_WORKERS and module not in (GATE, *GROUPS)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("kernels", "reference")
        for alias in node.names
    }
    assert found == FROM_OTHER_REVISIONS


def test_every_folder_says_in_a_sentence_what_it_holds() -> None:
    for module, path in FILES.items():
        if path.stem == "__init__":
            text = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").strip()
            assert text.endswith("."), module
            assert not re.search(r"[.!?]\s", text), f"{module}: more than one sentence"


def test_few_files_lie_beside_the_folders() -> None:
    assert len([path for path in FILES.values() if path.parent == ROOT / "mfbench"]) <= FLAT


@pytest.mark.parametrize(
    ("source", "targets"),
    [
        ("import mfbench.api", {"mfbench.api"}),
        ("from mfbench import log", {"mfbench.log"}),
        ("def late():\n    from mfbench.api import run", {"mfbench.api"}),
        ("from . import summary", {"mfbench.report.summary"}),
        ("from ..errors import UsageError", {"mfbench.errors"}),
        ("import torch", set()),
    ],
)
def test_imports_are_found_in_every_form(source: str, targets: set[str]) -> None:
    known = {"mfbench", "mfbench.api", "mfbench.log", "mfbench.errors", "mfbench.report.summary"}
    assert set(imported(ast.parse(source), ["mfbench", "report"], known)) == targets
