"""Training with any provider: the notebook's task and loop, and the same on real ratings with a held-out part."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from kernels import mf_sse
from mfbench.errors import UsageError
from mfbench.problems.cases import Case
from mfbench.problems.datasets import Ratings
from mfbench.problems.inputs import Inputs, draw
from mfbench.providers import registry
from mfbench.providers.outputs import flaws, tensors

Optimizer = Literal["sgd", "momentum", "adam"]
Update = Callable[[Sequence[Tensor]], None]

NOTEBOOK_SIZE, NOTEBOOK_RATE = (200, 300), 1e-5
ADAM_RATE = 3e-3
MOMENTUM = 0.9
START_SCALE = 0.1  # standard deviation of the factors at the start on real ratings
CHECK_EVERY = 100  # epochs between two looks at the loss, each of which waits for the device
EXPLODED = 10  # times the first loss


class Diverged(UsageError):
    """The learning rate is too large; the message names one that would work."""


class Task(NamedTuple):
    """What is trained and what it is judged by."""

    name: str
    inputs: Inputs  # the parameters at the start, the ratings, the mask of those to train on
    held_out: Tensor  # (m, n) uint8, 1 = held out


class Entry(NamedTuple):
    """A line of the log: the state after so many epochs."""

    epoch: int
    loss: float
    held_out_sse: float
    held_out_rmse: float  # NaN where nothing is held out
    seconds: float  # spent on steps and updates until here, held-out passes not counted


class TrainingRun(NamedTuple):
    """A training run that has ended; the last entry is the state after the last update."""

    task: str
    provider: str
    optimizer: str
    learning_rate: float
    trained_on: int  # ratings
    held_out: int  # ratings
    entries: list[Entry]
    target_rmse: float | None

    @property
    def best(self) -> Entry:
        """The first entry with the least held-out error, or the last where nothing is held out."""
        return min(self.entries, key=lambda entry: entry.held_out_rmse) if self.held_out else self.entries[-1]

    @property
    def reached(self) -> Entry | None:
        """The entry at which training stopped since the held-out RMSE was down to the target."""
        last = self.entries[-1]
        return last if self.target_rmse is not None and last.held_out_rmse <= self.target_rmse else None


# What is trained


def notebook_task(
    size: tuple[int, int] = NOTEBOOK_SIZE, rank: int = 30, density: float = 0.8, seed: int = 1, reg: float = 0.1
) -> Task:
    """The notebook's: uniform ratings, standard-normal start, judged by the unobserved entries."""
    case = Case(
        suite="train", m=size[0], n=size[1], rank=rank, density=density,
        ratings_dtype="float64", mask="int32", data="seed", seed=seed,
    )  # fmt: skip
    inputs = draw(case)._replace(reg=reg)
    assert inputs.mask is not None  # as the case says
    return Task("seed", inputs, (inputs.mask == 0).to(torch.uint8))


def rating_task(ratings: Ratings, rank: int = 30, seed: int = 1, reg: float = 0.1, holdout: float = 0.1) -> Task:
    """Ratings of which a random part is held out; starts at their mean, with small factors and no biases."""
    generator = torch.Generator().manual_seed(seed)
    (m, n), observed = ratings.values.shape, ratings.mask.flatten().nonzero().squeeze(1)
    shuffled = observed[torch.randperm(len(observed), generator=generator)]
    chosen, kept = shuffled.tensor_split([round(holdout * len(observed))])
    held_out = torch.zeros(m * n, dtype=torch.uint8).index_fill_(0, chosen, 1).reshape(m, n)
    mask = ratings.mask - held_out
    mean = ratings.values.flatten()[kept].sum(dtype=torch.float64) / max(1, len(kept))
    p, q = (torch.randn((rows, rank), generator=generator) * START_SCALE for rows in (m, n))
    inputs = Inputs(p, q, torch.zeros(m, 1), torch.zeros(n, 1), mean.float().reshape(1), ratings.values, mask, reg)
    return Task(ratings.name, inputs, held_out)


# How it is trained


def curvature(step: registry.Step, parameters: Sequence[Tensor], iterations: int = 10) -> float:
    """Largest eigenvalue of the loss's second derivative, by power iteration on differences of gradients.

    Gradient descent with rate `lr` is stable where `lr * curvature < 2`. The iteration starts at a shift of all
    predictions at once, nearly the direction of largest curvature, 2 * (observed entries): a few rounds are enough.
    """
    generator = torch.Generator().manual_seed(0)
    shift = [0.0, 0.0, 1 / max(1, len(parameters[0])), 1 / max(1, len(parameters[1])), 1.0]
    direction = [
        torch.randn(p.shape, generator=generator).to(p) * 0.01 / math.sqrt(max(1, p.numel())) + along
        for p, along in zip(parameters, shift, strict=True)
    ]
    start, largest = [p.clone() for p in parameters], 0.0
    distance = 0.1  # the loss is a polynomial of degree four, near its quadratic part at this distance
    for _ in range(iterations):
        norm = _norm(direction)
        slopes = []
        for side in (distance, -distance):
            for p, at, along in zip(parameters, start, direction, strict=True):
                p.copy_(at).add_(along, alpha=side / norm)
            slopes.append([grad.clone() for grad in step()[1]])
        direction = [(up - down) / (2 * distance) for up, down in zip(*slopes, strict=True)]
        largest = _norm(direction)
    for p, at in zip(parameters, start, strict=True):
        p.copy_(at)
    return largest


def _norm(tensors: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors)) or 1.0


def default_rate(task: Task, optimizer: Optimizer, step: registry.Step) -> float:
    """A learning rate that does not diverge: half the limit of plain descent, or the notebook's on its own task."""
    if optimizer == "adam":
        return ADAM_RATE
    rate = 1 / curvature(step, task.inputs[:5])
    return NOTEBOOK_RATE if task.name == "seed" and optimizer == "sgd" and 1.5 * rate > NOTEBOOK_RATE else rate


def _update(parameters: Sequence[Tensor], optimizer: Optimizer, lr: float) -> Update:
    if optimizer == "sgd":  # as torch.optim.SGD does in four times the time

        def subtract(grads: Sequence[Tensor]) -> None:
            for parameter, grad in zip(parameters, grads, strict=True):
                parameter.sub_(grad, alpha=lr)

        return subtract

    rule: torch.optim.Optimizer = (
        torch.optim.Adam(parameters, lr=lr)
        if optimizer == "adam"
        else torch.optim.SGD(parameters, lr=lr, momentum=MOMENTUM)
    )

    def update(grads: Sequence[Tensor]) -> None:
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad
        rule.step()

    return update


def descend(task: Task, step: registry.Step, update: Update, epochs: int, every: int) -> Iterator[Entry]:
    """Train in place, `epochs` updates; an entry every `every` epochs and one after the last update.

    Raises:
        Diverged: the loss is no longer a number, or ten times the first.
        UsageError: the loss is not finite from the beginning.
    """
    parameters, count = task.inputs[:5], int(task.held_out.count_nonzero())
    limit, seconds, resumed = math.inf, 0.0, time.perf_counter()
    for epoch in range(epochs + 1):
        loss, grads = step()
        entry_due = epoch % every == 0 or epoch == epochs
        if entry_due or epoch % CHECK_EVERY == 0:
            value = float(loss)
            if epoch == 0:
                limit = EXPLODED * value or math.inf
                if not math.isfinite(value):
                    raise UsageError(f"--data, --provider: the loss is {value} before the first update")
            if not value <= limit:
                raise Diverged(f"training diverged: loss {value:.6g} at epoch {epoch}, {limit / EXPLODED:.6g} at first")
        if entry_due:
            seconds += time.perf_counter() - resumed
            sse = float(mf_sse(*parameters, task.inputs.ratings, task.held_out))
            yield Entry(epoch, value, sse, math.sqrt(sse / count) if count else math.nan, seconds)
            resumed = time.perf_counter()
        if epoch < epochs:
            update(grads)


def train(
    task: Task,
    provider: registry.Provider,
    epochs: int,
    every: int = 1000,
    optimizer: Optimizer = "sgd",
    lr: float | None = None,
    target_rmse: float | None = None,
    on_entry: Callable[[Entry], Any] = lambda entry: None,
) -> TrainingRun:
    """Train a task's parameters, in place.

    Args:
        task: from `notebook_task` or `rating_task`, on any device.
        provider: computes loss and gradients, from `providers.load`.
        epochs: updates, one full pass each.
        every: epochs between two entries of the log.
        optimizer: plain gradient descent as in the notebook, with momentum 0.9, or Adam.
        lr: None takes `default_rate`.
        target_rmse: stop at the first entry whose held-out RMSE is down to it.
        on_entry: called with each entry as soon as there is one.

    Raises:
        Diverged: the learning rate is too large; the message names one that would work.
        UsageError: the provider's gradients have other shapes than the parameters, or its first loss is not finite.
    """
    parameters, inputs = task.inputs[:5], task.inputs
    assert inputs.mask is not None  # a task always has one
    step = provider.prepare(inputs)
    try:
        first = step()  # what is compiled on first use is not training time
        wrong = [flaw.message for flaw in flaws(tensors(first), inputs)]
    except (Exception, SystemExit) as error:
        raise UsageError(f"--provider: {provider.name}: {type(error).__name__}: {error}") from error
    if wrong or not all(isinstance(grad, Tensor) for grad in first[1]):
        raise UsageError(f"--provider: {provider.name}: {'; '.join(wrong) or 'expected tensors as gradients'}")
    start = [parameter.clone() for parameter in parameters]
    chosen = default_rate(task, optimizer, step) if lr is None else lr
    entries: list[Entry] = []
    run = TrainingRun(
        task.name, provider.name, optimizer, chosen,
        int(inputs.mask.count_nonzero()), int(task.held_out.count_nonzero()), entries, target_rmse,
    )  # fmt: skip
    try:
        for entry in descend(task, step, _update(parameters, optimizer, chosen), epochs, every):
            entries.append(entry)
            on_entry(entry)
            if run.reached:
                break
    except Diverged as error:
        for parameter, at in zip(parameters, start, strict=True):
            parameter.copy_(at)
        works = min(chosen / 2, default_rate(task, optimizer, step))
        raise Diverged(f"--lr: {error}, with {chosen:g}; {_rounded_down(works):g} would work") from None
    return run


def _rounded_down(value: float) -> float:
    """To two digits."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.floor(value / unit) * unit
