"""Check backends and providers against the float64 oracle."""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from kernels import backends, encode_ratings, mf_loss_and_grads
from kernels.loss import PRECISIONS
from mfbench.correctness import gate
from mfbench.problems import matrices
from mfbench.problems.inputs import Inputs, fingerprints, on_device
from mfbench.providers import registry
from mfbench.providers.exceptions import reason
from mfbench.providers.outputs import OUTPUTS, WrongOutputs, changed_inputs, flaws, tensors
from mfbench.providers.registry import Provider
from mfbench.testing.random_problems import RandomProblem

DEVICE_BACKENDS = {"cpu": ("native", "torch", "interpret"), "cuda": ("triton", "torch")}
ENCODINGS = (None, "bfloat16-nan", "float16-nan", "float32-nan")  # None: the smallest


class Failure(NamedTuple):
    """A provider that failed on a problem, and why."""

    provider: str
    problem: str
    reason: str


class Tally(NamedTuple):
    """A provider's results over all problems."""

    provider: str
    device: str
    passed: int
    problems: int
    worst: dict[str, float]  # largest error / bound, by output
    left_out: int = 0  # further problems, whose mask holds weights, which it does not take


Given = Callable[[Inputs], tuple[Any, ...]]  # arguments of the step, from dense inputs


class Candidate(NamedTuple):
    """A provider to check."""

    provider: Provider
    eps: float = 0.0  # unit roundoff of its products where coarser than the parameters'


def candidates(device: str, names: Sequence[str] | None) -> list[Candidate]:
    """Return the named providers, or else every backend that can run on the device in all its modes, and autograd.

    Raises:
        UsageError: a provider cannot be loaded.
    """
    if names:
        return [Candidate(registry.load(name)) for name in names]
    available = [name for name, backend in backends().items() if backend.available]
    tested = [name for name in available if name in DEVICE_BACKENDS[device]]
    return [*(mode for name in tested for mode in _modes(name)), Candidate(registry.load("autograd"))]


def _modes(backend: str) -> Iterator[Candidate]:
    def candidate(mode: str, eps: float = 0.0, given: Given = lambda inputs: inputs, **options: Any) -> Candidate:
        options["backend"] = backend

        def prepare(inputs: Inputs) -> registry.Step:
            arguments = given(inputs)
            return lambda: mf_loss_and_grads(*arguments, **options)

        return Candidate(Provider(f"{backend} {mode}".strip(), prepare), eps)

    yield candidate("")
    yield candidate("deterministic", deterministic=True)
    yield candidate("encoded", given=_encoded)
    yield candidate("sparse", given=_sparse)
    yield candidate("sparse deterministic", given=_sparse, deterministic=True)
    yield candidate("sparse encoded", given=_sparse_encoded)
    if backend in ("triton", "interpret"):
        for precision in PRECISIONS[1:]:
            eps = gate.PRECISION_EPS.get(precision, 0.0) if backend == "triton" else 0.0  # the interpreter is exact
            yield candidate(precision, eps, precision=precision)


def _sparse(inputs: Inputs) -> Inputs:
    """Return the inputs with the observed ratings alone, in compressed rows; unchanged if weighted."""
    if inputs.weighted:
        return inputs
    ratings = matrices.to_sparse(inputs.ratings, inputs.mask)
    if sum(inputs.ratings.shape) % 2:  # indices of either width
        starts, columns, values = matrices.parts(ratings)
        ratings = matrices.csr(starts.long(), columns.long(), values, ratings.shape)
    return inputs._replace(ratings=ratings, mask=None)


def _sparse_encoded(inputs: Inputs) -> tuple[Any, ...]:
    """Return the inputs with the observed ratings alone, encoded; unchanged if weighted."""
    if inputs.weighted:
        return inputs
    return (*inputs[:5], encode_ratings(inputs.ratings, inputs.mask, layout="sparse"), None, inputs.reg)


def _encoded(inputs: Inputs) -> tuple[Any, ...]:
    """Return the inputs with ratings and mask encoded, in an encoding that depends on the shape; not if weighted."""
    if inputs.weighted:
        return inputs  # no encoding holds weights
    encoding = ENCODINGS[sum(inputs.ratings.shape) % len(ENCODINGS)]
    try:
        ratings = encode_ratings(inputs.ratings, inputs.mask, encoding, layout="dense")
    except ValueError:  # it would lose precision
        ratings = encode_ratings(inputs.ratings, inputs.mask, layout="dense")
    return (*inputs[:5], ratings, None, inputs.reg)


def check(
    provider: Provider, inputs: Inputs, standard: gate.Standard
) -> tuple[dict[str, gate.OutputCheck], str | None]:
    """Evaluate a provider once and judge its outputs.

    Outputs must have the parameters' shapes and dtypes, and the inputs must stay unchanged.

    Returns:
        Every output against its bound, and what is wrong, or None.
    """
    before = fingerprints(inputs)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
            outputs = tensors(provider.prepare(inputs)())
    except (Exception, SystemExit) as error:
        return {}, str(error) if isinstance(error, WrongOutputs) else reason(error)
    verdicts = standard.judge([output.detach().cpu().double().numpy() for output in outputs])
    wrong = gate.findings(verdicts, flaws(outputs, inputs) + changed_inputs(inputs, before))
    message = "; ".join(finding.message for finding in wrong)
    return verdicts, message or None


def verify(
    names: Sequence[str] | None, device: str, problems: Iterable[RandomProblem]
) -> tuple[list[Tally], list[Failure]]:
    """Check every candidate on every problem.

    Args:
        names: providers; None checks every backend that can run on the device, and autograd.
        device: "cpu" or "cuda".
        problems: from `random_problems`.

    Raises:
        UsageError: a provider cannot be loaded.
    """
    return _verify(candidates(device, names), device, problems)


def verify_backend(backend: str, device: str, problems: Iterable[RandomProblem]) -> tuple[list[Tally], list[Failure]]:
    """Check one backend in all its modes; arguments and result are those of `verify`."""
    return _verify(list(_modes(backend)), device, problems)


def _verify(
    taking_part: Sequence[Candidate], device: str, problems: Iterable[RandomProblem]
) -> tuple[list[Tally], list[Failure]]:
    worst: dict[str, dict[str, float]] = {
        candidate.provider.name: dict.fromkeys(OUTPUTS, 0.0) for candidate in taking_part
    }
    failures = []
    count = weighted = 0
    for description, drawn in problems:
        count += 1
        needs_weights = drawn.needs_weights
        weighted += needs_weights
        inputs = on_device(drawn, device)
        standard = gate.standard(drawn)
        for provider, eps in taking_part:
            if needs_weights and not provider.takes_weights:
                continue
            verdicts, wrong = check(provider, copy.deepcopy(inputs), standard.coarsened(eps))
            for output, verdict in verdicts.items():
                worst[provider.name][output] = max(worst[provider.name][output], verdict.error / verdict.bound)
            if wrong:
                failures.append(Failure(provider.name, description, wrong))
    failed = [failure.provider for failure in failures]
    tallies = []
    for provider, _ in taking_part:
        left_out = 0 if provider.takes_weights else weighted
        given = count - left_out
        passed = given - failed.count(provider.name)
        tallies.append(Tally(provider.name, device, passed, given, worst[provider.name], left_out))
    return tallies, failures
