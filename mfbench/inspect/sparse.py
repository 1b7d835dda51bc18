"""Compile the builds for sparse ratings, and read, check and model them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from kernels import EncodedRatings
from kernels.aot import Launch, plan_loss, plan_step
from kernels.gpu.config import TARGETS
from mfbench.inspect.devices import DEVICE_RATES, DeviceRates
from mfbench.inspect.document import Build, Spec, resources
from mfbench.inspect.executed import unexecuted
from mfbench.inspect.machine_code import Mix, compare_and_swap, main_loop
from mfbench.inspect.model import Modelled, resident_blocks

SPARSE_ENCODINGS = {"sparse-code": torch.uint8, "sparse-float32": torch.float32}
SPARSE_PRECISIONS = ("ieee", "float64")  # one build for all precisions of float32
COLUMN_BYTES = 2  # of items up to 65,536; those of more users, in the order of items, have 4
USERS, ITEMS, RATINGS = 162_541, 59_047, 25_000_095  # MovieLens 25M's shape, of the modelled traffic
SIZE = 40  # users and items of the compiled problem


def compile_sparse(spec: Spec) -> list[Launch]:
    """Compile one configuration."""
    plan = plan_loss if spec.mode == "sse" else plan_step
    deterministic = spec.mode == "deterministic"
    operands = (*_parameters(spec), _ratings(spec))
    return plan(*operands, precision="ieee", deterministic=deterministic, target=spec.target).launches


def examined_sparse(spec: Spec, launches: list[Launch], assembly: str) -> Build:
    """Return what the machine code of the pass, and the compiler's account of all launches, tell of a build."""
    step = launches[1]  # between what prepares and what finishes
    constants = step.constants
    mix, limit = main_loop(assembly), TARGETS[spec.target].shared_bytes
    walks = 2 if spec.mode != "sse" and "item_users_ptr" not in constants else 1
    cached, streamed = bytes_per_rating(spec, constants["BK"], walks)
    model = modelled(mix, constants["ENTRIES"], step.num_warps, walks, cached, streamed, DEVICE_RATES[spec.target])
    faults = list(faults_of(launches, assembly, limit))
    return Build(
        **spec._asdict(), tile=f"{constants['ENTRIES']}x{constants['BK']}x{step.num_warps}",
        registers=step.registers, stack_bytes=step.stack_bytes, shared_bytes=step.shared_bytes, shared_limit=limit,
        blocks=resident_blocks(DEVICE_RATES[spec.target], step.num_warps, step.registers, step.shared_bytes),
        mix=mix, bytes_per_rating=cached + streamed, traffic=_traffic(spec, constants["BK"], streamed), modelled=model,
        unexecuted=None if step.ptx is None else unexecuted(step.ptx), launches=resources(launches),
        ok=not faults, reason="; ".join(faults),
    )  # fmt: skip


def _parameters(spec: Spec) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    dtype = torch.float64 if spec.precision == "float64" else torch.float32
    factors, bias = torch.zeros(SIZE, spec.rank, dtype=dtype), torch.zeros(SIZE, dtype=dtype)
    return factors, factors, bias, bias, bias[0]


def _ratings(spec: Spec) -> EncodedRatings:
    """Return a rating on every place of the diagonal."""
    values = torch.ones(SIZE, dtype=SPARSE_ENCODINGS[spec.encoding])
    levels = torch.ones(2, dtype=torch.float64) if spec.encoding == "sparse-code" else None
    rows, columns = torch.arange(SIZE + 1), torch.arange(SIZE).to(torch.uint16)
    return EncodedRatings(values, spec.encoding, levels, rows=rows, columns=columns, items=SIZE)


def bytes_per_rating(spec: Spec, columns: int, walks: int) -> tuple[float, float]:
    """Return the bytes that a step moves for a rating: of factors and gradients, through the cache, and of the rating.

    A walk gathers a row of the other side's factors and its bias. One walk also adds as much to the gradients; an
    atomic addition counts as its bytes. What belongs to a row's own side, once for all its ratings, is left out.
    """
    row = (columns + 1) * (8 if spec.precision == "float64" else 4)
    added = row if walks == 1 and spec.mode != "sse" else 0
    value = SPARSE_ENCODINGS[spec.encoding].itemsize
    return walks * row + added, value + COLUMN_BYTES + (value + 2 * COLUMN_BYTES if walks == 2 else 0)


def modelled(
    mix: Mix, entries: int, warps: int, walks: int, cached: float, streamed: float, device: DeviceRates
) -> Modelled:
    """Return the clocks of each resource for `entries` ratings, and the resource that binds."""
    threads = warps * device.warp
    clocks = {
        "issue": walks * mix.issued * warps / device.issue,
        "vector": walks * mix.vector * threads / device.lanes,
        "matrix": 0.0,
        "shared": walks * (Mix.bytes(mix.shared_load) + Mix.bytes(mix.shared_store)) * threads / device.shared_rate,
        "l2": entries * (cached + streamed) / device.l2_bytes,
        "dram": entries * streamed / device.dram_bytes,
    }
    binds = max(clocks, key=lambda resource: clocks[resource])
    return Modelled(
        **clocks, binds=binds, dram_fraction=clocks["dram"] / clocks[binds],
        issue_over_dram=clocks["issue"] / clocks["dram"],
    )  # fmt: skip


def bound(build: Build) -> str:
    """Return the modelled bytes and the modelled bound of a build, in a sentence."""
    model = build.modelled
    entries = int(build.tile.split("x")[0])
    clocks = getattr(model, model.binds) / entries
    name, moved = " ".join(map(str, build.spec)), f"{build.bytes_per_rating:.0f} bytes a rating"
    return f"{name}: {moved}, at least {clocks:.2f} clocks of a multiprocessor, bound by {model.binds} (modelled)"


def _traffic(spec: Spec, columns: int, streamed: float) -> float:
    """Return the modelled DRAM bytes of a step / those of its ratings, if item factors and gradients stay in cache.

    Parameters are read twice and gradients written, packed factors written and read, sums likewise; without gradients
    parameters are read once, and packed factors written and read.
    """
    size = 8 if spec.precision == "float64" else 4
    rows, sse = USERS + ITEMS, spec.mode == "sse"
    moved = rows * size * ((spec.rank + 1) * (1 if sse else 3) + (columns + 1) * (2 if sse else 4))
    ratings = RATINGS * (SPARSE_ENCODINGS[spec.encoding].itemsize + COLUMN_BYTES)
    return (RATINGS * streamed + moved + 8 * USERS) / (ratings + 8 * USERS)


def faults_of(launches: list[Launch], assembly: str, limit: int) -> Iterator[str]:
    """Yield the faults of a build."""
    for launch in launches:
        if launch.stack_bytes:
            yield f"{launch.name} spills: {launch.stack_bytes} bytes of stack a thread"
        if launch.shared_bytes > limit:
            yield f"{launch.name} takes {launch.shared_bytes} bytes of shared memory, the limit is {limit}"
    if compare_and_swap(assembly):
        yield "an atomic addition became a compare-and-swap loop"
