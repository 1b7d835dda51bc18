"""The rooms of the package: each imports from itself and from those below, and says in a sentence what it holds."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from mfbench.installation import ROOT

PACKAGES = ("kernels", "reference", "mfbench")
FLAT = 14  # most files in mfbench/ itself

# From the bottom to the top. A room may import from its own floor only what belongs to itself.
FLOORS = (
    ("kernels", "reference"),
    ("mfbench.errors", "mfbench.git", "mfbench.log", "mfbench.installation", "mfbench.stats"),
    ("mfbench.problems",),
    ("mfbench.results", "mfbench.inspect"),
    ("mfbench.providers",),
    ("mfbench.correctness",),
    ("mfbench.measure",),
    ("mfbench.report",),
    ("mfbench.testing",),
    ("mfbench.api", "mfbench.train"),
    ("mfbench.commands",),
    ("mfbench.shell",),
    ("mfbench.cli",),
    ("mfbench", "mfbench.__main__"),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def module_name(path: Path) -> str:
    """Return the dotted name of a source file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def imported(module: str) -> Iterator[str]:
    """Yield the modules of the project that a module imports anywhere, in functions and for type checkers too."""
    path = FILES[module]
    here = module.split(".") if path.stem == "__init__" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in FILES)
        elif isinstance(node, ast.ImportFrom):
            prefix = here[: len(here) + 1 - node.level] if node.level else []
            source = ".".join([*prefix, *filter(None, [node.module])])
            for alias in node.names:
                submodule = f"{source}.{alias.name}"
                target = submodule if submodule in FILES else source
                if target in FILES and target != module:
                    yield target


IMPORTS = {module: sorted(set(imported(module))) for module in FILES}


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
