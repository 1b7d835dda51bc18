"""A report of given files, as a page or its short form."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mfbench.cli_runner import mfbench_here

for package in ("jinja2", "matplotlib"):
    pytest.importorskip(package, reason=f"reports need {package}, which the extra `report` brings")


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that writes the report of some files and returns its text."""

    def make(*paths: Path, name: str = "report.html", options: tuple[object, ...] = (), code: int = 0) -> str:
        assert mfbench_here(monkeypatch, "report", *paths, "--out", tmp_path / name, *options) == code
        return (tmp_path / name).read_text(encoding="utf-8")

    return make
