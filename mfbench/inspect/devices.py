"""Published rates of one device per target, which the model divides by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DeviceRates:
    """Rates per clock of one multiprocessor (or compute unit), from the data sheet at boost clock."""

    name: str
    dram_bytes: float  # bandwidth of the device / multiprocessors / clock
    issue: float  # warp (or wave) instructions issued
    lanes: int  # float32 operations of the vector units
    matrix_flops: dict[str, int]  # by the arithmetic of the product; all else runs on the vector units
    registers: int  # 32-bit, for all threads
    register_unit: int  # allocation granularity, registers per thread
    warp: int  # threads
    warps: int  # most resident
    blocks: int  # most resident
    shared_bytes: int  # for all resident blocks
    shared_rate: int = 128  # bytes
    l2_bytes: int = 64  # to and from the shared cache


def _nvidia(name: str, dram_bytes: float, lanes: int, tf32: int, bf16: int, fp64: int, warps: int, blocks: int,
            shared_kib: int) -> DeviceRates:  # fmt: skip
    matrix = {"tf32": tf32, "bfloat16": bf16, "float64": fp64}
    return DeviceRates(name, dram_bytes, 4, lanes, matrix, 65536, 8, 32, warps, blocks, shared_kib << 10)


def _amd(name: str, dram_bytes: float, float32: int, tf32: int, bf16: int, shared_kib: int) -> DeviceRates:
    """Return the rates of a CDNA device, whose four units of 16 lanes take four clocks for a wave of 64."""
    matrix = {"ieee": float32, "tf32": tf32, "bfloat16": bf16}
    return DeviceRates(name, dram_bytes, 1, 64, matrix, 131072, 8, 64, 32, 32, shared_kib << 10)


def _radeon(name: str, dram_bytes: float, bf16: int) -> DeviceRates:
    """Return the rates of an RDNA device: two units of 32 lanes, waves of 32, half a work-group processor's memory."""
    return DeviceRates(name, dram_bytes, 2, 64, {"bfloat16": bf16}, 98304, 8, 32, 32, 16, 64 << 10)


DEVICE_RATES = {
    "sm_80": _nvidia("A100 40 GB", 10.2, 64, 1024, 2048, 128, 64, 32, 164),
    "sm_86": _nvidia("RTX 3090", 6.7, 128, 256, 512, 0, 48, 16, 100),
    "sm_89": _nvidia("RTX 4090", 3.1, 128, 256, 512, 0, 48, 24, 100),
    "sm_90": _nvidia("H100 SXM", 14.5, 128, 2048, 4096, 256, 64, 32, 228),
    "sm_100": _nvidia("B200", 29.2, 128, 4096, 8192, 128, 64, 32, 228),
    "sm_120": _nvidia("RTX 5090", 4.4, 128, 256, 512, 0, 48, 24, 100),
    "gfx90a": _amd("MI250X, one die", 8.8, 256, 0, 1024, 64),
    "gfx942": _amd("MI300X", 8.3, 256, 1024, 2048, 64),
    "gfx950": _amd("MI355X", 13.0, 256, 0, 4096, 160),
    "gfx1100": _radeon("RX 7900 XTX", 4.0, 512),
    "gfx1201": _radeon("RX 9070 XT", 3.4, 1024),
}
