"""Failure codes: each is documented, emitted somewhere, and survives the pipe from a worker."""

from __future__ import annotations

import ast
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

import mfbench
from mfbench.results.codes import Code, ProviderFailure, Status
from mfbench.results.records import Record
from tests.mfbench.results.test_records import record

SOURCE = Path(mfbench.__file__).parent


def emitted() -> Iterator[str]:
    """Names of the codes that the package's modules use, other than the one that defines them."""
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Code":
                yield node.attr


def test_every_code_is_emitted_and_every_one_emitted_exists() -> None:
    assert set(emitted()) == set(Code.__members__)


def test_failed_records_are_made_in_one_place_which_takes_the_status_from_the_code() -> None:
    failing = set(get_args(Status)) - {"ok"}
    made = [
        (path.name, node.lineno)
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.keyword) and node.arg == "status" and isinstance(node.value, ast.Constant)
        if node.value.value in failing
    ]
    assert made == []


@pytest.mark.parametrize("code", Code)
def test_a_code_is_a_short_name_with_a_status_and_a_meaning(code: Code) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", code.value)
    assert code.status in set(get_args(Status)) - {"ok"}
    assert len(code.meaning.split()) >= 3
    assert pickle.loads(pickle.dumps(code)) is code


def test_names_and_values_agree() -> None:
    assert [code.value for code in Code] == [name.lower().replace("_", "-") for name in Code.__members__]


def test_a_record_holds_the_code_and_old_and_newer_files_are_read() -> None:
    written = record(code=Code.OOM.value).model_dump_json(exclude_none=True)
    assert '"code":"oom"' in written
    assert Record.model_validate_json(written).code == Code.OOM
    assert Record.model_validate_json(written.replace('"code":"oom",', "")).code is None
    assert Record.model_validate_json(written.replace('"code":"oom"', '"code":"from-the-future"')).status == "skipped"


def test_a_failure_carries_its_code() -> None:
    failure = ProviderFailure(Code.TIMEOUT, "no answer within 8 s")
    assert (failure.code.status, str(failure)) == ("timeout", "no answer within 8 s")
