"""Launch choices for sparse ratings in pure Python: which build and how many programs."""

from __future__ import annotations

from dataclasses import dataclass

from kernels.gpu.config import MAX_RANK, TARGETS, NotShipped, Target
from kernels.gpu.version import is_old

ROW_COST = 16  # work of a row beside its entries, in entries: sparse.ROW_COST
LEAST_WORK = 64  # of a program
PROGRAMS_PER_MULTIPROCESSOR = 64  # in the fast mode: two for each that fits
DETERMINISTIC_PROGRAMS = 8192  # a side; fixed, so that the result does not depend on the number of multiprocessors
GATHERED = 64  # bytes of the other side's factors that a thread gathers at a time, if a warp holds a row of them
WIDEST = 2048  # bytes of a row that a warp holds
FEWEST_COLUMNS = 4  # 16 bytes of float32
GROUPED = 64  # columns from which three quarters of a power of two are held as three groups
# In the interpreter, where an operation takes as long for many entries as for few
INTERPRETED_ENTRIES, INTERPRETED_WORK = 64, 1024
WITHOUT_FLOAT64_ATOMICS = ("gfx1100", "gfx1201")  # float64 atomics compile to compare-and-swap loops
# By target, columns and bytes of a parameter: `SparseConfig.resident` where ptxas spills, trying to fit more programs.
RESIDENT = {("sm_100", 16, 4): 20}
OLD_RESIDENT = {("sm_80", 256, 4): 20, ("sm_89", 256, 4): 20, ("sm_89", 128, 8): 16, ("sm_90", 8, 4): 20}


@dataclass(frozen=True)
class SparseConfig:
    """One build of the sparse pass. Products are those of vector units, whatever the precision: gathers bound it."""

    BK: int  # columns of the packed factors
    columns: int  # of a group
    entries: int  # of a row at a time
    atomics: bool  # gradients of the items are added atomically; False: a second walk in the order of items
    num_warps: int = 1
    resident: int = 0  # as in `Tile`

    @property
    def options(self) -> dict[str, int | str]:
        """The compiler's options."""
        options: dict[str, int | str] = {"num_warps": self.num_warps, "num_stages": 1}
        return options | ({"ptx_options": f"--minnctapersm {self.resident}"} if self.resident else {})


def pick_sparse(target: Target, rank: int, deterministic: bool, parameter_bytes: int = 4) -> SparseConfig:
    """Return the build for a target.

    Raises:
        NotShipped: there is no clean build; the message says why.
    """
    _check(target, rank)
    BK = max(FEWEST_COLUMNS, 1 << (rank - 1).bit_length())
    columns = BK
    if BK >= GROUPED and rank <= BK // 4 * 3:
        BK, columns = BK // 4 * 3, BK // 4
    width = (BK if columns == BK else 4 * columns) * parameter_bytes
    threads = 64 if target.name.startswith("gfx9") else 32
    entries = max(2, min(32, threads * GATHERED // width))
    if target.backend == "interpreter":
        entries = INTERPRETED_ENTRIES
    adds = target.has_atomics and not (parameter_bytes == 8 and target.name in WITHOUT_FLOAT64_ATOMICS)
    atomics = adds and not deterministic
    resident = (RESIDENT | OLD_RESIDENT if is_old() else RESIDENT).get((target.name, BK, parameter_bytes), 0)
    return SparseConfig(BK, columns, entries, atomics, max(1, width // WIDEST), resident)


def _check(target: Target, rank: int) -> None:
    """Raise NotShipped where no build was checked."""
    if rank > MAX_RANK and target.backend != "interpreter":
        raise NotShipped(f"rank {rank}: the largest is {MAX_RANK}")
    if target.backend == "hip" and target.name not in TARGETS:
        raise NotShipped(f"{target.name}: no build was checked for it")
    if target.backend == "cuda" and int(target.name.removeprefix("sm_")) < 80:
        raise NotShipped(f"{target.name}: the oldest is sm_80")


def share_of(target: Target, config: SparseConfig, entries: int, rows: int) -> int:
    """Return a program's share of the work, where a row counts as much as `ROW_COST` entries."""
    work = entries + ROW_COST * rows
    most = PROGRAMS_PER_MULTIPROCESSOR * target.multiprocessors if config.atomics else DETERMINISTIC_PROGRAMS
    least = INTERPRETED_WORK if target.backend == "interpreter" else LEAST_WORK
    return -(-work // max(1, min(most, work // least)))


def programs_of(share: int, entries: int, rows: int) -> int:
    """Return how many programs take a share each."""
    return -(-(entries + ROW_COST * rows) // share)
