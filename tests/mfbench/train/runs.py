"""Training runs and files of ratings for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mfbench.commands.train import train_and_log
from mfbench.train.history import TrainingRun
from mfbench.train.options import TrainOptions


def run_training(data: str = "seed", *, log=lambda _: None, **options) -> TrainingRun:
    return train_and_log(TrainOptions(data=data, **options), log)


def write_ratings(path: Path, m: int, n: int, observed: float = 0.6) -> str:
    """Write ratings with structure to learn: a mean, biases and two factors."""
    rng = np.random.default_rng(3)
    biases = 0.5 * rng.standard_normal((m, 1)) + 0.5 * rng.standard_normal((1, n))
    ratings = 3.5 + biases + 0.6 * rng.standard_normal((m, 2)) @ rng.standard_normal((2, n))
    ratings += 0.2 * rng.standard_normal((m, n))
    ratings[rng.random((m, n)) > observed] = np.nan
    np.save(path, ratings)
    return str(path)
