"""An epoch between two lines of the log, a step and an update: captured in a CUDA graph where the device has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mfbench import log
from mfbench.providers import graphs
from mfbench.providers.exceptions import reason
from mfbench.providers.registry import Step
from mfbench.train.options import Optimizer
from mfbench.train.preconditioner import Preconditioner
from mfbench.train.task import PARAMETERS, Task

MOMENTUM = 0.9
TOLERANCE = 1e-2  # of a replayed update, relative to the largest one of its tensor; sums on a GPU vary by 1e-6


class Update:
    """Moves the parameters of a task against their gradients, in few passes over them."""

    def __init__(self, task: Task, optimizer: Optimizer, lr: float) -> None:
        self.parameters, self.lr = task.inputs[:5], lr
        self._preconditioner = Preconditioner(task) if optimizer == "preconditioned" else None
        self._momenta: tuple[Tensor, ...] = ()
        self._adam: torch.optim.Optimizer | None = None
        if optimizer == "adam":
            self._adam = torch.optim.Adam(self.parameters, lr=lr, capturable=self.parameters[0].is_cuda)
        elif optimizer != "sgd":
            self._momenta = tuple(torch.zeros_like(parameter) for parameter in self.parameters)

    def __call__(self, grads: Sequence[Tensor]) -> None:
        parameters, momenta, grads = self.parameters, self._momenta, tuple(grads)
        if self._adam:
            for parameter, grad in zip(parameters, grads, strict=True):
                parameter.grad = grad
            self._adam.step()
        elif self._preconditioner:  # Nesterov's: undo the move ahead, and make it again with the new momentum
            scales = self._preconditioner.scales()
            torch._foreach_add_(parameters, momenta, alpha=self.lr * MOMENTUM)
            torch._foreach_mul_(momenta, MOMENTUM)
            torch._foreach_addcdiv_(momenta, grads, scales)
            torch._foreach_add_(parameters, momenta, alpha=-self.lr * (1 + MOMENTUM))
        elif momenta:
            torch._foreach_mul_(momenta, MOMENTUM)
            torch._foreach_add_(momenta, grads)
            torch._foreach_add_(parameters, momenta, alpha=-self.lr)
        else:
            torch._foreach_add_(parameters, grads, alpha=-self.lr)

    def state(self) -> dict[str, Tensor]:
        """Return the tensors that the optimizer keeps, by the parameter's name and their own: `item_bias.exp_avg`."""
        if self._adam is None:
            return {
                f"{name}.momentum_buffer": momentum for name, momentum in zip(PARAMETERS, self._momenta, strict=False)
            }
        return {
            f"{name}.{key}": value
            for name, parameter in zip(PARAMETERS, self.parameters, strict=True)
            for key, value in self._adam.state.get(parameter, {}).items()
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Continue with what `state` returned."""
        if self._adam is None:
            for name, momentum in self.state().items():
                momentum.copy_(state[name])
            return
        whole = self._adam.state_dict()
        for full_name, value in state.items():
            name, _, key = full_name.partition(".")
            whole["state"].setdefault(PARAMETERS.index(name), {})[key] = value
        self._adam.load_state_dict(whole)

    def written(self) -> list[Tensor]:
        """Return the tensors that an update writes to: parameters first, then the optimizer's state."""
        return [*self.parameters, *self.state().values()]


def epoch_of(step: Step, update: Update) -> Callable[[], object]:
    """Return a function that runs one epoch: a CUDA graph of it on a GPU, if a replay does what the epoch does.

    Args:
        step: evaluates loss and gradients of the present parameters.
        update: has run before, so that the optimizer's state exists.
    """

    def epoch() -> None:
        update(step()[1])

    if not graphs.can_capture(update.parameters[0].device):
        return epoch
    try:
        captured = graphs.Captured(epoch, warm_up=step)
        if not _alike(captured, epoch, update):
            raise RuntimeError("a replay gives another update than the step")
    except Exception as error:  # of the provider's code, which was not written for a capture
        log.note(f"epochs are not replayed as a CUDA graph: {reason(error)}")
        return epoch
    return captured


def _alike(replay: Callable[[], object], epoch: Callable[[], object], update: Update) -> bool:
    """Return whether both move changed parameters alike; afterwards everything is as before."""
    before = [tensor.clone() for tensor in update.written()]

    def moved(run: Callable[[], object]) -> list[Tensor]:
        for parameter in update.parameters:
            parameter.mul_(0.5)  # a replay that does not read the parameters would move them as before
        start = [tensor.clone() for tensor in update.written()]
        try:
            run()
            return [tensor - old for tensor, old in zip(update.written(), start, strict=True)]
        finally:
            for tensor, value in zip(update.written(), before, strict=True):
                tensor.copy_(value)

    return all(map(_close, moved(replay), moved(epoch), before))


def _close(replayed: Tensor, eager: Tensor, value: Tensor) -> bool:
    if not eager.numel():
        return True
    rounding = torch.finfo(value.dtype).eps * value.abs().max()
    return bool(((replayed - eager).abs().max() <= TOLERANCE * eager.abs().max() + 4 * rounding).item())
