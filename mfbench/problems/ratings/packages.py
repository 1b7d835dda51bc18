"""Packages that only some kinds of rating files need, imported on first use."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

from mfbench.errors import DataUnavailable


@cache
def _arrow_is_here() -> bool:
    return find_spec("pyarrow") is not None


def arrow(purpose: str) -> Any:
    """Return pyarrow with its modules `csv` and `compute`.

    Raises:
        DataUnavailable: it is not installed.
    """
    if not _arrow_is_here():
        message = f"{purpose}: the package pyarrow is needed; pip install 'mfbench[data]'"
        raise DataUnavailable(message, code="missing-package")
    import pyarrow
    import pyarrow.compute
    import pyarrow.csv

    return pyarrow
