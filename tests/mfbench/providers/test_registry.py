"""Providers by name, by entry point and from a user's file, and what is said of those that do not exist."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from mfbench.errors import UsageError
from mfbench.problems.inputs import Inputs
from mfbench.problems.matrices import to_sparse
from mfbench.providers import registry
from reference import oracle_loss_and_grads
from tests.problems import assert_right, draw_inputs

COMPILED = ("compile", "compile-closed-form")  # they take a C++ compiler and half a minute
REDUCED = ("fused-tf32", "fused-bf16x3", "fused-tf32x3")  # the gate's tests have their bounds
EXACT = [name for name in registry.BUILTIN if name not in (*COMPILED, *REDUCED, *registry.GRAPHS)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "helper.py").write_text("from reference import autograd_loss_and_grads as step\n")
    path = tmp_path / "mine.py"
    path.write_text("from helper import step\nvalue = 3\n")
    return path


def assert_exact(step: registry.Step, inputs: Inputs) -> None:
    loss, grads = step()
    exact_loss, exact = oracle_loss_and_grads(*inputs)
    assert float(loss) == pytest.approx(float(exact_loss), rel=1e-5)
    for grad, values, parameter in zip(grads, exact, inputs[:5], strict=True):
        assert grad.shape == parameter.shape
        torch.testing.assert_close(grad.double(), torch.as_tensor(values), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("mask_dtype", [torch.uint8, None, torch.float32])
@pytest.mark.parametrize("name", EXACT)
def test_builtin_providers_compute_the_step_of_the_present_inputs(name: str, mask_dtype) -> None:
    inputs = draw_inputs(21, 34, 5, mask_dtype=mask_dtype)
    if name in ("fused-encoded", "fused-sparse", "gather") and inputs.weighted:
        with pytest.raises(ValueError, match="ratings cannot carry weights"):
            registry.load(name).prepare(inputs)
        return
    step = registry.load(name).prepare(inputs)
    assert_exact(step, inputs)
    inputs.user_factors.mul_(0.5)  # in place, as between two samples
    assert_exact(step, inputs)


@pytest.mark.slow
@pytest.mark.parametrize("mask_dtype", [torch.uint8, None])
@pytest.mark.parametrize("name", COMPILED)
def test_compiled_providers_compute_the_step_of_the_present_inputs(name: str, mask_dtype) -> None:
    inputs = draw_inputs(21, 34, 5, mask_dtype=mask_dtype)
    step = registry.load(name).prepare(inputs)
    assert_exact(step, inputs)
    inputs.user_factors.mul_(0.5)
    assert_exact(step, inputs)


EAGER = """
import torch
from mfbench.providers import registry
from tests.problems import draw_inputs
{setting}
step = registry.load("{name}").prepare(draw_inputs(9, 7, 3))
try:
    step()
except RuntimeError as error:
    print(error)
"""


@pytest.mark.parametrize("name", COMPILED)
def test_a_forced_eager_stance_is_no_compilation(name: str) -> None:
    step = registry.load(name).prepare(draw_inputs(9, 7, 3))
    with (
        torch.compiler.set_stance("force_eager"),
        pytest.raises(RuntimeError, match="did not compile, and ran the function in eager mode"),
    ):
        step()


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPILED)
@pytest.mark.parametrize(
    ("environment", "setting"),
    [
        ("TORCHDYNAMO_DISABLE", ""),
        ("TORCH_COMPILE_DISABLE", ""),
        ("", "torch._dynamo.config.disable = True"),
        ("TORCHDYNAMO_SUPPRESS_ERRORS", "import torch._inductor.compile_fx as broken; broken.compile_fx = None"),
    ],
)
def test_eager_mode_is_not_measured_as_compiled(name: str, environment: str, setting: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", EAGER.format(name=name, setting=setting)],
        env=os.environ | ({environment: "1"} if environment else {}), capture_output=True, text=True, check=True,
    )  # fmt: skip
    cause = f" ({environment}=1)" if environment else ""
    assert run.stdout == f"torch.compile did not compile, and ran the function in eager mode{cause}\n"


def test_a_users_function_is_loaded_with_the_files_beside_it(file: Path) -> None:
    registry.check(f"{file}:step")
    provider = registry.load(f"{file}:step")
    assert provider.name == f"{file}:step"
    inputs = draw_inputs(9, 7, 3)
    assert_exact(provider.prepare(inputs), inputs)


def test_an_installed_provider_is_found(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("theirs", "reference:autograd_loss_and_grads", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group, name="theirs": [entry] * (name == "theirs"))
    assert registry.names()["theirs"] == "from reference:autograd_loss_and_grads"
    inputs = draw_inputs(9, 7, 3)
    assert_exact(registry.load("theirs").prepare(inputs), inputs)


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("fusde", "no-such-provider", "did you mean 'fused'"),
        ("{folder}/none.py:step", "no-such-provider", "no file "),
        ("{folder}/mine.py", "no-such-function", "expected a function of "),
        ("{folder}/mine.py:stp", "no-such-function", "did you mean 'step'"),
        ("{folder}/mine.py:value", "no-such-function", "has no function 'value'"),
        ("{folder}/broken.py:step", "provider-load-failed", "ZeroDivisionError"),
    ],
)
def test_what_cannot_be_loaded_is_named(file: Path, name: str, code: str, message: str) -> None:
    (file.parent / "broken.py").write_text("1 / 0\n")
    with pytest.raises(UsageError, match=message) as raised:
        registry.load(name.format(folder=file.parent))
    assert (raised.value.code, raised.value.argument) == (code, "provider")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package whose modules import each other, in the current folder."""
    for folder in ("theirs_pkg", "theirs_pkg/steps"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "theirs_pkg" / "base.py").write_text("from reference import autograd_loss_and_grads\n")
    (tmp_path / "theirs_pkg" / "steps" / "mine.py").write_text("from ..base import autograd_loss_and_grads as step\n")
    (tmp_path / "theirs_pkg" / "beside.py").write_text("from .base import autograd_loss_and_grads as step\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "theirs_pkg"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    "name",
    [
        "theirs_pkg.beside:step",
        "theirs_pkg.steps.mine:step",
        "theirs_pkg/steps/mine.py:step",
        "{folder}/theirs_pkg/beside.py:step",
        "reference:autograd_loss_and_grads",
    ],
)
def test_a_function_in_a_package_is_loaded_with_relative_imports(package: Path, name: str) -> None:
    name = name.format(folder=package)
    registry.check(name)
    inputs = draw_inputs(9, 7, 3)
    assert_exact(registry.load(name).prepare(inputs), inputs)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("no_such_package.module:step", "no-such-provider"),
        ("theirs_pkg.none:step", "provider-load-failed"),
        ("theirs_pkg.beside:stp", "no-such-function"),
    ],
)
def test_a_module_that_cannot_be_loaded_is_named(package: Path, name: str, code: str) -> None:
    with pytest.raises(UsageError) as raised:
        registry.load(name)
    assert (raised.value.code, raised.value.argument) == (code, "provider")


SELF_AWARE = {
    "dataclass": """
import dataclasses
@dataclasses.dataclass
class Options:
    reg: float
    other: "dataclasses.InitVar[int]" = 0
""",
    "pickle": """
import copy, pickle
class Options:
    pass
assert type(pickle.loads(pickle.dumps(Options()))) is Options
""",
    "type hints": """
import typing
class Options(typing.NamedTuple):
    reg: float
assert typing.get_type_hints(Options) == {"reg": float}
import sys
assert sys.modules[__name__].Options is Options
""",
}


@pytest.mark.parametrize("stem", ["a_file_of_theirs", "copy", "my-kernel"])  # the second is a module's name
@pytest.mark.parametrize("kind", SELF_AWARE)
def test_a_file_may_look_itself_up(tmp_path: Path, monkeypatch, kind: str, stem: str) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    path, before = tmp_path / f"{stem}.py", set(sys.modules)
    imports = "from __future__ import annotations\nfrom reference import autograd_loss_and_grads as step\n"
    path.write_text(imports + SELF_AWARE[kind])
    inputs = draw_inputs(9, 7, 3)
    assert_exact(registry.load(f"{path}:step").prepare(inputs), inputs)
    assert sys.modules["copy"].__file__ != str(path)
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize("ours", ["kernels", "reference", "mfbench"])
def test_a_users_package_with_a_name_of_ours_is_named(tmp_path: Path, monkeypatch, ours: str) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / ours).mkdir()
    (tmp_path / ours / "__init__.py").touch()
    (tmp_path / ours / "mine.py").write_text("def step(*arguments): ...\n")
    (tmp_path / "beside.py").write_text(f"from {ours}.mine import step\n")
    for name in (f"{ours}/mine.py:step", f"{ours}.mine:step", "beside.py:step"):
        with pytest.raises(UsageError, match=rf"your '{ours}' in .* which is imported instead; rename it"):
            registry.load(name)


@pytest.mark.parametrize("name", EXACT)
def test_builtin_providers_compute_the_step_of_sparse_inputs(name: str) -> None:
    dense = draw_inputs(21, 34, 5, mask_dtype=torch.uint8, density=0.2)
    inputs = dense._replace(ratings=to_sparse(dense.ratings, dense.mask), mask=None)
    step = registry.load(name).prepare(inputs)
    assert_exact(step, inputs)
    inputs.user_factors.mul_(0.5)
    assert_exact(step, inputs)


@pytest.mark.parametrize("takes_sparse", [True, False])
def test_a_users_function_is_given_sparse_ratings_where_it_says_that_it_takes_them(
    tmp_path: Path, takes_sparse: bool
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from reference import autograd_loss_and_grads\n\n"
        "def step(*arguments):\n"
        f"    assert (arguments[5].layout.__repr__() == 'torch.sparse_csr') == {takes_sparse}\n"
        f"    assert (arguments[6] is None) == {takes_sparse}\n"
        "    return autograd_loss_and_grads(*arguments)\n\n" + f"step.takes_sparse = {takes_sparse}\n"
    )
    dense = draw_inputs(21, 34, 5, mask_dtype=torch.uint8, density=0.2)
    inputs = dense._replace(ratings=to_sparse(dense.ratings, dense.mask), mask=None)
    assert_exact(registry.load(f"{path}:step").prepare(inputs), inputs)


def test_gather_refuses_weights_alone() -> None:
    inputs = draw_inputs(21, 34, 5, mask_dtype=torch.float32)
    gather = registry.load("gather")
    with pytest.raises(ValueError, match="cannot carry weights"):
        gather.prepare(inputs)
    binary = inputs._replace(mask=(inputs.mask != 0).float())
    assert_exact(gather.prepare(binary), binary)


MASKS = [None, torch.bool, torch.uint8, torch.int8, torch.int32, torch.int64, torch.float16, torch.float32,
         torch.float64]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "columns"), [("autograd", True), ("closed-form", True), ("closed-form", False), ("tiled", False)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mask_dtype", MASKS)
def test_rivals_compute_the_step_in_every_form(name: str, columns: bool, mask_dtype, dtype: torch.dtype) -> None:
    """Weights of either sign, masks of other values than 0 and 1, NaN; within the gate's bounds, of the right dtype."""
    for ratings_dtype in (dtype, torch.int8 if mask_dtype else torch.float16):
        inputs = draw_inputs(21, 34, 5, dtype, ratings_dtype, mask_dtype, columns=columns)
        loss, grads = registry.load(name).prepare(inputs)()
        assert_right(inputs, (loss.double(), [grad.detach() for grad in grads]))


@pytest.mark.parametrize("size", [(0, 4, 3), (4, 0, 3), (4, 5, 0), (1, 1, 1)])
@pytest.mark.parametrize("mask_dtype", [None, torch.uint8, torch.float32])
def test_the_closed_form_of_empty_problems(size: tuple[int, int, int], mask_dtype) -> None:
    inputs = draw_inputs(*size, mask_dtype=mask_dtype)
    assert_right(inputs, registry.load("closed-form").prepare(inputs)())


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_the_closed_form_keeps_weights_that_are_not_finite(weight: float) -> None:
    inputs = draw_inputs(21, 34, 5, mask_dtype=torch.float32)
    inputs.mask[3, 4], inputs.ratings[3, 4] = weight, 1.0
    loss, grads = registry.load("closed-form").prepare(inputs)()
    assert not loss.isfinite()
    assert (~grads[0].isfinite()).any(1).nonzero().flatten().tolist() == [3]
    assert (~grads[1].isfinite()).any(1).nonzero().flatten().tolist() == [4]


@pytest.mark.parametrize("mask_dtype", [torch.float32, torch.bool])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", COMPILED)
def test_what_compiled_providers_compile_is_the_step(name: str, dtype: torch.dtype, mask_dtype) -> None:
    """The graphs run in eager mode, which takes seconds instead of half a minute."""
    inputs = draw_inputs(21, 34, 5, dtype, mask_dtype=mask_dtype)
    with torch.compiler.set_stance(force_backend="eager"):
        loss, grads = registry.load(name).prepare(inputs)()
    assert_right(inputs, (loss.double(), [grad.detach() for grad in grads]))
