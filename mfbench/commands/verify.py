"""`mfbench verify`: drawn problems, every backend that can run here, and the float64 oracle's word."""

from __future__ import annotations

import contextlib
import copy
import json
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from kernels import backends, encode_ratings, mf_loss_and_grads
from kernels.loss import PRECISIONS
from mfbench import log
from mfbench.commands.run import pick_devices
from mfbench.correctness import gate
from mfbench.measure.recording import finite
from mfbench.problems.inputs import Inputs, fingerprints, on_device
from mfbench.providers import registry
from mfbench.providers.exceptions import reason
from mfbench.providers.outputs import WrongOutputs, flaws, tensors
from mfbench.providers.registry import Provider
from mfbench.report.labels import short
from mfbench.report.terminal import Output

EDGES = (1, 2, 5, 15, 16, 17, 31, 33, 47, 48, 49, 63, 64, 65, 95, 97, 127, 128, 129, 145, 193)  # about tile sizes
RANKS = (1, 2, 6, 7, 8, 14, 15, 16, 30, 31, 33, 62, 63, 64, 65, 97, 126, 130)
RATINGS = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.uint8, torch.int8)
MASKS = (torch.uint8, torch.bool, None, torch.int32, torch.float32, torch.int64, torch.int8, torch.float64,
         torch.float16, torch.int16)  # fmt: skip
LAYOUTS = ("contiguous", "transposed", "strided", "expanded")
DENSITIES = (0.8, 0.05, 1.0, 0.5, 0.0)
SCALES = (1.0, 1e-3, 1e3)
DEVICE_BACKENDS = {"cpu": ("native", "torch", "interpret"), "cuda": ("triton", "torch")}


class Drawn(NamedTuple):
    description: str
    inputs: Inputs


class Failure(NamedTuple):
    provider: str
    problem: str
    reason: str


class Tally(NamedTuple):
    """A provider over all problems: worst error over bound of every output."""

    provider: str
    device: str
    passed: int
    problems: int
    worst: dict[str, float]


def draw(count: int, seed: int) -> Iterator[Drawn]:
    """Problems whose mask kinds, rating dtypes, layouts and densities all occur, sizes and values drawn at random.

    Unobserved ratings are NaN or Inf where the dtype has them; rows and columns without a rating occur.
    """
    choose = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    for number in range(count):
        m, n, rank = choose.choice(EDGES), choose.choice(EDGES), choose.choice(RANKS)
        ratings_dtype, mask_dtype = RATINGS[number % len(RATINGS)], MASKS[number % len(MASKS)]
        layout, density = LAYOUTS[number // 2 % len(LAYOUTS)], DENSITIES[number // 3 % len(DENSITIES)]
        dtype = torch.float64 if number % 7 == 3 else torch.float32
        scale = SCALES[number // 5 % len(SCALES)]
        yield Drawn(
            f"{m}x{n} rank {rank}, {_name(dtype)} parameters x {scale:g}, {_name(ratings_dtype)} ratings, "
            f"{layout}, {density:g} observed by {_name(mask_dtype)} mask",
            _inputs(m, n, rank, dtype, scale, ratings_dtype, mask_dtype, layout, density, generator),
        )


class Candidate(NamedTuple):
    """A provider under test, and the unit of rounding of its products where that is coarser than the parameters'."""

    provider: Provider
    eps: float = 0.0


def candidates(device: str, names: Sequence[str] | None) -> list[Candidate]:
    """The providers named; or every backend that can run on the device in all its modes, and autograd."""
    if names:
        return [Candidate(registry.load(name)) for name in names]
    able = [name for name, backend in backends().items() if backend.available]
    tested = [name for name in able if name in DEVICE_BACKENDS[device]]
    return [*(mode for name in tested for mode in _modes(name)), Candidate(registry.load("autograd"))]


def _modes(backend: str) -> Iterator[Candidate]:
    def candidate(mode: str, eps: float = 0.0, encoded: bool = False, **options: Any) -> Candidate:
        options["backend"] = backend

        def prepare(inputs: Inputs) -> registry.Step:
            arguments: tuple[Any, ...] = _encoded(inputs) if encoded else inputs
            return lambda: mf_loss_and_grads(*arguments, **options)

        return Candidate(Provider(f"{backend} {mode}".strip(), prepare), eps)

    yield candidate("")
    yield candidate("deterministic", deterministic=True)
    yield candidate("encoded", encoded=True)
    if backend in ("triton", "interpret"):
        for precision in PRECISIONS[1:]:
            eps = gate.PRECISION_EPS.get(precision, 0.0) if backend == "triton" else 0.0  # the interpreter is exact
            yield candidate(precision, eps, precision=precision)


def _encoded(inputs: Inputs) -> tuple[Any, ...]:
    """The inputs with ratings and mask in one, by turns in the smallest encoding and as floats with NaN."""
    encoding = (None, "bfloat16-nan", "float16-nan", "float32-nan")[sum(inputs.ratings.shape) % 4]
    try:
        ratings = encode_ratings(inputs.ratings, inputs.mask, encoding)
    except ValueError:  # it would lose something
        ratings = encode_ratings(inputs.ratings, inputs.mask)
    return (*inputs[:5], ratings, None, inputs.reg)


def check(provider: Provider, inputs: Inputs, standard: gate.Standard) -> tuple[dict[str, float], str | None]:
    """Error over bound of every output, and what is wrong, if anything.

    Outputs must have the parameters' shapes and dtypes, and inputs must come back as they went in.
    """
    before = fingerprints(inputs)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is the result's
            outputs = tensors(provider.prepare(inputs)())
    except (Exception, SystemExit) as error:
        return {}, str(error) if isinstance(error, WrongOutputs) else reason(error)
    verdicts = standard.judge([output.detach().cpu().double().numpy() for output in outputs])
    changed = [f"changed its input {name}" for name, bits in fingerprints(inputs).items() if bits != before[name]]
    wrong = gate.complaints(verdicts, flaws(outputs, inputs) + changed)
    return {name: v.error / v.bound for name, v in verdicts.items()}, "; ".join(wrong) or None


def verify(names: Sequence[str] | None, device: str, problems: Iterable[Drawn]) -> tuple[list[Tally], list[Failure]]:
    """Every candidate on every problem."""
    taking_part = candidates(device, names)
    worst: dict[str, dict[str, float]] = {
        candidate.provider.name: dict.fromkeys(gate.OUTPUTS, 0.0) for candidate in taking_part
    }
    failures = []
    count = 0
    for description, drawn in problems:
        count += 1
        inputs = on_device(drawn, device)
        standard = gate.standard(drawn)
        for provider, eps in taking_part:
            ratios, reason = check(provider, copy.deepcopy(inputs), standard.coarsened(eps))
            for output, ratio in ratios.items():
                worst[provider.name][output] = max(worst[provider.name][output], ratio)
            if reason:
                failures.append(Failure(provider.name, description, reason))
    failed = [failure.provider for failure in failures]
    return [
        Tally(provider.name, device, count - failed.count(provider.name), count, worst[provider.name])
        for provider, _ in taking_part
    ], failures


def command(device: str | None, names: Sequence[str] | None, seed: int, count: int, as_json: bool) -> int:
    """Print what `verify` found; the exit code."""
    for name in names or ():
        registry.check(name)
    problems = list(draw(count, seed))
    tallies: list[Tally] = []
    failures: list[Failure] = []
    for chosen in pick_devices(device):
        progress = track(
            problems,
            f"verifying on {chosen}",
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty() or log.level() != 0,
        )
        found, failed = verify(names, chosen, progress)
        tallies, failures = tallies + found, failures + failed
    if as_json:
        rows = [t._asdict() | {"worst": {name: finite(ratio) for name, ratio in t.worst.items()}} for t in tallies]
        print(json.dumps({"providers": rows, "failures": [f._asdict() for f in failures]}))
    else:
        Output().print(_table(tallies))
        for failure in failures[:20]:
            print(f"{failure.provider}: {failure.problem}: {failure.reason}", file=sys.stderr)
        if len(failures) > 20:
            print(f"and {len(failures) - 20} more", file=sys.stderr)
    return int(bool(failures))


def _table(tallies: Sequence[Tally]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim", title_justify="left")
    table.add_column("provider", no_wrap=True)
    table.add_column("within bound", justify="right", no_wrap=True)
    for letter in ("loss", "dP", "dQ", "dbu", "dbi", "dmu"):
        table.add_column(letter, justify="right", min_width=5)
    for tally in tallies:
        style = "green" if tally.passed == tally.problems else "red"
        table.add_row(
            short(tally.provider),
            f"[{style}]{tally.passed} of {tally.problems}[/]",
            *(f"{tally.worst[output]:.2f}" for output in gate.OUTPUTS),
        )
    devices = " and ".join(dict.fromkeys(tally.device for tally in tallies))
    table.caption = f"On {devices}. Worst error over bound of every output, against the float64 oracle; 1 = the bound."
    table.caption_justify = "left"
    return table


def _inputs(
    m: int, n: int, rank: int, dtype: torch.dtype, scale: float, ratings_dtype: torch.dtype,
    mask_dtype: torch.dtype | None, layout: str, density: float, generator: torch.Generator,
) -> Inputs:  # fmt: skip
    shapes = ((m, rank), (n, rank), (m, 1), (n,), ())
    P, Q, bu, bi, mu = (torch.randn(shape, generator=generator, dtype=dtype) * scale for shape in shapes)
    observed = torch.rand((m, n), generator=generator) < density
    observed[:, n // 2] = False
    observed[m // 3] |= density > 0
    if ratings_dtype.is_floating_point:
        ratings = (torch.randint(1, 11, (m, n), generator=generator) / 2 * scale).to(ratings_dtype)
        unobservable = torch.tensor([float("nan"), float("inf"), -float("inf")], dtype=ratings_dtype)
        if mask_dtype is None:
            unobservable = unobservable[:1]
        ratings = torch.where(observed, ratings, unobservable[torch.arange(n) % len(unobservable)])
    else:
        ratings = torch.randint(1, 11, (m, n), generator=generator).to(ratings_dtype)
    mask = None
    if mask_dtype is not None:
        weights = torch.randint(1, 100, (m, n), generator=generator)  # any value but zero means observed
        mask = (weights * observed).to(mask_dtype)
    if layout == "expanded":
        ratings, mask = ratings[:1].expand(m, n), None if mask is None else mask[:1].expand(m, n)
    else:
        ratings, mask = _laid_out(ratings, layout), None if mask is None else _laid_out(mask, layout)
    P, bu = _laid_out(P, layout), _laid_out(bu, layout)
    return Inputs(P, Q, bu, bi, mu, ratings, mask)


def _laid_out(tensor: Tensor, layout: str) -> Tensor:
    """The same values in another memory layout."""
    if layout == "transposed":
        return tensor.T.contiguous().T
    if layout == "strided":
        wide = tensor.new_empty(tensor.shape[0] * 2, tensor.shape[1] * 3)
        wide[::2, 1::3] = tensor
        return wide[::2, 1::3]
    return tensor


def _name(dtype: torch.dtype | None) -> str:
    return "no" if dtype is None else str(dtype).removeprefix("torch.")
