"""The training loop."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mfbench import log
from mfbench.errors import UsageError
from mfbench.problems import matrices
from mfbench.problems.inputs import MatrixTooLarge
from mfbench.providers import registry
from mfbench.providers.outputs import flaws, tensors
from mfbench.train.checkpointing import checkpoints_in, folder_of
from mfbench.train.epoch import Update, epoch_of
from mfbench.train.history import START, LogEntry, Progress, TrainingRun
from mfbench.train.identity import identity
from mfbench.train.options import Optimizer, TrainOptions
from mfbench.train.rates import default_rate
from mfbench.train.saving import BestParameters, check_writable
from mfbench.train.task import Task, make_task

if TYPE_CHECKING:
    from mfbench.train.checkpoint import Checkpoints

CHECK_EVERY = 100  # epochs between checks of the loss, each of which waits for the device
EXPLODED = 10  # ratio of the loss to the first at which training has diverged
HALVINGS = 64  # rates tried, each half the last; if training diverges at all of them, the gradients are wrong
TRIAL_EPOCHS = 1000  # most epochs for which a rate is tried before a message suggests it
SQUARABLE = 1e16  # no rating up to this is the reason of a loss that is not finite: float32 holds sums of such squares


class Diverged(UsageError):
    """The learning rate is too large; the message names a smaller one that was tried."""

    code = "diverged"


def _bad_start(loss: float, task: Task) -> UsageError:
    """Return the error for a first loss that is not finite: the provider is at fault, unless the ratings are huge."""
    largest = float(matrices.parts(task.inputs.ratings)[-1].abs().max())
    if SQUARABLE < largest < math.inf:
        message = f"the loss is {loss} before the first update: float32 does not hold the squares of {largest:.3g}"
        return UsageError(f"{message}; divide the ratings", code="bad-loss", argument="data")
    return UsageError(f"the loss is {loss} before the first update", code="bad-loss", argument="provider")


def descend(
    task: Task,
    step: registry.Step,
    update: Update,
    epochs: int,
    every: int,
    start: Progress = START,
    save: Callable[[int, float], object] | None = None,
    save_every: int = 1,
) -> Iterator[LogEntry]:
    """Train in place up to `epochs` updates; yield an entry every `every` epochs and one after the last update.

    Epochs at which nothing is reported or checked run as `epoch_of` has them; the time to capture one does not count.

    Args:
        task: judged at each entry.
        step: evaluates loss and gradients of the present parameters.
        update: of the parameters, with the optimizer's state at `start`.
        epochs: updates, those done before `start` included.
        every: epochs between two entries.
        start: where training begins or continues.
        save: called with the epoch and the seconds of training so far every `save_every` epochs and after the last
            update, before the entry of that epoch.
        save_every: epochs.

    Raises:
        Diverged: the loss is not finite any more, or ten times the first.
        UsageError: the first loss is not finite.
    """
    count = task.held_out_count
    limit = (EXPLODED * start.entries[0].loss or math.inf) if start.entries else math.inf
    seconds, resumed = start.seconds, time.perf_counter()
    run_epoch: Callable[[], object] | None = None  # from the second epoch on
    for epoch in range(start.epoch, epochs + 1):
        if save and epoch > start.epoch and (epoch % save_every == 0 or epoch == epochs):
            save(epoch, seconds + time.perf_counter() - resumed)
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
        if epoch == start.epoch < epochs:
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
    checkpoints: Checkpoints | None = None,
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
        checkpoints: training continues from the last one, and writes more; None: it begins and leaves none.

    Raises:
        Diverged: `lr` is too large; the message names a smaller rate that was tried for up to 1000 epochs.
        UsageError: the provider fails, its gradients have the wrong shapes, its first loss is not finite, training
            diverges at every rate, a checkpoint cannot be written, or the one to continue from has more epochs.
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
    initial = [parameter.clone() for parameter in parameters]

    def restore() -> None:
        for parameter, value in zip(parameters, initial, strict=True):
            parameter.copy_(value)

    def attempt(rate: float, epochs: int) -> Iterator[LogEntry]:
        return descend(task, step, Update(task, optimizer, rate), epochs, every)

    def descent(run: TrainingRun, start: Progress) -> Iterator[LogEntry]:
        update = Update(task, optimizer, run.learning_rate)
        if checkpoints is None:
            return descend(task, step, update, epochs, every)
        if start.epoch:
            checkpoints.restore(update)
        save = functools.partial(checkpoints.save, run, update)
        return descend(task, step, update, epochs, every, start, save, checkpoints.every)

    begin = checkpoints.start if checkpoints else START
    if begin.epoch > epochs:
        message = f"expected at least {begin.epoch}, the epoch of the checkpoint; got {epochs}"
        raise UsageError(message, code="bad-number", argument="epochs")
    rate = begin.learning_rate or (default(task, optimizer, step) if lr is None else lr)
    for _ in range(HALVINGS):
        run = TrainingRun(
            task.name, provider.name, optimizer, rate, inputs.reg,
            inputs.observed, task.held_out_count, list(begin.entries), target_rmse, patience,
        )  # fmt: skip
        try:
            for entry in descent(run, begin):
                run.entries.append(entry)
                on_entry(entry)
                if run.reached or run.stalled:
                    break
        except Diverged as error:
            restore()
            begin = START
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
    folder = folder_of(options)
    task = make_task(options)
    problem = identity(options, task) if folder else {}
    task = task.to(options.device)
    best = BestParameters(task)
    m = len(task.inputs.user_factors)
    try:
        with checkpoints_in(folder, problem, best, options.checkpoint_interval, slice(0, m), m) as checkpoints:
            run = train_as_asked(task, provider, options, best, on_entry, checkpoints=checkpoints)
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
    checkpoints: Checkpoints | None = None,
) -> TrainingRun:
    """Train a task as the options ask for; keep its best parameters if they are to be saved or part of a checkpoint."""

    def report(entry: LogEntry) -> None:
        if options.save or checkpoints:
            best.see(entry.epoch, entry.held_out_rmse)
        on_entry(entry)

    return train(
        task, provider, options.updates, options.log_every, options.update_rule, options.lr, options.target_rmse,
        options.lines_of_patience, report, default, checkpoints,
    )  # fmt: skip
