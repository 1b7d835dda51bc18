"""Providers in files and packages: located by name, imported with their neighbours, and never mistaken for others."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mfbench.errors import UsageError
from mfbench.installation import ROOT
from mfbench.providers import user_code
from mfbench.providers.user_code import Location, foreign_beside, locate


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in an empty folder, and forget afterwards what was imported from it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / (name.replace("__in__", "/") + ".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def run(name: str) -> object:
    location = locate(name)
    assert location is not None
    user_code.check(location, "provider")
    return user_code.load(location)()


@pytest.mark.parametrize(
    ("name", "location"),
    [
        ("a/b.py:step", Location("a/b.py", "step")),
        ("a.py:b.py:step", Location("a.py:b.py", "step")),
        ("pkg.module:step", Location("pkg.module", "step")),
        ("fused", None),
        ("fused-tf32", None),
        ("a b:step", None),
        ("pkg:", None),
    ],
)
def test_names_of_files_and_modules_are_told_from_others(name: str, location: Location | None) -> None:
    assert locate(name) == location


def test_a_file_imports_what_lies_beside_it(folder: Path) -> None:
    write(folder, beside="VALUE = 3", own="from beside import VALUE\ndef step(): return VALUE")
    assert run("own.py:step") == 3


def test_a_file_in_a_package_has_relative_imports(folder: Path) -> None:
    write(folder, ours__in____init__="", ours__in__beside="VALUE = 4",
          ours__in__own="from .beside import VALUE\ndef step(): return VALUE")  # fmt: skip
    assert run("ours/own.py:step") == 4
    assert run("ours.own:step") == 4


def test_files_of_one_name_are_two_modules(folder: Path) -> None:
    write(folder, one__in__own="def step(): return 1", two__in__own="def step(): return 2")
    assert [run("one/own.py:step"), run("two/own.py:step")] == [1, 2]


def test_a_file_that_failed_is_imported_again(folder: Path) -> None:
    write(folder, own="raise RuntimeError('halfway')")
    with pytest.raises(UsageError, match="RuntimeError: halfway") as raised:
        run("own.py:step")
    assert raised.value.code == "provider-load-failed"
    write(folder, own="def step(): return 'whole, now'")
    assert run("own.py:step") == "whole, now"


@pytest.mark.parametrize(
    ("name", "code"),
    [("none.py:step", "no-such-provider"), ("no_such_package.module:step", "no-such-provider"),
     ("own.py:stp", "no-such-function"), ("own.py:VALUE", "no-such-function")],
)  # fmt: skip
def test_what_does_not_exist_is_named(folder: Path, name: str, code: str) -> None:
    write(folder, own="VALUE = 1\ndef step(): ...")
    with pytest.raises(UsageError) as raised:
        run(name)
    assert (raised.value.code, raised.value.argument) == (code, "provider")


def test_a_package_of_our_name_beside_the_file_is_told(folder: Path) -> None:
    assert foreign_beside(ROOT) == []
    write(folder, kernels__in____init__="", own="from kernels import no_such_function")
    assert foreign_beside(folder) == ["kernels"]
    with pytest.raises(UsageError, match=r"your .kernels. in .* rename it"):
        run("own.py:step")
    write(folder, kernels__in__own="def step(): ...")
    with pytest.raises(UsageError) as raised:
        run("kernels.own:step")
    assert raised.value.code == "foreign-package"
