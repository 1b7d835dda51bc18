"""Add up the memory that a case needs in all processes, before any of them allocates it.

An allocation that fails becomes a record; but several processes that each stay below the free memory can exceed it
together, and the system then kills one of them. The sum leaves out what providers allocate: a step that does not fit
fails in its worker, and the others are still measured.
"""

from __future__ import annotations

from typing import NamedTuple

from mfbench.correctness.gate import EAGER_ELEMENTS
from mfbench.measure.devices.memory import HEADROOM
from mfbench.measure.roofline import BYTES
from mfbench.problems.bounds import DRAWN
from mfbench.problems.cases import Case
from mfbench.problems.free_memory import free_memory
from mfbench.problems.shared import REMAPPED
from reference.oracle import BLOCK_ELEMENTS

ORACLE_TEMPORARIES = 10  # float64 arrays of a block's size that the oracle and the gate hold at once
EAGER_TEMPORARIES = 8  # arrays of a block's size that eager PyTorch is seen to hold at once, in the promoted dtype
# Bytes for each sparse rating: its user, its value and its error in float64, and the harness's copies of these
ERROR_BYTES = 40
PLACE_BYTES = 48  # for each rating that is drawn by a power law: its place as drawn, joined and sorted
DRAWN_TEMPORARIES = 6  # arrays of a block's size that drawing holds at once
# Bytes for each entry of factors and biases. The harness holds float32 parameters, exact outputs and their scales in
# float64 for three draws, and the oracle's copies; a worker holds parameters, gradients and the outputs it sends.
HARNESS_PARAMETER_BYTES, WORKER_PARAMETER_BYTES = 96, 32


class Footprint(NamedTuple):
    """Memory of a case on the host, in bytes, by what needs it."""

    inputs: int  # ratings and masks that stay in memory, most of them shared by all processes
    preparing: int  # drawing or moving inputs, or blocks of the gate, whichever is most; one process at a time
    parameters: int  # factors, biases and their gradients, in all processes
    processes: int  # that use the inputs

    @property
    def total(self) -> int:
        """Return the sum in bytes."""
        return self.inputs + self.preparing + self.parameters


def footprint(case: Case, workers: int, device: str) -> Footprint:
    """Add up a case's memory on the host.

    Args:
        case: with its size filled in.
        workers: number of providers that take part, each in its own process.
        device: "cpu" or "cuda". On a GPU the workers keep no inputs on the host.
    """
    entries = (case.m + case.n) * (case.rank + 1) + 1
    ratings = _ratings_bytes(case)
    loaded = 0
    if case.data not in DRAWN:
        loaded = _sparse_bytes(case, "float32")  # the data set, which the harness keeps
    processes = 1 + (workers if device == "cpu" else 0)
    # All processes map one copy. Where it is small, each worker moves its own to and fro.
    own = (processes - 1) * min(ratings, (2 if case.sparse else 1) * REMAPPED)
    written = ratings  # what is drawn before it is in the file
    return Footprint(
        inputs=loaded + ratings + own,
        preparing=max(written + _drawing_bytes(case), _gate_bytes(case), ratings if device != "cpu" else 0),
        parameters=entries * (HARNESS_PARAMETER_BYTES + workers * WORKER_PARAMETER_BYTES),
        processes=processes,
    )


def obstacle(case: Case, workers: int, device: str) -> str | None:
    """Return why a case does not fit into the free memory, with the sum in words; None if it fits.

    Args:
        case, workers, device: as `footprint` takes them.
    """
    needed = footprint(case, workers, device)
    free = int((1 - HEADROOM) * free_memory())
    if needed.total <= free:
        return None
    plural = "es" if needed.processes > 1 else ""
    return (
        f"needs about {_gb(needed.total)}: {_gb(needed.inputs)} for ratings and masks of {needed.processes} "
        f"process{plural}, {_gb(needed.preparing)} to draw, check or move them, {_gb(needed.parameters)} for factors, "
        f"biases and gradients; free {_gb(free)}"
    )


def _ratings_bytes(case: Case) -> int:
    """Return the bytes of the ratings and masks of one process."""
    if case.sparse:
        return _sparse_bytes(case, case.ratings_dtype)
    return case.m * case.n * (BYTES[case.ratings_dtype] + BYTES[case.mask])


def _sparse_bytes(case: Case, dtype: str) -> int:
    index = BYTES["int32" if case.expected_ratings < 2**31 else "int64"]
    return case.expected_ratings * (BYTES[dtype] + index) + (case.m + 1) * index


def _drawing_bytes(case: Case) -> int:
    """Return the bytes that drawing needs beyond the result."""
    cells, ratings = case.m * case.n, case.expected_ratings
    if case.data == "power-law":
        return ratings * PLACE_BYTES + (0 if case.sparse else _sparse_bytes(case, case.ratings_dtype))
    if case.data == "synthetic" and case.sparse:
        return ratings * BYTES["int32"] + DRAWN_TEMPORARIES * BYTES["float32"] * min(cells, max(BLOCK_ELEMENTS, case.n))
    if case.data == "seed":
        drawn = BYTES["float64"] + BYTES["float32"] + BYTES["bool"] + BYTES["int32"]
    elif case.data == "blocks":
        drawn = 3 * BYTES["uint8"]
    else:
        drawn = BYTES["uint8"]
    matrix = BYTES[case.ratings_dtype] + BYTES["bool"] if case.sparse and case.data in DRAWN else 0
    nan = BYTES["bool"] if case.mask == "none" and not case.sparse else 0
    return (0 if case.sparse and case.data not in DRAWN else cells) * (drawn + matrix + nan)


def _gate_bytes(case: Case) -> int:
    """Return the bytes of the largest block that the gate evaluates, and of the errors of all sparse ratings."""
    widest = max(BYTES["float32"], BYTES[case.ratings_dtype] if "float" in case.ratings_dtype else 0)
    if case.sparse:
        ratings, rows = case.expected_ratings, max(1, case.rank)
        whole = ratings * ERROR_BYTES
        oracle = ORACLE_TEMPORARIES * BYTES["float64"] * min(ratings * rows, BLOCK_ELEMENTS)
        return whole + max(oracle, EAGER_TEMPORARIES * widest * min(ratings * rows, EAGER_ELEMENTS))
    cells = case.m * case.n
    oracle = ORACLE_TEMPORARIES * BYTES["float64"] * min(cells, max(BLOCK_ELEMENTS, case.n))
    return max(oracle, EAGER_TEMPORARIES * widest * min(cells, max(EAGER_ELEMENTS, case.n)))


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
