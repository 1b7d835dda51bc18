"""Documentation pages: links and file names resolve, the API reference names what exists, the README stays short."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "findings/README.md")]
PAGES = [*TOP, *sorted((ROOT / "docs").rglob("*.md"))]
CURRENT = [page for page in PAGES if page.name != "CHANGELOG.md" and page.parent.name != "decisions"]  # not of the past
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FILE = re.compile(r"`((?:reference|kernels|mfbench|tests|examples|docs|findings)/[\w./-]*)`")
README_LINES = 110  # one screen and its continuation


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_and_images_resolve(page: Path) -> None:
    for target in LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert ROOT in linked.parents, target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("page", CURRENT, ids=name)
def test_named_files_exist(page: Path) -> None:
    named = [path for path in FILE.findall(page.read_text(encoding="utf-8")) if "NAME" not in path]
    assert not [path for path in named if not (ROOT / path).exists()]


def test_the_api_reference_names_what_exists() -> None:
    found = re.findall(r"^::: ([\w.]+)$", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert found
    for path in found:
        module, _, attribute = path.rpartition(".")
        assert getattr(importlib.import_module(module), attribute).__doc__, path


def test_the_readme_is_short_and_sets_up_in_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= README_LINES
    block = re.search(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert block
    main_job, tests = block[1].splitlines()
    assert main_job.endswith("mfbench run")
    assert tests.endswith("pytest")


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    assert not [page.name for page in folder.glob("0*.md") if f"({page.name})" not in index]
