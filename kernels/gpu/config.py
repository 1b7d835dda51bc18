"""Launch choices in pure Python: which tile and grid for a target, rank, precision and dtypes; what is not shipped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kernels.gpu.tile_table import OLD_TABLE, TABLE
from kernels.gpu.tiles import SPILLS, WIDEST, WIDTHS, Row, Rows, Tile, nested
from kernels.gpu.version import FLOAT64_UNITS, is_old, orders_copies

if TYPE_CHECKING:
    from torch import Tensor

MAX_RANK = 1024
TCGEN05_ROWS = 64  # fewest rows of a product by tcgen05; Triton uses mma.sync for smaller ones
WORKSPACE_BYTES = 64 << 20  # bound on the slices of partial gradients, beyond one slice of each side
WITHOUT_ATOMICS = ("gfx90a",)  # float32 atomics compile to compare-and-swap loops
OLD_WITHOUT_ATOMICS = ("gfx1100",)  # and these with an older Triton
PROGRAMS_PER_MULTIPROCESSOR = 4  # launched in the fast mode, where the problem has enough tiles
DETERMINISTIC_PROGRAMS = 256  # fixed, so that the result does not depend on the number of multiprocessors
TILES, OLD_TILES = nested(TABLE), nested([*TABLE, *OLD_TABLE])  # the latter with an older Triton
INTERPRETED = {width: Row("cpu", "any", width, Tile(64, 64, 4, chunk=64 * (width == "wide"))) for width in WIDTHS}


class NotShipped(ValueError):
    """No clean build of the kernel for a target; the message is the reason."""


@dataclass(frozen=True)
class Target:
    """The properties of a device that a launch depends on."""

    name: str  # "sm_90", "gfx942", "xpu"; "cpu" is Triton's interpreter
    multiprocessors: int
    shared_bytes: int  # limit per program

    @property
    def backend(self) -> str:
        """Triton's name for the backend: "cuda", "hip", "xpu" or "interpreter"."""
        for prefix, backend in (("sm_", "cuda"), ("gfx", "hip"), ("xpu", "xpu")):
            if self.name.startswith(prefix):
                return backend
        return "interpreter"

    @property
    def has_tensor_memory(self) -> bool:
        """Return whether Triton multiplies with tcgen05, on sm_100 to sm_110 but not on sm_120."""
        return self.backend == "cuda" and 100 <= int(self.name.removeprefix("sm_")) < 120

    @property
    def has_atomics(self) -> bool:
        """Return whether float32 atomics compile to instructions."""
        return self.name not in WITHOUT_ATOMICS + OLD_WITHOUT_ATOMICS * is_old()

    @property
    def stages(self) -> int:
        """Return Triton's `num_stages`: 2 loads the next ratings during the products, 1 does not.

        On AMD the next ratings would be held in registers, which spill.
        """
        unordered = (self.name == "sm_90" or self.has_tensor_memory) and not orders_copies()
        return 1 if self.backend == "hip" or unordered else 2


# Multiprocessors and shared memory limit per program, of one device of each architecture.
TARGETS = {
    name: Target(name, multiprocessors, kib << 10)
    for name, multiprocessors, kib in (
        ("sm_80", 108, 163),  # A100
        ("sm_86", 82, 99),  # RTX 3090
        ("sm_89", 128, 99),  # RTX 4090
        ("sm_90", 132, 227),  # H100
        ("sm_100", 148, 227),  # B200
        ("sm_120", 170, 99),  # RTX 5090
        ("gfx90a", 104, 64),  # MI250X, one die
        ("gfx942", 304, 64),  # MI300X
        ("gfx950", 256, 160),  # MI355X
        ("gfx1100", 96, 64),  # RX 7900 XTX
        ("gfx1201", 64, 64),  # RX 9070 XT
    )
}


@dataclass(frozen=True)
class Arithmetic:
    """How the operands of the three products are stored and multiplied."""

    input_precision: str  # of tl.dot
    split: int = 0  # float32 operands become two halves, the low one with this many mantissa bits; 0: whole
    half: str = "float32"  # dtype of the halves
    rounded: int = 0  # mantissa bits by which whole factors are rounded, since the hardware would truncate them
    steps: int = 0  # most steps of a tensor core in which one product may sum over the rank; 0: any number


ARITHMETIC = {
    "ieee": Arithmetic("ieee"),
    "tf32x3": Arithmetic("tf32", split=13, steps=8),
    "bf16x3": Arithmetic("ieee", split=16, half="bfloat16"),
    "tf32": Arithmetic("tf32", rounded=13),
    "float64": Arithmetic("ieee"),
}


@dataclass(frozen=True)
class Config:
    """One build of the kernel."""

    arithmetic: Arithmetic
    BM: int  # users of a tile
    BN: int  # items of a tile
    BK: int  # columns of the padded factors
    sums: bool  # bias gradients by summing E, not from two extra columns
    chunk: int  # as in `Tile`, like num_warps, resident and frugal
    num_warps: int
    backend: str = "interpreter"
    atomics: bool = True  # False: each group adds into its own dB, since atomics would be loops
    resident: int = 0
    frugal: bool = False
    depth: int = 0  # columns of the factors in one product of the fused pass; 0: all
    tensor_memory: bool = False  # the target's matrix units write to it: tcgen05, for tiles of at least 64 users
    stages: int = 2  # as in `Target`

    @property
    def lanes(self) -> int:
        """Partial sums of squared errors per user: as few as each thread can form from items that it holds itself.

        Of a matrix instruction's result a thread holds every 16th item, or neighbours: 16 sums. Of products by FMA it
        holds neighbouring items, so fewer sums would mean exchanges between threads, whereas one sum per item costs
        nothing: x * x + y contracts to an FMA.
        """
        return self.BN if self.vector_units else 16

    @property
    def adjacent(self) -> bool:
        """Return whether a partial sum takes adjacent items, not every 16th.

        From tensor memory a thread loads neighbouring items of a user, so that these need no exchange between threads.
        """
        return self.tensor_memory and self.BM >= TCGEN05_ROWS and not self.vector_units

    @property
    def vector_units(self) -> bool:
        """Return whether FMAs form float32 products, not matrix instructions."""
        return self.arithmetic.input_precision == "ieee" and not self.arithmetic.split

    @property
    def options(self) -> dict[str, int | str]:
        """The compiler's options."""
        options: dict[str, int | str] = {"num_warps": self.num_warps, "num_stages": self.stages}
        if self.backend == "hip":
            return options | {"matrix_instr_nonkdim": 16}
        ptxas = [f"--minnctapersm {self.resident}"] * bool(self.resident) + ["--register-usage-level 0"] * self.frugal
        if ptxas and self.backend == "cuda":
            options["ptx_options"] = " ".join(ptxas)
        return options


@dataclass(frozen=True)
class Grid:
    """The launch grid: program (g, s) takes user blocks g, g + groups, ... and the item tiles of split s."""

    groups: int
    splits: int
    user_blocks: int
    tiles: int  # of items
    tiles_per_split: int


def undecodable(mask: Tensor | None) -> str:
    """Return why the kernel cannot read a mask; empty if it can. Not every target and interpreter loads float8."""
    if mask is not None and mask.is_floating_point() and mask.dtype.itemsize == 1:
        return f"this kernel does not decode masks of {mask.dtype}; pass mask.half()"
    return ""


def factor_columns(rank: int) -> tuple[int, bool]:
    """Return the columns BK of the padded factors, and whether bias gradients are summed, having no columns.

    BK is a power of two, at least 16; the two extra columns are dropped if they would double a BK above 32.
    """
    padded, plain = (max(16, 1 << (columns - 1).bit_length()) for columns in (rank + 2, rank))
    return (plain, True) if padded > plain >= 64 else (padded, False)


def width_of(rank: int) -> str:
    """Return the one of `WIDTHS` whose tiles a rank uses."""
    columns, sums = factor_columns(rank)
    return "wide" if rank > WIDEST else f"{columns}s" if sums else f"{columns}"


def pick(
    target: Target, rank: int, precision: str, deterministic: bool, parameter_bytes: int = 4, aligned: bool = True,
    packed: bool = False, weighted: bool = False,
) -> Config:  # fmt: skip
    """Return the build for a target.

    Args:
        deterministic: each group of programs has its own dB.
        aligned: ratings and mask can be loaded in vectors.
        packed: the mask is packed in bits.
        weighted: the mask holds weights.

    Raises:
        NotShipped: there is no clean build; the message says why.
    """
    if rank > MAX_RANK and target.backend != "interpreter":
        raise NotShipped(f"rank {rank}: the largest is {MAX_RANK}")
    precision = "float64" if parameter_bytes == 8 else precision
    if precision == "float64" and target.name in FLOAT64_UNITS and is_old():
        raise NotShipped("float64 parameters: this version of Triton fails to compile them for matrix units; 3.9 does")
    rows = _rows(target)
    if precision not in rows:
        raise NotShipped(f"precision {precision}: {target.backend} has {', '.join(rows) or 'none'} on this device")
    BK, sums = factor_columns(rank)
    row = rows[precision][width_of(rank)]
    atomics = target.has_atomics
    tile = row.tile(deterministic or not atomics, aligned, packed, weighted)
    if tile == SPILLS:
        raise NotShipped(f"rank {rank} at precision {precision}: every tile that was tried spills registers")
    if tile.chunk:
        BK, sums = -(-rank // tile.chunk) * tile.chunk, True
    arithmetic = ARITHMETIC[precision]
    return Config(
        arithmetic, tile.BM, tile.BN, BK, sums, tile.chunk, tile.num_warps, target.backend, atomics,
        tile.resident, tile.frugal, min(BK, most_columns(arithmetic, target)), target.has_tensor_memory,
        target.stages,
    )  # fmt: skip


def most_columns(arithmetic: Arithmetic, target: Target) -> int:
    """Return the most columns of the factors over which a product may sum on a target: a bound on CHUNK and DEPTH.

    A step of a tensor core, from one truncation to the next, takes 8 terms of tf32, and 4 before Hopper.
    """
    short = target.backend == "cuda" and int(target.name.removeprefix("sm_")) < 90
    return arithmetic.steps * (4 if short else 8) or MAX_RANK


def shipped_rows() -> Rows:
    """Return the rows of every target for the installed Triton."""
    return OLD_TILES if is_old() else TILES


def _rows(target: Target) -> dict[str, dict[str, Row]]:
    """Return rows by precision and width. An unknown device gets those of its generation, or the most frugal ones."""
    if target.backend == "interpreter":
        return dict.fromkeys(ARITHMETIC, INTERPRETED)
    rows = shipped_rows()
    if target.name in rows:
        return rows[target.name]
    if target.backend == "hip":
        raise NotShipped(f"{target.name}: no build was checked for it")
    if target.backend == "xpu":
        return {"ieee": rows["sm_86"]["ieee"]}
    capability = int(target.name.removeprefix("sm_"))
    if capability < 80:
        raise NotShipped(f"{target.name}: the oldest is sm_80")
    if target.shared_bytes >= TARGETS["sm_100"].shared_bytes and capability >= 100:
        return rows["sm_100"]
    return rows["sm_86"]


def deal(target: Target, config: Config, m: int, n: int, deterministic: bool, parameter_bytes: int = 4) -> Grid:
    """Return a grid with enough programs to fill the device, and partial gradients within `WORKSPACE_BYTES`.

    Each split has its own dA and, if deterministic, each group its own dB.
    """
    user_blocks, tiles = -(-m // config.BM), -(-n // config.BN)
    row = config.BK * parameter_bytes
    dA_bytes, dB_bytes = user_blocks * config.BM * row, tiles * config.BN * row
    if not deterministic:
        groups = user_blocks
        wanted = round(PROGRAMS_PER_MULTIPROCESSOR * target.multiprocessors / user_blocks)
        splits = max(1, min(wanted, tiles, 1 + WORKSPACE_BYTES // dA_bytes))
    else:
        groups = splits = 1
        while groups * splits < DETERMINISTIC_PROGRAMS:
            # Add the group or the split whose partial gradients cost the fewest bytes per added program.
            options = [
                (dB_bytes / splits, groups + 1, splits, groups < user_blocks),
                (dA_bytes / groups, groups, splits + 1, splits < tiles),
            ]
            options = [option for option in options if option[3]]
            if not options:
                break
            _, more_groups, more_splits, _ = min(options)
            if (more_groups - 1) * dB_bytes + (more_splits - 1) * dA_bytes > WORKSPACE_BYTES:
                break
            groups, splits = more_groups, more_splits
    tiles_per_split = -(-tiles // splits)
    return Grid(groups, -(-tiles // tiles_per_split), user_blocks, tiles, tiles_per_split)
