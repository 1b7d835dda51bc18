"""Code under `torch.compile` that ran in eager mode is noticed, whatever the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch._dynamo

from mfbench.providers import compilation, registry
from tests.problems import draw_inputs


@pytest.fixture(autouse=True)
def _nothing_compiled() -> Iterator[None]:
    compilation.forget()
    yield
    compilation.forget()


def refuses(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., torch.Tensor]:
    raise ValueError("no such instruction")


def run(function: Callable[..., torch.Tensor], sizes: tuple[int, ...] = (2,), backend: object = "eager") -> None:
    compiled = torch.compile(function, backend=backend, dynamic=False)
    for size in sizes:
        assert torch.equal(compiled(torch.ones(size)), function(torch.ones(size)))


def doubled(values: torch.Tensor) -> torch.Tensor:
    return values * 2


def with_a_break(values: torch.Tensor) -> torch.Tensor:
    total = values.sum().item()
    return values * total


def with_a_break_in_a_loop(values: torch.Tensor) -> torch.Tensor:
    for _ in range(2):
        torch._dynamo.graph_break()
        values = values * 2
    return values


@pytest.mark.parametrize("function", [doubled, with_a_break])
def test_what_was_compiled_is_no_finding_even_in_parts(function) -> None:
    run(function, (2, 3, 4))
    assert compilation.ran_eagerly() == ""


def test_more_shapes_than_the_compiler_keeps_are_a_finding() -> None:
    with torch._dynamo.config.patch(recompile_limit=2):
        run(doubled, (2, 3))
        assert compilation.ran_eagerly() == ""
        run(doubled, (2, 3, 4))
    assert compilation.ran_eagerly() == "torch.compile gave up on 1 function, and ran that in eager mode"
    compilation.forget()
    assert compilation.ran_eagerly() == ""


def test_suppressed_errors_are_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHDYNAMO_SUPPRESS_ERRORS", "1")
    with torch._dynamo.config.patch(suppress_errors=True):
        run(doubled, backend=refuses)
    assert compilation.ran_eagerly().startswith("torch.compile gave up on 1 function (TORCHDYNAMO_SUPPRESS_ERRORS=1),")


def test_a_loop_that_cannot_be_compiled_is_a_finding() -> None:
    run(with_a_break_in_a_loop)
    assert compilation.ran_eagerly().startswith("torch.compile gave up on 1 function,")


@pytest.mark.parametrize("variable", ["TORCHDYNAMO_DISABLE", "TORCH_COMPILE_DISABLE", ""])
def test_a_compiler_that_is_switched_off_is_a_finding(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    if variable:
        monkeypatch.setenv(variable, "1")
    with torch._dynamo.config.patch(disable=variable != "TORCHDYNAMO_DISABLE"):
        run(doubled)
        found = compilation.ran_eagerly()
    cause = f" ({variable}=1)" if variable else ""
    assert found == f"torch.compile is switched off{cause}, and runs in eager mode what it should compile"


@pytest.mark.parametrize("name", ["compile", "compile-closed-form"])
@pytest.mark.parametrize("stance", ["eager_on_recompile", "limit"])
def test_a_builtin_that_falls_back_later_fails(name: str, stance: str) -> None:
    provider = registry.load(name)
    with torch.compiler.set_stance(force_backend="eager"):
        provider.prepare(draw_inputs(9, 7, 3))()
    options = {"force_backend": "eager"} if stance == "limit" else {"stance": stance}
    with torch.compiler.set_stance(**options), torch._dynamo.config.patch(recompile_limit=1):
        provider.prepare(draw_inputs(9, 7, 3))()
        step = provider.prepare(draw_inputs(9, 8, 3))
        with pytest.raises(RuntimeError, match="did not compile, and ran the function in eager mode"):
            step()
