"""The installation: a package that shadows one of ours, and a checkout that is not the one that runs, are noticed."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from mfbench import installation


def test_our_own_packages_are_not_foreign() -> None:
    assert installation.foreign_packages() == []


@pytest.mark.parametrize("kind", ["package", "namespace", "missing"])
def test_a_package_of_another_project_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    if kind == "missing":
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    else:
        (tmp_path / "reference").mkdir()
        if kind == "package":
            (tmp_path / "reference" / "__init__.py").touch()
        spec = importlib.machinery.PathFinder.find_spec("reference", [str(tmp_path)])
        found = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if name == "reference" else found(name))
    wrong = installation.foreign_packages()
    assert len(wrong) == (2 if kind == "missing" else 1)
    assert "the package 'reference'" in wrong[-1]
    assert str(installation.ROOT / "reference") in wrong[-1]
    assert (str(tmp_path) in wrong[-1]) == (kind == "package")


def test_a_folder_with_another_checkout_is_told_from_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert installation.installed_from(installation.ROOT)
    assert installation.installed_from(tmp_path)  # no checkout at all
    (tmp_path / "ours").symlink_to(installation.ROOT)
    assert installation.installed_from(tmp_path / "ours")
    (tmp_path / "mfbench").mkdir()
    (tmp_path / "mfbench" / "cli.py").touch()
    assert not installation.installed_from(tmp_path)
