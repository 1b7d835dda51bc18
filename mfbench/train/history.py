"""What a training run has done so far: the lines of its log, where it stands, and how it ended."""

from __future__ import annotations

from typing import NamedTuple

GAIN = 1e-4  # least relative fall of the held-out error that counts as one


class LogEntry(NamedTuple):
    """The state after a number of epochs, as a line of the log shows it."""

    epoch: int
    loss: float
    held_out_sse: float
    held_out_rmse: float  # NaN if nothing is held out
    seconds: float  # of steps and updates so far, without the passes over the held-out part


class Progress(NamedTuple):
    """Where a run stands between two epochs, before the entry of the latter."""

    epoch: int = 0  # updates done
    seconds: float = 0.0  # as of an entry
    learning_rate: float | None = None  # None: not chosen yet
    entries: tuple[LogEntry, ...] = ()


START = Progress()


class TrainingRun(NamedTuple):
    """A finished training run; the last entry is the state after the last update."""

    task: str
    provider: str
    optimizer: str
    learning_rate: float
    reg: float
    trained_on: int  # ratings
    held_out: int  # ratings
    entries: list[LogEntry]
    target_rmse: float | None
    patience: int | None  # entries

    @property
    def best(self) -> LogEntry:
        """The first entry with the least held-out error; the last if nothing is held out."""
        return min(self.entries, key=lambda entry: entry.held_out_rmse) if self.held_out else self.entries[-1]

    @property
    def stalled(self) -> bool:
        """Whether the last `patience` entries brought no lower held-out error, which ends training."""
        if self.patience is None or len(self.entries) <= self.patience:
            return False
        errors = [entry.held_out_rmse for entry in self.entries]  # NaN if nothing is held out
        return min(errors[-self.patience :]) > (1 - GAIN) * min(errors[: -self.patience])

    @property
    def reached(self) -> LogEntry | None:
        """The entry whose held-out RMSE reached the target and ended training."""
        last = self.entries[-1]
        return last if self.target_rmse is not None and last.held_out_rmse <= self.target_rmse else None
