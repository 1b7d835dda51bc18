"""`mfbench verify`: what passes, and that a fault planted in any one output makes it fail and name the output."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.mfbench.cli_runner import mfbench_here

PLANTS = """
import torch
from kernels import mf_loss_and_grads

def step(*arguments):
    loss, grads = mf_loss_and_grads(*arguments, backend="torch")
    return [loss, *grads]

def planted(output, change):
    def provider(*arguments):
        outputs = step(*arguments)
        outputs[output] = change(outputs[output])
        return outputs[0], outputs[1:]
    return provider

zero_loss = planted(0, torch.zeros_like)
double_user_factors = planted(1, lambda value: 2 * value)
zero_item_factors = planted(2, torch.zeros_like)
missing_user_bias = planted(3, torch.zeros_like)
halved_item_bias = planted(4, lambda value: value / 2)
negated_global_bias = planted(5, torch.neg)
half_precision = planted(2, lambda value: value.bfloat16().to(value.dtype))
wrong_dtype = planted(3, lambda value: value.to(torch.float32 if value.dtype == torch.float64 else torch.float64))

def mask_ignored_at_a_tile_edge(P, Q, bu, bi, mu, ratings, mask, reg):
    if mask is None:
        mask = ~ratings.isnan()
    mask = mask != 0
    clean = torch.where(mask, ratings, 3).to(ratings.dtype)
    mask[:, 15::16] = True  # the last column of every tile
    loss, grads = step(P, Q, bu, bi, mu, clean, mask, reg)[0], step(P, Q, bu, bi, mu, clean, mask, reg)[1:]
    return loss, grads

def raises(*arguments):
    raise RuntimeError("out of order")
"""

NAMED = {
    "zero_loss": "loss is off by",
    "double_user_factors": "user_factors is off by",
    "zero_item_factors": "item_factors is off by",
    "missing_user_bias": "user_bias is off by",
    "halved_item_bias": "item_bias is off by",
    "negated_global_bias": "global_bias is off by",
    "half_precision": "item_factors is off by",
    "wrong_dtype": "user_bias is float64, expected float32",
    "mask_ignored_at_a_tile_edge": "item_bias is off by",
    "raises": "RuntimeError: out of order",
}


@pytest.mark.parametrize("cases", [8, pytest.param(42, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_every_backend_here_passes(monkeypatch, capsys, cases: int) -> None:
    assert mfbench_here(monkeypatch, "verify", "--cases", cases, "--seed", 3, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["failures"] == []
    names = [tally["provider"] for tally in result["providers"]]
    assert {
        "torch", "interpret", "interpret deterministic", "interpret bf16x3", "torch encoded", "torch sparse",
        "torch sparse deterministic", "torch sparse encoded", "autograd",
    } <= set(names)  # fmt: skip
    assert all(tally["passed"] == tally["problems"] == cases for tally in result["providers"])
    assert all(0 < max(tally["worst"].values()) <= 1 for tally in result["providers"])


@pytest.mark.parametrize("plant", NAMED)
def test_plants_fail_and_are_named(tmp_path: Path, monkeypatch, capsys, plant: str) -> None:
    path = tmp_path / "plants.py"
    path.write_text(PLANTS)
    assert mfbench_here(monkeypatch, "verify", "--provider", f"{path}:{plant}", "--cases", 12) == 1
    output = capsys.readouterr()
    assert NAMED[plant] in output.err
    assert "of 12" in output.out


def test_the_unplanted_provider_passes(tmp_path: Path, monkeypatch, capsys) -> None:
    path = tmp_path / "plants.py"
    path.write_text(PLANTS + "\ndef honest(*arguments):\n    loss, *grads = step(*arguments)\n    return loss, grads\n")
    assert mfbench_here(monkeypatch, "verify", "--provider", f"{path}:honest", "--cases", 12) == 0


def test_no_provider_spoils_anything_for_the_next(tmp_path: Path, monkeypatch, capsys) -> None:
    path = tmp_path / "plants.py"
    path.write_text(
        PLANTS
        + """
def honest(*arguments):
    loss, *grads = step(*arguments)
    return loss, grads

def writes_nan(*arguments):
    loss, grads = honest(*arguments)
    grads[0] *= float("nan")
    arguments[0].fill_(float("nan"))
    return loss, grads
"""
    )
    names = f"{path}:writes_nan,{path}:honest"
    assert mfbench_here(monkeypatch, "verify", "--provider", names, "--cases", 12, "--json") == 1
    result = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)  # JSON has no Infinity
    assert [tally["passed"] for tally in result["providers"]] == [0, 12]
    assert result["providers"][0]["worst"]["user_factors"] is None
