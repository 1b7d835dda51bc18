"""Launch choices in pure Python: which tiles for which target, rank, precision and dtypes, and what is not shipped."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kernels.gpu.tiles import INTERPRETED, TILES, WIDEST, WIDTHS

MAX_RANK = 1024
WORKSPACE_BYTES = 64 << 20  # bound on the slices of partial gradients, beyond one slice of each side
WITHOUT_ATOMICS = ("gfx90a",)  # float32 atomics compile to compare-and-swap loops
PROGRAMS_PER_MULTIPROCESSOR = 4
TILE = re.compile(r"(\d+)x(\d+)x(\d+)(?:/(\d+))?(?:@(\d+))?(~?)")  # as in the table
DETERMINISTIC_PROGRAMS = 256  # fixed, so that the result does not depend on the number of multiprocessors


class NotShipped(ValueError):
    """No clean build of the kernel for a target; the message is the reason."""


@dataclass(frozen=True)
class Target:
    """What a launch has to know of a device."""

    name: str  # "sm_90", "gfx942", "xpu"; "cpu" is Triton's interpreter
    multiprocessors: int
    shared_bytes: int  # limit of one program

    @property
    def backend(self) -> str:
        """Triton's backend: "cuda", "hip", "xpu" or "interpreter"."""
        for prefix, backend in (("sm_", "cuda"), ("gfx", "hip"), ("xpu", "xpu")):
            if self.name.startswith(prefix):
                return backend
        return "interpreter"


# Multiprocessors of one device that has the architecture, and its shared memory limit a program.
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
    """How the operands of the three products are held and multiplied."""

    input_precision: str  # of tl.dot
    split: int = 0  # float32 operands as two halves, the low one of this many mantissa bits; 0: whole
    half: str = "float32"  # dtype of the halves
    rounded: int = 0  # whole factors are rounded to this many mantissa bits less, not cut by the hardware


ARITHMETIC = {
    "ieee": Arithmetic("ieee"),
    "tf32x3": Arithmetic("tf32", split=13),
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
    chunk: int  # columns worked on at a time; 0: all, and the users' stay in registers
    num_warps: int
    backend: str = "interpreter"
    atomics: bool = True  # False: each program adds into a dB of its own, since atomics would be loops
    resident: int = 0  # programs that ptxas keeps registers free for on a multiprocessor; 0: as it sees fit
    frugal: bool = False  # ptxas leaves out what takes more registers

    @property
    def lanes(self) -> int:
        """Squared errors kept a user.

        Of a matrix instruction's result a thread holds every 16th item or more, of products by FMA neighbouring ones:
        summing those across threads would give each of them a sum of its own, since x * x + y contracts to an FMA.
        """
        return self.BN if self.arithmetic.input_precision == "ieee" and not self.arithmetic.split else 16

    @property
    def options(self) -> dict[str, int | str]:
        """The compiler's. On AMD a second stage would hold the next ratings in registers, which spill."""
        if self.backend == "hip":
            return {"num_warps": self.num_warps, "num_stages": 1, "matrix_instr_nonkdim": 16}
        options: dict[str, int | str] = {"num_warps": self.num_warps, "num_stages": 2}
        ptxas = [f"--minnctapersm {self.resident}"] * bool(self.resident) + ["--register-usage-level 0"] * self.frugal
        if ptxas and self.backend == "cuda":
            options["ptx_options"] = " ".join(ptxas)
        return options


@dataclass(frozen=True)
class Grid:
    """How the ratings are dealt out: program (g, s) takes user blocks g, g + groups, ... and items of split s."""

    groups: int
    splits: int
    user_blocks: int
    tiles: int  # of items
    tiles_per_split: int


def factor_columns(rank: int) -> tuple[int, bool]:
    """Columns BK of the padded factors, and whether the bias gradients need sums since they have no columns.

    BK is a power of two, at least 16; the two extra columns are given up where they would double more than 32.
    """
    padded, plain = (max(16, 1 << (columns - 1).bit_length()) for columns in (rank + 2, rank))
    return (plain, True) if padded > plain >= 64 else (padded, False)


def pick(
    target: Target, rank: int, precision: str, deterministic: bool, parameter_bytes: int = 4, aligned: bool = True,
    packed: bool = False,
) -> Config:  # fmt: skip
    """The build for a target.

    Args:
        deterministic: each group of programs has a dB of its own, which takes more registers.
        aligned: ratings and mask can be loaded in vectors; loads one by one take registers for their addresses.
            Then the tile is the more frugal one, halved.
        packed: the mask is packed in bits.

    Raises:
        NotShipped: there is no clean build; the message says why.
    """
    if rank > MAX_RANK and target.backend != "interpreter":
        raise NotShipped(f"rank {rank}: the largest is {MAX_RANK}")
    precision = "float64" if parameter_bytes == 8 else precision
    table = _table(target)
    if precision not in table:
        raise NotShipped(f"precision {precision}: {target.backend} has {', '.join(table) or 'none'} on this device")
    BK, sums = factor_columns(rank)
    width = f"{BK}s" if sums else f"{BK}"
    tile = table[precision].split()[WIDTHS.index(width if rank <= WIDEST else "wide")]
    atomics = target.name not in WITHOUT_ATOMICS
    tile, exclusive, single, bits = (tile + "|||").split("|")[:4]
    if deterministic or not atomics or not aligned:
        tile = exclusive or tile
    if packed:
        tile = bits or tile
    halved = not aligned and not single
    if not aligned:
        tile = single or tile
    if tile == "-":
        raise NotShipped(f"rank {rank} at precision {precision}: every tile that was tried spills registers")
    parts = TILE.fullmatch(tile)
    assert parts is not None  # the table's are all of that form
    *numbers, frugal = parts.groups("0")
    BM, BN, num_warps, chunk, resident = map(int, numbers)
    if chunk:
        BK, sums = -(-rank // chunk) * chunk, True
    if halved:
        BM, BN = (BM, BN // 2) if BN > 16 else (max(16, BM // 2), BN)
    return Config(
        ARITHMETIC[precision], BM, BN, BK, sums, chunk, num_warps, target.backend, atomics, resident, frugal == "~"
    )


def _table(target: Target) -> dict[str, str]:
    """Tiles by precision. A device without a table of its own gets that of its generation, or the most frugal one."""
    if target.backend == "interpreter":
        return dict.fromkeys(ARITHMETIC, INTERPRETED)
    if target.name in TILES:
        return TILES[target.name]
    if target.backend == "hip":
        raise NotShipped(f"{target.name}: no build was checked for it")
    if target.backend == "xpu":
        return {"ieee": TILES["sm_86"]["ieee"]}
    capability = int(target.name.removeprefix("sm_"))
    if capability < 80:
        raise NotShipped(f"{target.name}: the oldest is sm_80")
    if target.shared_bytes >= TARGETS["sm_100"].shared_bytes and capability >= 100:
        return TILES["sm_100"]
    return TILES["sm_86"]


def deal(target: Target, config: Config, m: int, n: int, deterministic: bool, parameter_bytes: int = 4) -> Grid:
    """Programs enough to fill the device, with partial gradients within the bound of `WORKSPACE_BYTES`.

    Each split has a dA of its own, and where deterministic each group a dB of its own.
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
            # The next program goes where its partial gradients cost least for the programs that it adds.
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
