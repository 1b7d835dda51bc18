"""Packages that only some kinds of rating files need, imported on first use."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from mfbench.errors import DataUnavailable


def arrow(purpose: str) -> Any:
    """Return pyarrow with its modules `csv` and `compute`.

    Raises:
        DataUnavailable: it is not installed.
    """
    if find_spec("pyarrow") is None:
        raise DataUnavailable(f"{purpose}: needs the package pyarrow; pip install 'mfbench[data]'")
    import pyarrow
    import pyarrow.compute
    import pyarrow.csv

    return pyarrow
