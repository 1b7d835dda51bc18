"""Backends by name."""

import pytest

from kernels.backends import implementation


def test_the_nearest_backend_is_suggested() -> None:
    with pytest.raises(ValueError, match="did you mean 'native'"):
        implementation("nativ")
