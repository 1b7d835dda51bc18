"""Launch choices in pure Python: which tiles for which target, rank, precision and dtypes, and what is not shipped."""

from __future__ import annotations

from dataclasses import dataclass

MAX_RANK = 256
WORKSPACE_BYTES = 64 << 20  # bound on the slices of partial gradients, beyond one slice of each side
PROGRAMS_PER_MULTIPROCESSOR = 4
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
}


@dataclass(frozen=True)
class Config:
    """One build of the kernel."""

    arithmetic: Arithmetic

    BM: int  # users of a tile
    BN: int  # items of a tile
    BK: int  # columns of the padded factors
    sums: bool  # bias gradients by summing E, not from two extra columns
    num_warps: int
    num_stages: int

    @property
    def lanes(self) -> int:
        """Squared errors kept a user.

        Of a matrix instruction's result a thread holds every 16th item or more, of products by FMA neighbouring ones:
        summing those across threads would give each of them a sum of its own, since x * x + y contracts to an FMA.
        """
        return self.BN if self.arithmetic.input_precision == "ieee" and not self.arithmetic.split else 16


@dataclass(frozen=True)
class Grid:
    """How the ratings are dealt out: program (g, s) takes user blocks g, g + groups, ... and items of split s."""

    groups: int
    splits: int
    user_blocks: int
    tiles: int  # of items
    tiles_per_split: int


def factor_columns(rank: int) -> tuple[int, bool]:
    """Columns BK of the padded factors, and whether the bias gradients need sums since they have no columns."""
    columns = max(16, 1 << (rank + 1).bit_length())  # power of two >= rank + 2
    narrow = max(16, 1 << (rank - 1).bit_length())
    return (narrow, True) if columns > max(narrow, 64) else (columns, False)


def pick(target: Target, rank: int, precision: str, parameter_bytes: int = 4) -> Config:
    """The build for a target.

    Raises:
        NotShipped: there is no clean build; the message says why.
    """
    BK, sums = factor_columns(rank)
    arithmetic = ARITHMETIC["ieee" if parameter_bytes == 8 else precision]
    if target.backend == "interpreter":
        return Config(arithmetic, 64, 64, BK, sums, 4, 1)
    if rank > MAX_RANK:
        raise NotShipped(f"rank {rank}: the largest shipped is {MAX_RANK}")
    return Config(arithmetic, 64, 32, BK, sums, 4, 2)


def deal(target: Target, config: Config, m: int, n: int, deterministic: bool, parameter_bytes: int = 4) -> Grid:
    """Programs enough to fill the device, with partial gradients within the bound of `WORKSPACE_BYTES`.

    Each split has a dA of its own, and where deterministic each group a dB of its own.
    """
    user_blocks, tiles = -(-m // config.BM), -(-n // config.BN)
    row = config.BK * parameter_bytes
    dA_bytes, dB_bytes = user_blocks * config.BM * row, tiles * config.BN * row
    if not deterministic:
        groups = user_blocks
        wanted = -(-PROGRAMS_PER_MULTIPROCESSOR * target.multiprocessors // user_blocks)
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
