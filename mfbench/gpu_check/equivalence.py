"""One build of every kind of the fused kernel against float64, and the data on which tensor cores err most."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch

from kernels import encode_ratings, mf_loss, mf_loss_and_grads
from mfbench.correctness.gate import Standard
from mfbench.gpu_check.machine import Size
from mfbench.gpu_check.task import Context, PlainCase, Result, Task, as_case, product_eps
from mfbench.problems.inputs import Inputs, draw
from mfbench.problems.matrices import to_sparse
from mfbench.providers.registry import Outputs
from mfbench.testing.random_problems import Recipe, make

PART = "equivalence"
SUITE = "gpu-check-equivalence"
RANKS = (30, 64, 256)  # the notebook's; one whose bias gradients are sums of errors; one with factors in chunks
ENCODINGS = ("bfloat16-nan", "float16-nan", "float32-nan", None)  # None: the smallest
SMALL = 0.01  # scale of the factors at the start of a training
OFFSET = 10.0  # of the global bias above the ratings, so that all errors have one sign


class Build(NamedTuple):
    """One kind of build: the data that leads to it, and the options of the step."""

    name: str
    data: Mapping[str, Any] = {}  # what differs from the usual recipe
    options: Mapping[str, Any] = {}
    encoding: tuple[str | None, ...] = ()  # the ratings are encoded: the argument of `encode_ratings`
    sparse: bool = False  # these alone are kept: encoded so, or as torch.sparse_csr


def builds(precisions: tuple[str, ...]) -> Iterator[Build]:
    """Yield every kind of build, those that most people run first."""
    yield Build("float64 in plain PyTorch", {"dtype": torch.float64}, {"backend": "torch"})
    for rank in RANKS:
        for precision in precisions:
            for mode, deterministic in (("", False), (" deterministic", True)):
                options = {"precision": precision, "deterministic": deterministic}
                yield Build(f"{precision} rank {rank}{mode}", {"rank": rank}, options)
    yield Build("float64 ratings, int32 mask", {"ratings_dtype": torch.float64, "mask_dtype": torch.int32})
    yield Build("NaN for unobserved ratings", {"mask_dtype": None})
    yield Build("a mask of weights", {"mask_dtype": torch.float32})
    for dtype in (torch.bfloat16, torch.float16, torch.uint8, torch.int8):
        yield Build(f"{str(dtype).removeprefix('torch.')} ratings", {"ratings_dtype": dtype, "mask_dtype": torch.bool})
    for layout in ("transposed", "strided"):
        yield Build(f"{layout} memory", {"layout": layout})
    for encoding in ENCODINGS:
        yield Build(f"encoded as {encoding or 'codes'}", encoding=(encoding,))
    yield Build("encoded as uint8-bits", {"ratings_dtype": torch.uint8}, encoding=("uint8-bits",))
    yield Build("sparse ratings", sparse=True)
    for rank in (30, 256):
        for mode, deterministic in (("", False), (" deterministic", True)):
            options = {"deterministic": deterministic}
            yield Build(f"sparse codes rank {rank}{mode}", {"rank": rank}, options, (None,), True)
    yield Build("float64 parameters rank 30", {"dtype": torch.float64})
    yield Build("float64 parameters rank 30 deterministic", {"dtype": torch.float64}, {"deterministic": True})
    yield Build("float64 parameters rank 256", {"rank": 256, "dtype": torch.float64})


def equivalence(context: Context) -> Iterator[Task]:
    """Yield a task for every kind of build, for the forward pass, and for sums on which tensor cores err most."""
    sizes = context.machine.sizes
    for build in builds(context.machine.precisions):
        yield Task(PART, build.name, functools.partial(_check_build, context, build))
    yield Task(PART, "forward only", functools.partial(_check_forward, context))
    for what, change, size, rank in (
        ("errors of one sign", _one_sign, sizes.build, 256),
        ("start of a training, long walk", _at_start, sizes.walk, 30),
        ("errors of one sign, long walk", _one_sign, sizes.walk, 30),
    ):
        for precision in context.shipped(rank):
            sums = Sums(f"{precision} rank {rank}, {what}", change, size, rank, precision)
            yield Task(PART, sums.name, functools.partial(_check_sums, context, sums), seconds=30)


class Sums(NamedTuple):
    """Data whose sums grow with every rating, and with them what each addition rounds off."""

    name: str
    change: Callable[[Inputs], Inputs]
    size: Size
    rank: int
    precision: str


def _check_build(context: Context, build: Build) -> Result:
    recipe = _recipe(context, **build.data)
    options = {"backend": context.machine.backend, **build.options}

    def prepare(inputs: Inputs) -> Callable[[], Outputs]:
        arguments: tuple[Any, ...] = inputs
        if build.sparse:
            arguments = (*inputs[:5], to_sparse(inputs.ratings, inputs.mask), None, inputs.reg)
        for encoding in build.encoding:
            ratings, mask = arguments[5:7]
            encoded = encode_ratings(ratings, mask, encoding, "sparse" if build.sparse else "dense")
            arguments = (*inputs[:5], encoded, None, inputs.reg)
        return lambda: mf_loss_and_grads(*arguments, **options)

    precision, rank, bytes_ = options.get("precision", "ieee"), recipe.rank, recipe.dtype.itemsize
    reason = context.machine.not_shipped(rank, precision, options.get("deterministic", False), bytes_)
    if reason and not build.sparse:
        return Result(build.name, note=f"not shipped: {reason}")
    eps = product_eps(precision)
    return context.judged(build.name, prepare, _standard(context, recipe), SUITE, eps)


def _check_forward(context: Context) -> Result:
    """Check the pass without gradients; plain PyTorch's stand in for those that it does not compute."""

    def prepare(inputs: Inputs) -> Callable[[], Outputs]:
        def step() -> Outputs:
            with torch.no_grad():
                loss = mf_loss(*inputs, backend=context.machine.backend)
            return loss, mf_loss_and_grads(*inputs, backend="torch")[1]

        return step

    return context.judged("forward only", prepare, _standard(context, _recipe(context)), SUITE)


def _check_sums(context: Context, sums: Sums) -> Result:
    standard = _standard_of_sums(context, sums.change, sums.size, sums.rank)
    prepare = context.fused(precision=sums.precision)
    return context.judged(sums.name, prepare, standard, SUITE, product_eps(sums.precision))


def _at_start(inputs: Inputs) -> Inputs:
    """Make factors small and biases 0, so that errors are about as large as ratings, and negative."""
    factors: dict[str, Any] = {name: getattr(inputs, name) * SMALL for name in ("user_factors", "item_factors")}
    biases: dict[str, Any] = {
        name: torch.zeros_like(getattr(inputs, name)) for name in ("user_bias", "item_bias", "global_bias")
    }
    return inputs._replace(**factors, **biases)


def _one_sign(inputs: Inputs) -> Inputs:
    """Make all predictions larger than their ratings."""
    factors: dict[str, Any] = {name: getattr(inputs, name).abs() for name in ("user_factors", "item_factors")}
    return inputs._replace(**factors, global_bias=inputs.global_bias.abs() + OFFSET)


def _recipe(context: Context, **changes: Any) -> Recipe:
    m, n = context.machine.sizes.build
    usual = Recipe(m, n, 30, torch.float32, 1.0, torch.float32, torch.uint8, "contiguous", 0.8)
    return usual._replace(**changes)


# Builds that share a standard follow each other, so that one is kept at a time.


@functools.lru_cache(maxsize=1)
def _standard(context: Context, recipe: Recipe) -> Standard:
    return context.standard(make(recipe, torch.Generator("cpu").manual_seed(context.seed)))


@functools.lru_cache(maxsize=1)
def _standard_of_sums(context: Context, change: Callable[[Inputs], Inputs], size: Size, rank: int) -> Standard:
    return context.standard(change(draw(as_case(PlainCase(SUITE, *size, rank, seed=context.seed)))))
