"""Opt-in tuning with a fake clock: which tiles are tried, which is kept, and that tuning is off by default."""

import dataclasses
import json
import math

import pytest
import torch

from kernels.gpu import tune
from kernels.gpu.config import TARGETS, pick
from tests.problems import checked, draw_inputs

DEFAULT = pick(TARGETS["sm_90"], 30, "tf32", False)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tune, "cache_folder", lambda: tmp_path)
    return tmp_path


class Clock:
    """A function from builds to seconds that records its calls."""

    def __init__(self, seconds):
        self.seconds, self.asked = seconds, []

    def __call__(self, build):
        self.asked.append(build)
        return self.seconds(build)


def test_candidates_are_valid_and_within_the_model():
    tried = list(tune.candidates(DEFAULT))
    assert tried[0] == DEFAULT
    assert len(tried) == len(set(tried)) > 4
    for build in tried:
        assert (build.BK, build.arithmetic, build.chunk) == (DEFAULT.BK, DEFAULT.arithmetic, DEFAULT.chunk)
        assert min(build.BM, build.BN) >= 16
        assert tune.traffic(build) <= tune.ALLOWED * tune.traffic(DEFAULT)
    assert dataclasses.replace(DEFAULT, BM=DEFAULT.BM // 2) not in tried


def test_the_quickest_is_kept_and_not_timed_again(folder):
    clock = Clock(lambda build: 1.0 if (build.BN, build.num_warps) == (32, 8) else 2.0)
    best = tune.tuned("key", DEFAULT, clock)
    assert (best.BN, best.num_warps) == (32, 8)
    asked = len(clock.asked)
    assert tune.tuned("key", DEFAULT, clock) == best
    assert len(clock.asked) == asked
    tune.tuned("another key", DEFAULT, clock)
    assert len(clock.asked) == 2 * asked


def test_builds_that_are_not_clean_never_win(folder):
    clock = Clock(lambda build: 3.0 if build == DEFAULT else math.inf)
    assert tune.tuned("key", DEFAULT, clock) == DEFAULT
    assert tune.tuned("other", DEFAULT, lambda build: math.inf) == DEFAULT
    assert "other" not in json.loads((folder / tune.FILE).read_text())


@pytest.mark.parametrize("torn", ["", "{", "[]", '{"key": [64]}', '{"key": "abc"}', '{"key": null}'])
def test_a_torn_file_is_tuned_anew(folder, torn):
    (folder / tune.FILE).write_text(torn)
    clock = Clock(lambda build: 1.0)
    assert tune.tuned("key", DEFAULT, clock) == DEFAULT
    assert clock.asked


def test_the_key_tells_apart_what_needs_its_own_tile():
    keys = set()
    for rank, dtype, mask in ((30, torch.float32, torch.uint8), (30, torch.float32, None), (31, torch.float32, None),
                              (30, torch.bfloat16, None)):  # fmt: skip
        problem = checked(draw_inputs(40, 50, rank, ratings_dtype=dtype, mask_dtype=mask))
        keys |= {tune._key(problem, TARGETS["sm_90"], precision) for precision in ("ieee", "tf32")}
    assert len(keys) == 8


def test_only_where_asked_for(monkeypatch):
    monkeypatch.delenv("MF_AUTOTUNE", raising=False)
    assert not tune.enabled()
    monkeypatch.setenv("MF_AUTOTUNE", "1")
    assert tune.enabled()
