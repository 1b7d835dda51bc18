"""Opt-in tuning on a real device: with `MF_AUTOTUNE=1` tiles are timed once and remembered, never by default.

Candidates lie around the table's tile. Those that move more data than the model allows are dropped before compilation,
those that spill or exceed the device's shared memory after it; the rest are timed on separate buffers. The
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
ALLOWED = 1.5  # bound on a candidate's traffic per rating, relative to the table's tile

Measure = Callable[[Config], float]  # seconds of a step with that build; infinite if it is not clean


def enabled() -> bool:
    """Return whether the user requested tuning."""
    return os.environ.get("MF_AUTOTUNE") == "1"


def selector(
    target: Target, precision: str, measure: Callable[[Problem, Config], float]
) -> Callable[[Problem, Config], Config]:
    """Return the function that `plan_launches` takes as `select`."""
    return lambda problem, default: tuned(_key(problem, target, precision), default, partial(measure, problem))


def tuned(key: str, default: Config, measure: Measure) -> Config:
    """Return the fastest clean build: remembered under `key`, or timed now and then remembered."""
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
    """Yield the table's build, then those around it that the model does not rule out."""
    yield default
    for BM in (default.BM // 2, default.BM, default.BM * 2):
        for BN in (default.BN // 2, default.BN, default.BN * 2):
            for num_warps in (4, 8):
                candidate = dataclasses.replace(default, BM=BM, BN=BN, num_warps=num_warps)
                if candidate != default and min(BM, BN) >= 16 and traffic(candidate) <= ALLOWED * traffic(default):
                    yield candidate


def traffic(config: Config) -> float:
    """Return the modelled elements of factors and gradients that move through the cache per rating.

    A tile reads BN rows of B and adds BN rows of dB; with chunked factors, BM rows of A and dA as well.
    """
    rows = config.BN + (config.BM if config.chunk else 0)
    return 2 * rows * config.BK / (config.BM * config.BN)


def _key(problem: Problem, target: Target, precision: str) -> str:
    """Return a key with everything that the best tile may depend on; sizes by their order of magnitude."""
    import triton

    ratings, mask, levels, packed, occupied, *_ = problem.observations
    device = torch.cuda.get_device_name(ratings.device) if ratings.is_cuda else target.name
    mask_form = None if mask is None else (mask.dtype, packed)
    sizes = [size.bit_length() for size in ratings.shape]
    forms = ratings.dtype, mask_form, levels is not None, occupied is not None
    return f"{device}; triton {triton.__version__}; rank {problem.shape[2]}; {precision}; {sizes}; {forms}"


def _read(path: Path) -> dict[str, list[int]]:
    try:
        known = json.loads(path.read_text())
        return {key: [int(size) for size in sizes] for key, sizes in known.items() if len(sizes) == 3}
    except (OSError, ValueError, AttributeError, TypeError):  # no file yet, or a torn one: tune again
        return {}
