"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from torch import Tensor

from mfbench import log
from mfbench.errors import UsageError
from mfbench.problems import matrices
from mfbench.problems.inputs import MatrixTooLarge
from mfbench.providers import registry
from mfbench.providers.outputs import flaws, tensors
from mfbench.train.epoch import Update, epoch_of
from mfbench.train.options import Optimizer, TrainOptions
from mfbench.train.rates import default_rate
from mfbench.train.saving import BestParameters, check_writable
from mfbench.train.task import Task, make_task

CHECK_EVERY = 100  # epochs between checks of the loss, each of which waits for the device
EXPLODED = 10  # ratio of the loss to the first at which training has diverged
HALVINGS = 64  # rates tried, each half the last; if training diverges at all of them, the gradients are wrong
GAIN = 1e-4  # least relative fall of the held-out error that counts as one
TRIAL_EPOCHS = 1000  # most epochs for which a rate is tried before a message suggests it
SQUARABLE = 1e16  # no rating up to this is the reason of a loss that is not finite: float32 holds sums of such squares


class Diverged(UsageError):
    """The learning rate is too large; the message names a smaller one that was tried."""

    code = "diverged"


class LogEntry(NamedTuple):
    """The state after a number of epochs, as a line of the log shows it."""

    epoch: int
    loss: float
    held_out_sse: float
    held_out_rmse: float  # NaN if nothing is held out
    seconds: float  # of steps and updates so far, without the passes over the held-out part


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


def _bad_start(loss: float, task: Task) -> UsageError:
    """Return the error for a first loss that is not finite: the provider is at fault, unless the ratings are huge."""
    largest = float(matrices.parts(task.inputs.ratings)[-1].abs().max())
    if SQUARABLE < largest < math.inf:
        message = f"the loss is {loss} before the first update: float32 does not hold the squares of {largest:.3g}"
        return UsageError(f"{message}; divide the ratings", code="bad-loss", argument="data")
    return UsageError(f"the loss is {loss} before the first update", code="bad-loss", argument="provider")


def descend(task: Task, step: registry.Step, update: Update, epochs: int, every: int) -> Iterator[LogEntry]:
    """Train in place for `epochs` updates; yield an entry every `every` epochs and one after the last update.

    Epochs at which nothing is reported or checked run as `epoch_of` has them; the time to capture one does not count.

    Raises:
        Diverged: the loss is not finite any more, or ten times the first.
        UsageError: the first loss is not finite.
    """
    count = task.held_out_count
    limit, seconds, resumed = math.inf, 0.0, time.perf_counter()
    run_epoch: Callable[[], object] | None = None  # from the second epoch on
    for epoch in range(epochs + 1):
        entry_due = epoch % every == 0 or epoch == epochs
        if run_epoch and not entry_due and epoch % CHECK_EVERY:
            run_epoch()
            continue
        loss, grads = step()
        value = float(loss)
        if epoch == 0:
            limit = EXPLODED * value or math.inf
            if not math.isfinite(value):
                raise _bad_start(value, task)
        if not value <= limit:
            first = limit / EXPLODED
            message = f"training diverged: loss {value:.6g} at epoch {epoch}, {first:.6g} at first"
            raise Diverged(message, argument="lr")
        if entry_due:
            seconds += time.perf_counter() - resumed
            sse = task.held_out_sse()
            yield LogEntry(epoch, value, sse, math.sqrt(sse / count) if count else math.nan, seconds)
            resumed = time.perf_counter()
        if epoch < epochs:
            update(grads)
        if epoch == 0 < epochs:
            seconds += time.perf_counter() - resumed
            run_epoch = epoch_of(step, update)
            resumed = time.perf_counter()


def train(
    task: Task,
    provider: registry.Provider,
    epochs: int,
    every: int = 1000,
    optimizer: Optimizer = "sgd",
    lr: float | None = None,
    target_rmse: float | None = None,
    patience: int | None = None,
    on_entry: Callable[[LogEntry], Any] = lambda entry: None,
    default: Callable[[Task, Optimizer, registry.Step], float] = default_rate,
) -> TrainingRun:
    """Train a task's parameters in place.

    The default rate suits the curvature at the start, which may grow during training. If training diverges at it,
    a note says so, and training starts again from the initial parameters at half the rate. The run returned had one
    rate from its first epoch to its last.

    Args:
        task: on any device.
        provider: computes loss and gradients.
        epochs: updates, one full pass each.
        every: epochs between two entries of the log.
        optimizer: as in `TrainOptions`.
        lr: learning rate; None: what `default` returns.
        target_rmse: stop at the first entry whose held-out RMSE is at most this.
        patience: stop when that many entries in a row bring no lower held-out error; None: never.
        on_entry: called with each entry at once, also in attempts at a default rate that proves too large.
        default: the learning rate at the start of a task.

    Raises:
        Diverged: `lr` is too large; the message names a smaller rate that was tried for up to 1000 epochs.
        UsageError: the provider fails, its gradients have the wrong shapes, its first loss is not finite, or training
            diverges at every rate.
    """
    parameters, inputs = task.inputs[:5], task.inputs
    try:
        step = provider.prepare(inputs)
    except MatrixTooLarge as error:
        raise UsageError(f"{provider.name}: {error}", code="data-too-large", argument="provider") from None
    try:
        first = step()  # compilation on first use is not training time
        wrong = [flaw.message for flaw in flaws(tensors(first), inputs)]
    except (Exception, SystemExit) as error:
        message = f"{provider.name}: {type(error).__name__}: {error}"
        raise UsageError(message, code="provider-failed", argument="provider") from error
    if wrong or not all(isinstance(grad, Tensor) for grad in first[1]):
        message = f"{provider.name}: {'; '.join(wrong) or 'expected tensors as gradients'}"
        raise UsageError(message, code="provider-failed", argument="provider")
    start = [parameter.clone() for parameter in parameters]

    def restore() -> None:
        for parameter, initial in zip(parameters, start, strict=True):
            parameter.copy_(initial)

    def attempt(rate: float, epochs: int) -> Iterator[LogEntry]:
        return descend(task, step, Update(task, optimizer, rate), epochs, every)

    rate = default(task, optimizer, step) if lr is None else lr
    for _ in range(HALVINGS):
        run = TrainingRun(
            task.name, provider.name, optimizer, rate, inputs.reg,
            inputs.observed, task.held_out_count, [], target_rmse, patience,
        )  # fmt: skip
        try:
            for entry in attempt(rate, epochs):
                run.entries.append(entry)
                on_entry(entry)
                if run.reached or run.stalled:
                    break
        except Diverged as error:
            restore()
            if lr is not None:
                trial = min(epochs, TRIAL_EPOCHS)
                works = _stable_rate(min(lr / 2, default(task, optimizer, step)), attempt, trial, restore)
                message = f"{error.message}, with {lr:g}; {works:g} would work (tried for {trial} epochs)"
                raise Diverged(message, argument="lr") from None
            log.note(f"{error.message}, with the default rate {rate:g}; starting again with {rate / 2:g}")
            rate /= 2
        else:
            return run
    raise _diverges_at_every_rate(rate)


def _stable_rate(
    largest: float, attempt: Callable[[float, int], Iterator[LogEntry]], epochs: int, restore: Callable[[], None]
) -> float:
    """Return the first of `largest`, its half, and so on, at which training does not diverge; with two digits."""
    rate = largest
    for _ in range(HALVINGS):
        rate = _rounded_down(rate)
        try:
            for _entry in attempt(rate, epochs):
                pass
        except Diverged:
            rate /= 2
        else:
            return rate
        finally:
            restore()
    raise _diverges_at_every_rate(rate)


def _diverges_at_every_rate(rate: float) -> UsageError:
    message = f"training diverged at every learning rate tried, down to {rate:.2g}"
    return UsageError(message, code="bad-loss", argument="provider")


def run_training(options: TrainOptions, on_entry: Callable[[LogEntry], Any] = lambda entry: None) -> TrainingRun:
    """Train as `mfbench train` does.

    Args:
        options: what to train and how.
        on_entry: called with each entry at once.

    Raises:
        Diverged, UsageError: as `train`; a provider or data that cannot be loaded.
        DataUnavailable: the data set is not installed.
    """
    if options.save:
        check_writable(options.save, options.data)
    provider = registry.load(options.provider)
    task = make_task(options).to(options.device)
    best = BestParameters(task)
    try:
        run = train_as_asked(task, provider, options, best, on_entry)
    except (KeyboardInterrupt, SystemExit):
        if options.save and best.kept:
            best.write(options.save)
            log.note(f"interrupted; {options.save} has the best parameters so far")
        raise
    if options.save:
        best.write(options.save)
    return run


def _rounded_down(value: float) -> float:
    """Round down to two significant digits, to exactly the float that prints so."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.floor(value / unit) * unit:.2g}")


def train_as_asked(
    task: Task,
    provider: registry.Provider,
    options: TrainOptions,
    best: BestParameters,
    on_entry: Callable[[LogEntry], Any],
    default: Callable[[Task, Optimizer, registry.Step], float] = default_rate,
) -> TrainingRun:
    """Train a task as the options ask for, and keep its best parameters where they are to be saved."""

    def report(entry: LogEntry) -> None:
        if options.save:
            best.see(entry.epoch, entry.held_out_rmse)
        on_entry(entry)

    return train(
        task, provider, options.updates, options.log_every, options.update_rule, options.lr, options.target_rmse,
        options.lines_of_patience, report, default,
    )  # fmt: skip
