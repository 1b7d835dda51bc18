"""Providers that look fast without doing the work are wrong; an honest one beside them is not accused."""

from __future__ import annotations

from pathlib import Path

from mfbench.records import read
from tests.mfbench.commands import mfbench, tiny_suite

CHEATS = """
import sys, threading, time
import torch
from kernels import mf_loss_and_grads

def honest(*arguments):
    return mf_loss_and_grads(*arguments, backend="torch")

kept = {}

def kept_under(key, arguments):
    if key not in kept:
        loss, grads = honest(*arguments)
        kept[key] = loss.clone(), [grad.clone() for grad in grads]
    loss, grads = kept[key]
    return loss.clone(), [grad.clone() for grad in grads]

def replays_by_pointer(*arguments):
    return kept_under(tuple(argument.data_ptr() for argument in arguments[:7]), arguments)

def replays_by_content(*arguments):
    return kept_under(tuple(float(argument.reshape(-1)[0]) for argument in arguments[:5]), arguments)

def replays_one_buffer(*arguments, buffers=[]):
    if not buffers:
        buffers.append(honest(*arguments))
    return buffers[0]

calls = 0

def tires(*arguments):
    global calls
    calls += 1
    if calls < 4:
        return honest(*arguments)
    return torch.zeros((), dtype=torch.float64), [torch.zeros_like(argument) for argument in arguments[:5]]

def knows_when_it_is_timed(*arguments):
    if sys._getframe(1).f_code.co_name == "sample":
        return torch.zeros((), dtype=torch.float64), [torch.empty_like(argument) for argument in arguments[:5]]
    return honest(*arguments)

def turns_the_clock_back(*arguments):
    import mfbench.cpu
    mfbench.cpu.clock = lambda: time.perf_counter() / 50
    return honest(*arguments)

class Later:
    def __init__(self, compute):
        self.compute = compute
    def __array__(self, dtype=None, copy=None):
        return self.compute().numpy()

def computes_when_looked_at(*arguments):
    return Later(lambda: honest(*arguments)[0]), [
        Later(lambda place=place: honest(*arguments)[1][place]) for place in range(5)
    ]

def returns_before_it_is_done(*arguments):
    loss = torch.empty((), dtype=torch.float64)
    grads = [torch.empty_like(argument) for argument in arguments[:5]]
    def work():
        time.sleep(0.02)
        for mine, right in zip([loss, *grads], [honest(*arguments)[0], *honest(*arguments)[1]]):
            mine.copy_(right)
    threading.Thread(target=work, daemon=True).start()
    return loss, grads

def empties_the_mask(*arguments):
    result = honest(*arguments)
    arguments[6].zero_()
    return result
"""

CAUGHT = {
    "replays_by_pointer": "after timing, on parameters it had not seen",
    "replays_by_content": "s on new parameters and",
    "replays_one_buffer": "is off by",
    "tires": "while it was timed",
    "knows_when_it_is_timed": "while it was timed",
    "turns_the_clock_back": "passed unseen by its own clock",
    "computes_when_looked_at": "Could not infer dtype",
    "returns_before_it_is_done": "is off by",
    "empties_the_mask": "changed its input mask",
}


def test_cheats_are_caught(tmp_path: Path) -> None:
    path, out = tmp_path / "cheats.py", tmp_path / "out.jsonl"
    path.write_text(CHEATS)
    providers = ",".join(f"{path}:{name}" for name in ("honest", *CAUGHT))
    options = ("--size", "1024x1024", "--rank", 40, "--budget", 1, "--threads", 1, "--baseline", f"{path}:honest")
    done = mfbench(
        "run", "--suite", tiny_suite(tmp_path), "--out", out, "--provider", providers, *options, cwd=tmp_path
    )
    assert done.returncode == 1, done.stderr
    found = {record.provider.rpartition(":")[2]: record for record in read(out)[0]}
    assert found.keys() == {"honest", *CAUGHT}
    assert found["honest"].status == "ok", found["honest"].reason
    for name, reason in CAUGHT.items():
        assert found[name].status == "wrong", found[name].reason
        assert found[name].timing is None
        assert reason in (found[name].reason or ""), (name, found[name].reason)
