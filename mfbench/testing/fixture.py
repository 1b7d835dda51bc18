"""A case that checks a function by the correctness gate, for test suites."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mfbench.errors import UsageError
from mfbench.installation import foreign_packages
from mfbench.problems.cases import Case, CaseSpec, parse_axes

if TYPE_CHECKING:
    from mfbench.correctness.gate import Standard
    from mfbench.problems.inputs import Inputs

DEFAULT: dict[str, Any] = {"size": ["200x300", "129x65", "33x47"], "rank": [30, 1], "density": [0.7]}
DEVICES = ("cpu", "cuda")
SECOND_DRAW = 1  # seed of the parameters of the second evaluation


class GatedCase:
    """A problem whose exact answer is known."""

    def __init__(self, spec: CaseSpec, device: str = "cpu") -> None:
        self.spec, self.device = spec, device

    @functools.cached_property
    def case(self) -> Case:
        """The case with its size."""
        from mfbench.problems.inputs import resolve

        return resolve(self.spec)

    @functools.cached_property
    def inputs(self) -> Inputs:
        """The arguments of a provider in order: factors, biases, ratings, mask, reg."""
        from mfbench.problems.inputs import on_device

        return on_device(self._drawn, self.device)

    def check(self, function: Callable[..., Any]) -> dict[str, float]:
        """Check `function(*inputs)`, which returns a loss and five gradients, twice with different parameters.

        Returns:
            The error of each output divided by its bound, the larger of the two evaluations.

        Raises:
            AssertionError: an output is off or has another shape or dtype, or an input was changed; the message says
                which, by how much, and if possible what is wrong in terms of the formula.
        """
        from mfbench.problems.inputs import moved, redraw_parameters

        __tracebackhide__ = True
        inputs = moved(self.inputs)
        first = self._evaluate(function, inputs, self._standard)
        others = redraw_parameters(self.case, SECOND_DRAW)
        for name, values in others.items():
            getattr(inputs, name).detach().copy_(values)  # the function may have asked for its gradient
        standard = self._standard.at(self._drawn._replace(**others))
        second = self._evaluate(function, inputs, standard, "on other parameters in the same tensors: ")
        return {name: max(error, second[name]) for name, error in first.items()}

    def _evaluate(
        self, function: Callable[..., Any], inputs: Inputs, standard: Standard, when: str = ""
    ) -> dict[str, float]:
        __tracebackhide__ = True
        from mfbench.providers.registry import Provider
        from mfbench.testing.verify import check

        provider = Provider("", lambda inputs: functools.partial(function, *inputs))
        verdicts, wrong = check(provider, inputs, standard)
        if wrong:
            raise AssertionError(f"{self.case.label}: {when}{wrong}")
        return {name: verdict.error / verdict.bound for name, verdict in verdicts.items()}

    @functools.cached_property
    def _drawn(self) -> Inputs:
        """Inputs that share no memory with a cached data set."""
        from mfbench.problems.inputs import draw, moved

        return moved(draw(self.case))

    @functools.cached_property
    def _standard(self) -> Standard:
        from mfbench.correctness import gate

        return gate.standard(self._drawn)


def cases(axes: Mapping[str, Any]) -> list[GatedCase]:
    """Return a case for every combination of the axes' values.

    Args:
        axes: a value or several by the name of the axis, and the device; size, rank and density have defaults, but
            not for a data set. The layout is dense unless it is given.

    Raises:
        UsageError: no such axis, or a value that does not fit, or a package of another project's under the name of
            one of ours.
    """
    if foreign := foreign_packages():
        raise UsageError("; ".join(foreign), code="foreign-package")
    axes = dict(axes)
    device = axes.pop("device", "cpu")
    if device not in DEVICES:
        raise UsageError(f"expected 'cpu' or 'cuda', got {device!r}", code="bad-device", argument="device")
    group = parse_axes(axes if "data" in axes else DEFAULT | axes)
    if "layout" not in axes:
        group = group.model_copy(update={"layout": ["dense"]})
    return [GatedCase(spec, device) for spec in group.specs("mf_case")]
