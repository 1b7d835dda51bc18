"""A pytest plugin: the fixture `mf_case` checks a kernel by the correctness gate.

    def test_my_kernel(mf_case):
        mf_case.check(my_kernel)

Nothing but pytest is imported until a test asks for the fixture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mfbench.testing.fixture import GatedCase


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        "mf_case(size, rank, density, layout, ratings_dtype, mask, data, seed, device): the cases of the fixture, "
        "each argument except the device a value or a list; without the marker, small problems around tile sizes",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that uses `mf_case` on every case of its marker."""
    if "mf_case" not in metafunc.fixturenames:
        return
    from mfbench.errors import UsageError
    from mfbench.testing.fixture import cases

    marker = metafunc.definition.get_closest_marker("mf_case")
    try:
        if marker and marker.args:
            raise UsageError(
                f"expected names, such as size='200x300', got {marker.args[0]!r} without one", code="no-such-axis"
            )
        found = cases(dict(marker.kwargs) if marker else {})
    except UsageError as error:  # reported in one line, without pytest's own frames
        message = f"{metafunc.definition.nodeid}: mf_case: {error} [{error.code}]"
        raise pytest.Collector.CollectError(message) from None
    metafunc.parametrize("mf_case", found, indirect=True, ids=[_test_id(case) for case in found])


def _test_id(case: GatedCase) -> str:
    return case.spec.label.replace("×", "x").replace(" rank ", "-rank")


@pytest.fixture
def mf_case(request: pytest.FixtureRequest) -> GatedCase:
    """A problem with its exact answer; `mf_case.check(function)` fails if the function is wrong."""
    case: GatedCase = request.param
    if case.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            pytest.skip("PyTorch sees no GPU here")
    return case
