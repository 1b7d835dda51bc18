"""The options of a training run: their defaults and their validation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from mfbench.errors import UsageError
from mfbench.problems.bounds import DENSITY, RANK, SEED, Bounds
from mfbench.wording import one_of

Optimizer = Literal["sgd", "momentum", "adam", "preconditioned"]
Layout = Literal["dense", "sparse", "auto"]

NOTEBOOK_SIZE = (200, 300)
NOTEBOOK_EPOCHS, NOTEBOOK_EVERY = 28001, 1000
EPOCHS, EVERY, PATIENCE = 500, 10, 5  # on all other data
LINES_PER_CHECKPOINT = 10  # of the log

COUNT = Bounds(1, whole=True)
POSITIVE = Bounds(0, above_low=True)
BOUNDS = {
    "epochs": COUNT, "every": COUNT, "rank": RANK, "density": DENSITY, "seed": SEED, "reg": Bounds(0), "lr": POSITIVE,
    "holdout": Bounds(0, 1, below_high=True), "target_rmse": POSITIVE, "patience": COUNT,
    "checkpoint_every": COUNT,
}  # fmt: skip
DENSITY_OF_DRAWN = 0.8
OPTIONAL = ("epochs", "every", "density", "reg", "lr", "target_rmse", "patience", "checkpoint_every")


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What to train and how, validated on creation.

    Attributes:
        data: `seed` (the notebook's problem), another data set, or a file of ratings.
        provider: computes loss and gradients.
        epochs: updates, one full pass each; None: 28001 on `seed`, else 500.
        every: epochs between two lines of the log; None: 1000 on `seed`, else 10.
        size: users and items of drawn data.
        rank: columns of the factors.
        density: fraction observed of drawn data; None: 0.8. Other data has its own.
        layout: of the ratings, dense, sparse, or auto: what is faster, and sparse where a matrix takes too much
            memory. `seed` is dense.
        seed: of drawn data, the start and the held-out part.
        reg: weight of the squared norms; None: 0.1 on `seed`, else `task.noise_level` of the ratings.
        optimizer: plain gradient descent as in the notebook ("sgd"), with momentum 0.9, Adam, or momentum on gradients
            scaled by the ratings of each user and item ("preconditioned"); None: "sgd" on `seed`, else
            "preconditioned".
        lr: learning rate; None: 1e-5 on `seed`, else what suits the optimizer; halved, with a note, if training
            diverges.
        holdout: fraction of the ratings to hold out; `seed` holds out its unobserved entries.
        target_rmse: stop at the first logged epoch whose held-out RMSE is at most this.
        patience: stop when that many log lines in a row show no lower held-out error; None: never on `seed`, else 5.
        device: "cpu" or "cuda".
        save: the file for the parameters with the least held-out error.
        checkpoint: the folder for checkpoints, of which the last two are kept; None: there are none.
        checkpoint_every: epochs between two checkpoints; None: those of ten lines of the log.
        resume: continue from the last checkpoint, if there is one.

    Raises:
        UsageError: a value that does not fit; the error names the argument.
    """

    data: str = "seed"
    provider: str = "fused"
    epochs: int | None = None
    every: int | None = None
    size: tuple[int, int] | None = None
    rank: int = 30
    density: float | None = None
    layout: Layout = "auto"
    seed: int = 1
    reg: float | None = None
    optimizer: Optimizer | None = None
    lr: float | None = None
    holdout: float = 0.1
    target_rmse: float | None = None
    patience: int | None = None
    device: str = "cpu"
    save: Path | None = None
    checkpoint: Path | None = None
    checkpoint_every: int | None = None
    resume: bool = False

    def __post_init__(self) -> None:
        if self.optimizer not in (None, *get_args(Optimizer)):
            message = one_of(get_args(Optimizer), self.optimizer)
            raise UsageError(message, code="bad-optimizer", argument="optimizer")
        if self.layout not in get_args(Layout):
            message = f"expected one of {', '.join(get_args(Layout))}, got {self.layout!r}"
            raise UsageError(message, code="bad-value", argument="layout")
        for name, bounds in BOUNDS.items():
            value: Any = getattr(self, name)
            unset = name in OPTIONAL and value is None
            if not unset and not bounds.hold(value):
                raise UsageError(f"expected {bounds}, got {value!r}", code="bad-number", argument=name)

        for name in ("checkpoint_every", "resume"):
            if getattr(self, name) and self.checkpoint is None:
                message = "needs the folder of checkpoints, --checkpoint DIR"
                raise UsageError(message, code="bad-value", argument=name)
        if self.checkpoint is not None and not self.checkpoint.name:
            message = f"expected the name of a folder, got {str(self.checkpoint)!r}"
            raise UsageError(message, code="bad-value", argument="checkpoint")
        if self.save and self.checkpoint and self.checkpoint.absolute().is_relative_to(self.save.absolute()):
            message = f"expected a file apart from --checkpoint {self.checkpoint}, got {self.save}"
            raise UsageError(message, code="same-file", argument="save")

    @property
    def updates(self) -> int:
        """Epochs, by default as the data asks for."""
        return self.epochs or (NOTEBOOK_EPOCHS if self.data == "seed" else EPOCHS)

    @property
    def fraction(self) -> float:
        """Fraction observed of drawn data."""
        return DENSITY_OF_DRAWN if self.density is None else self.density

    @property
    def update_rule(self) -> Optimizer:
        """The optimizer, by default as the data asks for."""
        return self.optimizer or ("sgd" if self.data == "seed" else "preconditioned")

    @property
    def lines_of_patience(self) -> int | None:
        """Log lines without a lower held-out error that end training, by default as the data asks for."""
        return self.patience or (None if self.data == "seed" else PATIENCE)

    @property
    def log_every(self) -> int:
        """Epochs between two log lines, by default as the data asks for."""
        return self.every or (NOTEBOOK_EVERY if self.data == "seed" else EVERY)

    @property
    def checkpoint_interval(self) -> int:
        """Epochs between two checkpoints, by default those of some lines of the log."""
        return self.checkpoint_every or LINES_PER_CHECKPOINT * self.log_every
