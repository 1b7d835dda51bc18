"""Record files: what was written is read, a torn tail is noted and cut off, a full disk loses nothing."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mfbench.errors import UsageError
from mfbench.problems.cases import Case
from mfbench.results.records import Record, read
from mfbench.results.writer import Writer


def record(number: int = 0, **changes) -> Record:
    case = Case(suite="t", m=3 + number, n=4, rank=2, density=0.5, ratings_dtype="float32", mask="uint8",
                data="synthetic", seed=1)  # fmt: skip
    fields = {"run_id": "r", "time": "2026-01-01T00:00:00+00:00", "case": case, "provider": "fused", "device": "cpu",
              "status": "skipped", "reason": 'no "data" <b>here</b> ✓', "env": {"cpu": "x"}}  # fmt: skip
    return Record(**(fields | changes))


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    written = [record(number) for number in range(5)]
    writer = Writer(path)
    writer.append(written[:2])
    writer.append(written[2:])
    writer.close()
    assert read(path) == (written, [])
    assert b'"schema":1' in path.read_bytes()


@pytest.mark.parametrize("cut", [2, 20, 100])
def test_a_torn_last_line_is_noted_and_cut_off(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "r.jsonl"
    writer = Writer(path)
    writer.append([record(0), record(1)])
    writer.close()
    path.write_bytes(path.read_bytes()[:-cut])
    found, notes = read(path)
    assert found == [record(0)]
    assert notes == [f"{path}: the last line is torn and was left out"]
    writer = Writer(path)
    writer.append([record(2)])
    writer.close()
    assert read(path) == ([record(0), record(2)], [])


@pytest.mark.parametrize("whole", [1, 2, 3])
def test_a_last_line_without_a_newline_is_whole(tmp_path: Path, whole: int) -> None:
    path = tmp_path / "r.jsonl"
    written = [record(number) for number in range(whole)]
    writer = Writer(path)
    writer.append(written)
    writer.close()
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert read(path) == (written, [])
    writer = Writer(path)
    writer.append([record(9)])
    writer.close()
    assert read(path) == ([*written, record(9)], [])


@pytest.mark.parametrize(
    ("encoding", "newline"), [("utf-8-sig", "\n"), ("utf-8-sig", "\r\n"), ("utf-16", "\n"), ("utf-16", "\r\n")]
)
def test_a_byte_order_mark_loses_no_record(tmp_path: Path, encoding: str, newline: str) -> None:
    path = tmp_path / "r.jsonl"
    written = [record(0), record(1)]
    lines = (one.model_dump_json(exclude_none=True) + newline for one in written)
    path.write_bytes("".join(lines).encode(encoding))
    assert read(path) == (written, [])


def test_records_are_appended_behind_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes((record(0).model_dump_json(exclude_none=True) + "\n").encode("utf-8-sig"))
    writer = Writer(path)
    writer.append([record(1)])
    writer.close()
    assert read(path) == ([record(0), record(1)], [])


def test_lines_that_are_no_records_are_named(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    good = record().model_dump_json(exclude_none=True)
    path.write_text(f'{good}\n{{"schema": 1}}\nnot json\n\n{good}\n')
    found, notes = read(path)
    assert len(found) == 2
    assert [note.split(": ")[1].split(" is")[0] for note in notes] == ["line 2", "line 3"]


@pytest.mark.parametrize(
    "content", [b"my precious thesis", b'{"my": "settings"}', b"one line\nand a last one", b"one line\n"]
)
def test_a_file_of_something_else_is_not_touched(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"out: expected a file of records, got .*, which holds something else"):
        Writer(path)
    assert path.read_bytes() == content


def test_a_run_that_writes_no_record_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    Writer(path).close()
    assert not path.exists()
    path.touch()
    Writer(path).close()
    assert path.exists()  # another's file stays, though empty


def test_a_file_that_disappears_meanwhile_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    fails, succeeds = Writer(path), Writer(path)
    fails.close()
    succeeds.append([record(0)])
    path.unlink()
    succeeds.append([record(1)])
    succeeds.close()
    assert read(path) == ([record(1)], [])


def test_two_writers_take_turns(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    first, second = Writer(path), Writer(path)
    for number in range(4):
        (first, second)[number % 2].append([record(number)])
        Writer(path).close()
    assert read(path) == ([record(number) for number in range(4)], [])


def test_a_device_can_be_written_to() -> None:
    writer = Writer(Path("/dev/null"))
    writer.append([record()])
    writer.close()


def test_unwritable_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"out: cannot write .*: Is a directory"):
        Writer(tmp_path)
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read(tmp_path / "none.jsonl")


def test_full_disk_keeps_what_was_finished(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "r.jsonl"
    writer = Writer(path)
    writer.append([record(0)])
    write, room = os.write, [60]

    def write_what_fits(file: int, content: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(file, content[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr("mfbench.results.writer.os.write", write_what_fits)
    with pytest.raises(UsageError, match="No space left on device"):
        writer.append([record(1)])
    writer.close()
    assert read(path) == ([record(0)], [])


def test_the_page_on_records_is_current() -> None:
    root = Path(__file__).parents[3]
    settings = os.environ | {"PYTHONPATH": str(root)}
    script = root / "docs" / "records.py"
    written = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, env=settings).stdout
    assert (root / "docs" / "records.md").read_text() == written, "run: python docs/records.py > docs/records.md"
    for name in ("placements", "throttled", "disturbed", "dropped", "foreign_cores", "family", "code"):
        assert f"| `{name}` |" in written
