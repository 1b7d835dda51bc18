"""Configurations to compile, and tiles to compile them with."""

from kernels.gpu.config import shipped_rows
from kernels.gpu.tiles import WIDTHS, Row
from mfbench.inspect.document import Spec


def spec(target="sm_80", rank=30, precision="tf32", encoding="float32+uint8", mode="fast"):
    return Spec(target, rank, precision, encoding, mode)


def with_tile(monkeypatch, target, precision, tile):
    monkeypatch.setitem(shipped_rows()[target], precision, {w: Row(target, precision, w, tile) for w in WIDTHS})
