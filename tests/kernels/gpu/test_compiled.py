"""What the host does for a step on a GPU: launches, allocations, and nothing else; CPU tensors stand in for its own."""

import contextlib
import itertools
from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kernels import encode_ratings, tiled
from kernels.encoded import observations_of
from kernels.gpu import config, launch
from kernels.gpu.version import is_old
from kernels.problem import Observations, Problem, check_problem
from tests.problems import checked, draw_inputs

pytest.importorskip("triton", reason="Triton is not installed")
from triton.runtime.jit import JITFunction

from kernels.gpu import calls, compiled, interpret

ALLOCATIONS = ({"aten::empty.memory_format": 2}, {"aten::empty.memory_format": 2, "aten::empty_like": 5})
PRECISIONS = ("ieee", "tf32x3", "bf16x3", "tf32", *([] if is_old() else ["float64"]))  # float64 on sm_90


class Launches:
    """Stands in for Triton: counts launches, by its own path (`jit`) and of compiled kernels (`direct`)."""

    def __init__(self, monkeypatch, run=lambda kernel, arguments: None):
        self.jit, self.direct = [], []
        outer = self

        class Compiled:
            def __init__(self, kernel):
                self.kernel = kernel

            def __getitem__(self, grid):
                def launched(*arguments, stream=None):
                    outer.direct.append(self.kernel.fn.__name__)
                    run(self.kernel, arguments)

                return launched

        def launched(kernel, grid):
            def compile_and_launch(**arguments):
                outer.jit.append(kernel.fn.__name__)
                return Compiled(kernel)

            return compile_and_launch

        monkeypatch.setattr(JITFunction, "__getitem__", launched)
        monkeypatch.setattr(launch, "DEVICES", ("cpu",))
        monkeypatch.setattr(launch, "target_of", lambda device: config.TARGETS["sm_90"])
        monkeypatch.setattr(launch, "_compiled", {})
        monkeypatch.setattr(torch.cpu, "device", lambda device: contextlib.nullcontext(), raising=False)


class Operations(TorchDispatchMode):
    """Counts PyTorch's operations, except views, which enqueue nothing."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if not any(result.alias_info for result in function._schema.returns):
            self.counts[function.name()] += 1
        return function(*args, **(kwargs or {}))


def block_sparse(encoding):
    """Return encoded ratings with empty tiles."""
    ratings = torch.randint(0, 5, (200, 300), dtype=torch.uint8)
    mask = torch.zeros(200, 300, dtype=torch.bool)
    mask[:64, :64] = mask[128:, 256:] = True
    encoded = encode_ratings(ratings, mask, encoding, layout="dense")
    assert encoded.occupied is not None
    return encoded, None


def transposed(ratings, mask):
    return ratings.T.contiguous().T, mask.T.contiguous().T


whole = torch.ones(200, 300)
FORMS = {
    "float64 ratings, int32 mask": lambda: (whole.double(), whole.int()),
    "bool mask": lambda: (whole, whole.bool()),
    "weights": lambda: (whole, whole / 2),
    "NaN": lambda: (whole.bfloat16(), None),
    "codes": lambda: block_sparse("uint8-code"),
    "packed mask": lambda: block_sparse("uint8-bits"),
    "transposed": lambda: transposed(whole, whole.bool()),
}


def sparse(encoded):
    """Return 40 ratings of 7 users and 9 items, whose steps are quick to interpret."""
    ratings = torch.zeros(7, 9)
    ratings.view(-1)[::3] = torch.arange(21).remainder(5) + 1.0
    return (encode_ratings(ratings.to_sparse(), layout="sparse") if encoded else ratings.to_sparse_csr()), None


SPARSE_FORMS = {"sparse": lambda: sparse(False), "sparse codes": lambda: sparse(True)}


def problem_of(form="bool mask", rank=30, dtype=torch.float32, reg=0.1):
    observations = observations_of(*(FORMS | SPARSE_FORMS)[form]())
    m, n = observations.shape
    parameters = [torch.zeros(shape, dtype=dtype) for shape in ((m, rank), (n, rank), (m, 1), (n,), ())]
    return check_problem(tuple(parameters), observations, reg)


@pytest.mark.parametrize("rank", [30, 200])
def test_a_step_on_encoded_sparse_ratings_is_three_launches_and_a_loss_two(rank, monkeypatch):
    """Once they are checked and, for the deterministic mode, in the order of items."""
    launches = Launches(monkeypatch)
    problem = problem_of("sparse codes", rank)
    for deterministic, gradients in itertools.product((False, True), (True, False)):
        launch.step(problem, "ieee", deterministic, gradients)
        launches.direct.clear()
        with Operations() as operations:
            launch.step(problem, "ieee", deterministic, gradients)
        assert launches.direct == ["prepare", "sparse_step", *["finish"] * gradients]
        assert operations.counts == ALLOCATIONS[gradients]


@pytest.mark.parametrize("rank", [30, 64, 200], ids=["columns", "sums", "chunked"])
@pytest.mark.parametrize("form", FORMS)
def test_a_step_is_three_launches_and_a_loss_two(form, rank, monkeypatch):
    """In every precision and mode; compiled in the first call, launched directly in the second."""
    launches = Launches(monkeypatch)
    for precision, deterministic, gradients in itertools.product(PRECISIONS, (False, True), (True, False)):
        dtype = torch.float64 if precision == "float64" else torch.float32
        options = "ieee" if precision == "float64" else precision, deterministic, gradients
        problem = problem_of(form, rank, dtype)
        for called in (launches.jit, launches.direct):
            called.clear()
            with Operations() as operations:
                launch.step(problem, *options)
            prepare, step, *finish = called
            assert (prepare, *finish) == ("prepare", *["finish"] * gradients)
            assert step == "chunked_step" or (step == "fused_step" and rank < 200)
            assert operations.counts == ALLOCATIONS[gradients]


def test_sparse_ratings_are_taken_up_to_the_largest_rank(monkeypatch):
    Launches(monkeypatch)
    assert launch.unavailable(problem_of("sparse")) == ""
    assert launch.unavailable(problem_of("sparse"), "tf32", deterministic=True) == ""
    reason = launch.unavailable(problem_of("sparse", rank=1100))
    assert reason == "not shipped for sm_90: rank 1100: the largest is 1024"


@pytest.mark.interpret
@pytest.mark.parametrize("gradients", [True, False], ids=["step", "loss"])
@pytest.mark.parametrize(
    ("form", "deterministic"),
    [
        *((form, False) for form in ("weights", "codes", "packed mask", "transposed", "sparse codes")),
        ("sparse codes", True),
    ],
)
@pytest.mark.usefixtures("poisoned")
def test_compiled_kernels_get_the_addresses_of_the_bound_tensors(form, deterministic, gradients, monkeypatch):
    """The same memory serves both ways of filling in a plan; what the addresses belong to is then interpreted."""
    bound = iter(())

    def run(kernel, arguments):
        call = next(bound)
        named = dict(zip(kernel.arg_names, arguments, strict=True))
        for name, value in call.arguments.items():
            assert named[name] == (value.data_ptr() if torch.is_tensor(value) else value), name
        interpret.run(call)

    Launches(monkeypatch, run)
    problem = problem_of(form)
    launch.step(problem, "ieee", deterministic, gradients)
    [step] = launch._compiled.values()
    memory = calls.allocate(step.plan, problem, gradients)
    for module in (calls, compiled):
        monkeypatch.setattr(module, "allocate", lambda *_: memory)
    generator = torch.Generator().manual_seed(0)
    for parameter in problem.parameters:
        parameter.normal_(generator=generator)
    for reg in (0.1, 3):
        changed = problem._replace(reg=reg)
        bound = iter(calls.bind(step.plan, changed, gradients).calls)
        loss, grads = launch.step(changed, "ieee", deterministic, gradients)
        assert len(launch._compiled) == 1
        expected_loss, expected = tiled.step(changed, "ieee", deterministic, gradients)
        torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=0)
        for grad, other in zip(grads or (), expected or (), strict=True):
            torch.testing.assert_close(grad, other, rtol=1e-4, atol=1e-3)


def shifted(tensor, elements):
    """Return a copy that starts some elements after an aligned address."""
    memory = tensor.new_zeros(tensor.numel() + elements)
    return memory[elements:].view(tensor.shape).copy_(tensor)


def test_what_compiled_kernels_depend_on_is_told_apart(monkeypatch):
    """One plan for equal layouts; another for every difference in shape, stride, dtype, alignment or option."""
    Launches(monkeypatch)
    base = problem_of()
    P, Q, *biases = base.parameters
    ratings, mask, *_ = base.observations
    changes = {
        "equal": base,
        "alignment of a parameter": base._replace(parameters=(shifted(P, 1), Q, *biases)),
        "alignment of the mask": base._replace(observations=Observations(ratings, shifted(mask, 1))),
        "strides of a parameter": base._replace(parameters=(P.T.contiguous().T, Q, *biases)),
        "dtype of the ratings": base._replace(observations=Observations(ratings.half(), mask)),
        "dtype of the mask": base._replace(observations=Observations(ratings, mask.int())),
        "no mask": base._replace(observations=Observations(ratings)),
        "rank": problem_of(rank=31),
    }
    if not is_old():  # which ships no float64 for sm_90
        changes["dtype"] = problem_of(dtype=torch.float64)
    launch.step(problem_of(), "ieee", False, True)
    for name, problem in changes.items():
        before = len(launch._compiled)
        launch.step(problem, "ieee", False, True)
        assert len(launch._compiled) - before == (name != "equal"), name
    for options in (("tf32", False, True), ("ieee", True, True), ("ieee", False, False)):
        before = len(launch._compiled)
        launch.step(base, *options)
        assert len(launch._compiled) == before + 1, options


def test_compiled_steps_are_bounded(monkeypatch):
    launches = Launches(monkeypatch)
    monkeypatch.setattr(launch, "KEPT", 3)
    problems: list[Problem] = [checked(draw_inputs(40, 50, rank)) for rank in range(1, 6)]
    for problem in problems:
        launch.step(problem, "ieee", False, True)
    assert len(launch._compiled) == 3
    launches.jit.clear()
    launch.step(problems[-1], "ieee", False, True)
    assert not launches.jit
    launch.step(problems[0], "ieee", False, True)  # the oldest was dropped
    assert launches.jit


def test_without_a_compiled_kernel_triton_launches(monkeypatch):
    """Triton returns none where a hook compiles for it, say."""
    launches = Launches(monkeypatch)
    kernels = []
    monkeypatch.setattr(JITFunction, "__getitem__", lambda kernel, grid: lambda **_: kernels.append(kernel))
    for _ in range(2):
        launch.step(problem_of(), "ieee", False, True)
    assert len(kernels) == 6
    assert not launches.direct
