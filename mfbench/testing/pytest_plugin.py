"""A pytest plugin: the fixture `mf_case` holds a kernel of your own against the correctness gate.

    def test_my_kernel(mf_case):
        mf_case.check(my_kernel)

Nothing beyond pytest is imported until a test asks for the fixture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mfbench.testing.fixture import GatedCase


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "mf_case(size, rank, density, ratings_dtype, mask, data, seed, device): what the fixture mf_case draws, each "
        "but the device a value or a list of values; without it, a few small problems at the edges of tiles",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that uses `mf_case` runs once on every case of its marker."""
    if "mf_case" not in metafunc.fixturenames:
        return
    from mfbench.errors import UsageError
    from mfbench.testing.fixture import cases

    marker = metafunc.definition.get_closest_marker("mf_case")
    try:
        if marker and marker.args:
            raise UsageError(f"mf_case: expected names, such as size='200x300', got {marker.args[0]!r} without one")
        drawn = cases(dict(marker.kwargs) if marker else {})
    except UsageError as error:  # a line, where pytest would show its own frames
        raise pytest.Collector.CollectError(f"{metafunc.definition.nodeid}: {error}") from None
    metafunc.parametrize(
        "mf_case", drawn, indirect=True, ids=[f"{c.case.m}x{c.case.n}-rank{c.case.rank}" for c in drawn]
    )


@pytest.fixture
def mf_case(request: pytest.FixtureRequest) -> GatedCase:
    """A problem with its exact answer: `mf_case.check(function)` fails with what is wrong with the function."""
    if request.param.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            pytest.skip("PyTorch sees no GPU here")
    return request.param
