"""A case with the gate around it, for test suites."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from mfbench.errors import UsageError
from mfbench.problems.cases import Axes, Case, fault

DEFAULT: dict[str, Any] = {"size": ["200x300", "129x65", "33x47"], "rank": [30, 1], "density": 0.7}
ANOTHER_DRAW = 1  # number of the parameters of the second evaluation


class GatedCase:
    """A problem whose exact answer is known."""

    def __init__(self, case: Case, device: str = "cpu") -> None:
        self.case, self.device = case, device

    @functools.cached_property
    def inputs(self) -> Any:
        """The arguments of a provider in order: factors, biases, ratings, mask, reg (`problems.inputs.Inputs`)."""
        from mfbench.problems.inputs import on_device

        return on_device(self._drawn, self.device)

    def check(self, function: Callable[..., Any]) -> dict[str, float]:
        """Hold `function(*inputs)`, a loss and five gradients, against the gate: twice, on different parameters.

        Returns:
            The error of every output over its bound, the larger of the two evaluations.

        Raises:
            AssertionError: an output is off, has another shape or dtype, or an input was changed; the message says
                which, by how much, and where that can be told what is wrong with it in terms of the formula.
        """
        __tracebackhide__ = True
        inputs = copy.deepcopy(self.inputs)
        first = self._evaluate(function, inputs, self._standard)
        from mfbench.problems.inputs import redraw_parameters

        others = redraw_parameters(self.case, ANOTHER_DRAW)
        for name, values in others.items():
            getattr(inputs, name).detach().copy_(values)  # the function may have asked for its gradient
        moved = self._standard.at(self._drawn._replace(**others))
        second = self._evaluate(function, inputs, moved, "on other parameters in the same tensors: ")
        return {name: max(error, second[name]) for name, error in first.items()}

    def _evaluate(self, function: Callable[..., Any], inputs: Any, standard: Any, when: str = "") -> dict[str, float]:
        __tracebackhide__ = True
        from mfbench.commands.verify import check
        from mfbench.providers.registry import Provider

        provider = Provider("", lambda inputs: functools.partial(function, *inputs))
        errors, wrong = check(provider, inputs, standard)
        if wrong:
            raise AssertionError(f"{self.case.label}: {when}{wrong}")
        return errors

    @functools.cached_property
    def _drawn(self) -> Any:
        from mfbench.problems.inputs import draw, sized

        self.case = sized(self.case)
        inputs = draw(self.case)
        return inputs._replace(
            **{name: value.clone() for name, value in inputs._asdict().items() if hasattr(value, "clone")}
        )

    @functools.cached_property
    def _standard(self) -> Any:
        from mfbench.correctness import gate

        return gate.standard(self._drawn)


def cases(axes: Mapping[str, Any]) -> list[GatedCase]:
    """A case for every combination of the axes' values; those not given are the default's.

    Raises:
        UsageError: an axis that there is not, or a value that does not fit.
    """
    axes = dict(axes)
    device = axes.pop("device", "cpu")
    if device not in ("cpu", "cuda"):
        raise UsageError(f"mf_case: device: expected 'cpu' or 'cuda', got {device!r}")
    try:
        group = Axes.model_validate(({} if "data" in axes else DEFAULT) | axes)
    except ValidationError as error:
        raise UsageError(f"mf_case: {fault(error, Axes)}") from None
    return [GatedCase(case, device) for case in group.cases("mf_case")]
