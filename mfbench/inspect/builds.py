"""Compile the shipped builds of the step for their targets, and read, check and model them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from typing import NamedTuple

import torch
from torch import Tensor

from kernels import EncodedRatings
from kernels.aot import Launch, plan_step
from kernels.encoded import observations_of
from kernels.gpu.config import ARITHMETIC, TARGETS, factor_columns
from kernels.problem import check_problem, packed_words
from mfbench.inspect.devices import DEVICE_RATES
from mfbench.inspect.disassembly import disassemble
from mfbench.inspect.document import Build, NotBuilt, Spec, not_built, resources
from mfbench.inspect.executed import unexecuted
from mfbench.inspect.machine_code import Mix, compare_and_swap, main_loop
from mfbench.inspect.model import Tile, modelled, resident_blocks
from mfbench.inspect.sparse import SPARSE_ENCODINGS, SPARSE_PRECISIONS, compile_sparse, examined_sparse
from mfbench.inspect.traffic import traffic

RANKS = (8, 16, 30, 32, 64, 100, 128, 256)  # every width of the padded factors, some with padding
PRECISIONS = tuple(ARITHMETIC)


class Encoding(NamedTuple):
    """How ratings and mask are stored."""

    dtype: torch.dtype
    form: str  # a mask's dtype, or "nan", "code", "bits"
    bytes: float  # per rating, including its mask
    odd: bool = False  # row length not a multiple of 16, which rules out vector loads

    @property
    def demanding(self) -> bool:
        """Both modes have the same tile: it is small, for the registers that addresses or weights take."""
        return self.odd or self.form == "float32"

    @property
    def vector_bytes(self) -> int:
        """Smallest number of bytes that one load instruction should fetch per thread."""
        return self.dtype.itemsize if self.odd else 4 if self.dtype.itemsize == 1 else 8


ENCODINGS = {
    "float32+uint8": Encoding(torch.float32, "uint8", 5),
    "float32+float32": Encoding(torch.float32, "float32", 8),
    "float32-nan": Encoding(torch.float32, "nan", 4),
    "bfloat16-nan": Encoding(torch.bfloat16, "nan", 2),
    "uint8-code": Encoding(torch.uint8, "code", 1),
    "uint8-bits": Encoding(torch.uint8, "bits", 1.125),
    "odd-float32+uint8": Encoding(torch.float32, "uint8", 5, odd=True),
    "odd-float32+float32": Encoding(torch.float32, "float32", 8, odd=True),
    "odd-uint8-code": Encoding(torch.uint8, "code", 1, odd=True),
}
MODES = ("fast", "deterministic", "sse")  # sse: the loss without gradients, inspected of sparse ratings alone
TRAFFIC_SIZE = 16384  # users and items of the modelled traffic
MOST_TOGETHER = 16  # builds that are disassembled at once
SIZE = 4096  # users and items of the compiled problem: aligned rows, several blocks of users per program


Parameters = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
Ratings = Tensor | EncodedRatings


def specs(targets: Iterable[str], ranks: Iterable[int], precisions: Iterable[str], encodings: Iterable[str],
          modes: Iterable[str]) -> list[Spec]:  # fmt: skip
    """Return the combinations that are built separately: of sparse ratings, one build serves all float32 precisions."""
    every = [Spec(*choice) for choice in itertools.product(targets, ranks, precisions, encodings, modes)]
    return [spec for spec in every if _has_own_build(spec)]


def _has_own_build(spec: Spec) -> bool:
    sparse = spec.encoding in SPARSE_ENCODINGS
    return spec.precision in SPARSE_PRECISIONS if sparse else spec.mode != "sse"


def distinct(wanted: list[Spec]) -> list[Spec]:
    """Drop the fast mode of odd rows and weights, whose tile is the deterministic mode's and needs fewer registers."""
    return [
        spec
        for spec in wanted
        if spec.mode != "fast" or spec.encoding in SPARSE_ENCODINGS or not ENCODINGS[spec.encoding].demanding
    ]


def examine_all(wanted: list[Spec], jobs: int, done: Callable[[], object]) -> Iterator[Build | NotBuilt]:
    """Yield the builds in the order of `wanted`, after the last one has been compiled.

    Args:
        wanted: the configurations.
        jobs: processes to compile in.
        done: called as each build ends; those of one process end several at a time.
    """
    found: dict[Spec, Build | NotBuilt] = {}

    def keep(builds: list[Build | NotBuilt]) -> None:
        for build in builds:
            found[build.spec] = build
            done()

    together = compiled_together(wanted, jobs)
    if jobs == 1:
        for group in together:
            keep(examine_together(group))
    else:
        pool = ProcessPoolExecutor(jobs, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,))
        try:
            for future in as_completed([pool.submit(examine_together, group) for group in together]):
                keep(future.result())
        except BaseException:  # interrupted: do not wait for the compilers
            for process in list((pool._processes or {}).values()):
                process.terminate()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    yield from (found[spec] for spec in wanted)


def compiled_together(wanted: list[Spec], jobs: int) -> list[list[Spec]]:
    """Divide the configurations into groups of one target, which one process compiles.

    Ranks of one width have the same kernel and stay together. A group is disassembled at once, which saves time, but
    there are several groups for each process, so that all have work until the end.
    """
    of_one_kernel: dict[object, list[Spec]] = {}
    for spec in wanted:
        of_one_kernel.setdefault((spec._replace(rank=0), factor_columns(spec.rank)), []).append(spec)
    most = min(MOST_TOGETHER, max(1, len(wanted) // (4 * jobs)))
    groups: dict[str, list[list[Spec]]] = {}
    for ranks in of_one_kernel.values():
        of_target = groups.setdefault(ranks[0].target, [[]])
        if of_target[-1] and len(of_target[-1]) + len(ranks) > most:
            of_target.append([])
        of_target[-1].extend(ranks)
    return list(itertools.chain.from_iterable(groups.values()))


def examine(spec: Spec) -> Build | NotBuilt:
    """Compile and examine one configuration."""
    return examine_together([spec])[0]


def examine_together(group: list[Spec]) -> list[Build | NotBuilt]:
    """Compile and examine configurations of one target."""
    compiled: dict[Spec, list[Launch]] = {}
    failed: dict[Spec, NotBuilt] = {}
    for spec in group:
        try:
            launches = compile_sparse(spec) if spec.encoding in SPARSE_ENCODINGS else _compile(spec)
        except Exception as error:  # a compiler may raise anything
            failed[spec] = not_built(spec, error)
        else:
            compiled[spec] = [replace(launch, args=[]) for launch in launches]  # frees the memory of large operands
    passes = {spec: launches[1] for spec, launches in compiled.items()}  # between what prepares and what finishes
    cubins = {spec: step.cubin for spec, step in passes.items() if step.cubin is not None}
    sass = dict(zip(cubins, disassemble(list(cubins.values()), group[0].target), strict=True))
    return [
        failed[spec] if spec in failed else _examined(spec, compiled[spec], sass.get(spec) or passes[spec].amdgcn or "")
        for spec in group
    ]


def _compile(spec: Spec) -> list[Launch]:
    parameters, ratings, mask = _arguments(spec, SIZE)
    precision = None if spec.precision == "float64" else spec.precision
    deterministic = spec.mode == "deterministic"
    return plan_step(*parameters, ratings, mask, 0.1, precision, deterministic, spec.target).launches


def _examined(spec: Spec, launches: list[Launch], assembly: str) -> Build:
    """Return what the machine code of the pass, and the compiler's account of all launches, tell of a build."""
    if spec.encoding in SPARSE_ENCODINGS:
        return examined_sparse(spec, launches, assembly)
    step = launches[1]
    device, constants = DEVICE_RATES[spec.target], step.constants
    chunk = constants.get("CHUNK", 0)
    mix = main_loop(assembly, constants["BK"] // chunk if chunk else 1)
    tile = Tile(
        constants["BM"], constants["BN"], constants["BK"], step.num_warps, 3 if constants["SPLIT"] else 1,
        _arithmetic(spec.precision), ENCODINGS[spec.encoding].bytes,
        operand_bytes={"float64": 8, "tf32x3": 8}.get(spec.precision, 4),
        sum_bytes=8 if spec.precision == "float64" else 4,
    )  # fmt: skip
    limit = TARGETS[spec.target].shared_bytes
    faults = list(faults_of(spec, launches, assembly, mix, tile, limit))
    return Build(
        **spec._asdict(), tile=f"{tile.users}x{tile.items}x{tile.warps}" + (f"/{chunk}" if chunk else ""),
        registers=step.registers, stack_bytes=step.stack_bytes, shared_bytes=step.shared_bytes, shared_limit=limit,
        blocks=resident_blocks(device, step.num_warps, step.registers, step.shared_bytes),
        mix=mix, bytes_per_rating=tile.bytes_per_rating, traffic=traffic_of(spec), modelled=modelled(mix, tile, device),
        unexecuted=None if step.ptx is None else unexecuted(step.ptx), launches=resources(launches),
        ok=not faults, reason="; ".join(faults),
    )  # fmt: skip


def _arguments(spec: Spec, size: int, device: str = "cpu") -> tuple[Parameters, Ratings, Tensor | None]:
    """Return operands of the right kinds; they are never read, as only their layout is compiled in."""
    dtype = torch.float64 if spec.precision == "float64" else torch.float32
    encoding = ENCODINGS[spec.encoding]
    n = size - 7 if encoding.odd else size
    values = torch.empty(size, n, dtype=encoding.dtype, device=device)
    ratings: Ratings = values
    mask = None
    if encoding.form in ("uint8", "float32"):
        mask = torch.empty(size, n, dtype=getattr(torch, encoding.form), device=device)
    elif encoding.form == "code":
        ratings = EncodedRatings(values, spec.encoding, levels=torch.ones(2, dtype=torch.float64, device=device))
    elif encoding.form == "bits":
        bits = torch.empty(size, packed_words(size), dtype=torch.int32, device=device)
        ratings = EncodedRatings(values, spec.encoding, bits=bits)
    factors = torch.zeros(size, spec.rank, dtype=dtype, device=device)
    bias = torch.zeros(size, dtype=dtype, device=device)
    return (factors, factors[:n], bias, bias[:n], bias[0]), ratings, mask


def traffic_of(spec: Spec) -> float:
    """Return the modelled DRAM bytes of a large step / the bytes of its ratings and mask."""
    parameters, ratings, mask = _arguments(spec, TRAFFIC_SIZE, "meta")
    problem = check_problem(parameters, observations_of(ratings, mask), 0.1)
    return traffic(problem, spec.target, spec.precision, spec.mode == "deterministic")


def _arithmetic(precision: str) -> str:
    """Return the arithmetic of the products, as `DEVICE_RATES` names it."""
    return {"tf32x3": "tf32", "bf16x3": "bfloat16"}.get(precision, precision)


def faults_of(spec: Spec, launches: list[Launch], assembly: str, mix: Mix, tile: Tile, limit: int) -> Iterator[str]:
    """Yield the faults of a build."""
    for launch in launches:
        if launch.stack_bytes:
            yield f"{launch.name} spills: {launch.stack_bytes} bytes of stack a thread"
        if launch.shared_bytes > limit:
            yield f"{launch.name} takes {launch.shared_bytes} bytes of shared memory, the limit is {limit}"
    if DEVICE_RATES[spec.target].matrix_flops.get(tile.arithmetic) and spec.precision != "float64" and not mix.matrix:
        yield "no matrix instruction in the main loop"
    if compare_and_swap(assembly):
        yield "an atomic addition became a compare-and-swap loop"
    encoding = ENCODINGS[spec.encoding]
    narrowest = encoding.vector_bytes
    wide = sum(width * count for width, count in mix.load_once.items() if width >= narrowest)
    # Chunks of the factors are loaded in inner loops; otherwise the items' factors are loaded beside the ratings.
    chunked = any("CHUNK" in launch.constants for launch in launches)
    factors = 0 if chunked else tile.items * tile.columns * tile.operand_bytes
    loaded = tile.users * tile.items * encoding.dtype.itemsize + factors
    if wide * tile.warps * DEVICE_RATES[spec.target].warp < loaded:
        yield f"ratings are loaded in vectors of less than {narrowest} bytes a thread"
