"""A lower bound on a tile's time from its compiled loop and published rates: modelled, never measured.

The model assumes that every resource is always busy. It ignores latencies, bank conflicts, queues and clocks below
boost, and counts memory that threads share once.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel

from mfbench.inspect.devices import DeviceRates
from mfbench.inspect.machine_code import Mix


class Modelled(BaseModel):
    """Clocks of one multiprocessor for one tile, by resource."""

    issue: float  # instructions issued
    vector: float  # floating-point instructions
    matrix: float
    shared: float
    l2: float  # item factors read and their gradients added; an atomic addition counts as its bytes
    dram: float  # ratings and mask
    binds: str  # the largest
    dram_fraction: float  # of the memory bandwidth, if only the largest takes time
    issue_over_dram: float


@dataclass(frozen=True)
class Tile:
    """The operands of one pass of the loop."""

    users: int
    items: int
    columns: int  # of the padded factors
    warps: int
    products: int  # passes over the operands per product: 3 if they are split in halves
    arithmetic: str  # "ieee", "tf32", "bfloat16", "float64"
    bytes_per_rating: float  # ratings and mask
    operand_bytes: int = 4  # of a factor, both halves together
    sum_bytes: int = 4  # of an element of a gradient


def modelled(mix: Mix, tile: Tile, device: DeviceRates) -> Modelled:
    """Return the clocks of each resource, and the resource that binds."""
    threads = tile.warps * device.warp
    flops = 3 * tile.products * 2 * tile.users * tile.items * tile.columns
    rate = device.matrix_flops.get(tile.arithmetic, 0)
    reads = sum(mix.shared_load.values()) * threads / 32  # at least one address for all threads
    moved = (Mix.bytes(mix.fragment_load) + Mix.bytes(mix.shared_store)) * threads / device.shared_rate
    factors = tile.items * tile.columns * (tile.operand_bytes + tile.sum_bytes * (2 if mix.store else 1))
    tile_bytes = tile.users * tile.items * tile.bytes_per_rating
    clocks = {
        "issue": mix.issued * tile.warps / device.issue,
        "vector": mix.vector * threads / device.lanes,
        "matrix": flops / rate if mix.matrix and rate else 0.0,
        "shared": reads + moved,
        "l2": factors / device.l2_bytes,
        "dram": tile_bytes / device.dram_bytes,
    }
    binds = max(clocks, key=lambda resource: clocks[resource])
    return Modelled(
        **clocks, binds=binds, dram_fraction=clocks["dram"] / clocks[binds],
        issue_over_dram=clocks["issue"] / clocks["dram"],
    )  # fmt: skip


def resident_blocks(device: DeviceRates, warps: int, registers: int, shared_bytes: int) -> int:
    """Return the resident programs per multiprocessor, by registers, shared memory and its own limits."""
    given = -(-max(registers, 1) // device.register_unit) * device.register_unit
    by_registers = device.registers // (given * device.warp) // warps
    by_shared = device.shared_bytes // (shared_bytes + 1024) if shared_bytes else device.blocks
    return min(by_registers, by_shared, device.blocks, device.warps // warps)
