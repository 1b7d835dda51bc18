"""The example notebooks: one runs from a clean checkout and shows a table and plots; none is committed with outputs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs nbformat, which the extra `test` brings")
nbclient = pytest.importorskip("nbclient", reason="needs nbclient, which the extra `test` brings")
pytest.importorskip("ipykernel", reason="needs ipykernel, which the extra `test` brings")
pytest.importorskip("matplotlib", reason="needs matplotlib, which the extra `report` brings")

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def executed(path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, **replaced: str):
    """Execute a notebook in `folder` with the given constants replaced; return it with its outputs."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    book = nbformat.read(path, as_version=4)
    for cell in book.cells:
        for name, value in replaced.items():
            cell.source = cell.source.replace(f"{name} = 28001", f"{name} = {value}")
    nbclient.NotebookClient(book, timeout=240, resources={"metadata": {"path": str(folder)}}).execute()
    return book


def outputs(book, kind: str) -> list[str]:
    """Return all outputs of a MIME type."""
    return [
        output.data[kind] for cell in book.cells for output in cell.get("outputs", []) if kind in output.get("data", {})
    ]


def printed(book) -> str:
    """Return everything printed."""
    return "".join(output.get("text", "") for cell in book.cells for output in cell.get("outputs", []))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_outputs_are_committed(path: Path) -> None:
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert code
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


@pytest.mark.slow
def test_a_readers_own_kernel_is_benchmarked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = executed(ROOT / "examples" / "own_kernel.ipynb", tmp_path, monkeypatch)
    table, frame = outputs(book, "text/html")[:2]
    assert "results failed (3 wrong)" in table
    assert table.count("<bdi>my_kernel.py:step</bdi>") == 3
    assert "user_factors" in table
    assert frame.count("my_kernel.py:step") == 3
    assert len(outputs(book, "image/png")) == 2
    assert (tmp_path / "own-kernel.html").read_text().startswith("<!DOCTYPE html>")
