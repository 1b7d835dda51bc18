"""Opt-in tuning on a real device: with `MF_AUTOTUNE=1` tiles are timed once and remembered, never by default.

Candidates lie around the table's tile. Those that move more than the model allows are dropped unseen, those that
spill or exceed the device's shared memory when compiled; the rest are timed on buffers of their own. The
deterministic mode keeps the table's tiles: its bits must not depend on a timing.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from kernels.cache import cache_folder
from kernels.gpu.config import Config, Target
from kernels.problem import Problem

FILE = "tiles.json"
ALLOWED = 1.5  # times the table's traffic a rating

Measure = Callable[[Config], float]  # seconds of a step with that build; infinite where it is not clean


def enabled() -> bool:
    """Whether the user asked for tuning."""
    return os.environ.get("MF_AUTOTUNE") == "1"


def selector(
    target: Target, precision: str, measure: Callable[[Problem, Config], float]
) -> Callable[[Problem, Config], Config]:
    """What `plan_step` takes as `select`."""
    return lambda problem, default: tuned(_key(problem, target, precision), default, partial(measure, problem))


def tuned(key: str, default: Config, measure: Measure) -> Config:
    """The quickest clean build: remembered under `key`, or found by timing and then remembered."""
    path = cache_folder() / FILE
    known = _read(path)
    if key not in known:
        seconds = {candidate: measure(candidate) for candidate in candidates(default)}
        best = min(seconds, key=lambda candidate: seconds[candidate])
        if seconds[best] == float("inf"):
            return default
        known = {**_read(path), key: [best.BM, best.BN, best.num_warps]}
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(known, indent=1))
        os.replace(temporary, path)
    BM, BN, num_warps = known[key]
    return dataclasses.replace(default, BM=BM, BN=BN, num_warps=num_warps)


def candidates(default: Config) -> Iterator[Config]:
    """The table's build, then those around it that the model does not rule out."""
    yield default
    for BM in (default.BM // 2, default.BM, default.BM * 2):
        for BN in (default.BN // 2, default.BN, default.BN * 2):
            for num_warps in (4, 8):
                candidate = dataclasses.replace(default, BM=BM, BN=BN, num_warps=num_warps)
                if candidate != default and min(BM, BN) >= 16 and traffic(candidate) <= ALLOWED * traffic(default):
                    yield candidate


def traffic(config: Config) -> float:
    """Elements of factors and gradients that a rating moves through the cache, modelled.

    A tile reads BN rows of B and adds BN rows of dB; where the factors go in chunks, BM rows of A and dA as well.
    """
    rows = config.BN + (config.BM if config.chunk else 0)
    return 2 * rows * config.BK / (config.BM * config.BN)


def _key(problem: Problem, target: Target, precision: str) -> str:
    """All that the best tile may depend on; sizes by their order of magnitude."""
    import triton

    device = torch.cuda.get_device_name(problem.ratings.device) if problem.ratings.is_cuda else target.name
    mask = None if problem.mask is None else (problem.mask.dtype, problem.packed)
    sizes = [size.bit_length() for size in problem.ratings.shape]
    forms = problem.ratings.dtype, mask, problem.grid is not None, problem.occupied is not None
    return f"{device}; triton {triton.__version__}; rank {problem.shape[2]}; {precision}; {sizes}; {forms}"


def _read(path: Path) -> dict[str, list[int]]:
    try:
        known = json.loads(path.read_text())
        return {key: [int(size) for size in sizes] for key, sizes in known.items() if len(sizes) == 3}
    except (OSError, ValueError, AttributeError, TypeError):  # none yet, or torn: tuned anew
        return {}
