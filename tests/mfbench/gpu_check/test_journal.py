"""Records that are written without Pydantic are what its models read."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mfbench.errors import UsageError
from mfbench.gpu_check import journal
from mfbench.gpu_check.journal import Journal
from mfbench.gpu_check.task import Context, PlainCase
from mfbench.problems.cases import Case
from mfbench.results import records
from mfbench.results.codes import Code

CASE = PlainCase("gpu-check", 4, 5, 2)


def test_the_plain_case_has_the_fields_of_a_case() -> None:
    of_several_processes = ["processes"]
    assert [*PlainCase._fields, *of_several_processes] == list(Case.model_fields)
    assert journal.SCHEMA == records.SCHEMA


def test_lines_are_records(context: Context, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(b'{"schema":1,"run_id":"torn')
    written = Journal(path)
    origin = context.origin(CASE)
    timing = {"samples_s": [1.0], "median_s": 1.0, "ci95_s": (None, None), "rounds": 1, "loops": 1, "method": "m",
              "cold_cache": True, "disturbed": None}  # fmt: skip
    written.append(
        [origin.fields("fused", status="ok", timing=timing), origin.failure_fields("x", Code.OOM, "too large")]
    )
    written.close()
    found, notes = records.read(path)
    assert [record.status for record in found] == ["ok", "oom"]
    assert found[0].timing.ci95_s == (None, None)
    assert found[0].case == Case(**CASE._asdict())
    assert len(notes) == 1  # the torn line


def test_a_full_disk_is_an_error(context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    written = Journal(tmp_path / "records.jsonl")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match="No space left on device"):
        written.append([context.origin(CASE).fields("fused", status="ok")])
    with pytest.raises(UsageError, match="cannot write"):
        Journal(tmp_path)
