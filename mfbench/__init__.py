"""The harness: says whether a kernel of biased, masked matrix factorization is right, and whether it is faster."""

import warnings
from typing import TYPE_CHECKING, Any

from mfbench.installation import foreign_packages

for _message in foreign_packages():
    warnings.warn(_message, ImportWarning, stacklevel=2)

if TYPE_CHECKING:
    from mfbench.api import Compared, Results, compare, load, run

__all__ = ["Compared", "Results", "compare", "foreign_packages", "load", "run"]


def __getattr__(name: str) -> Any:
    """The Python interface, imported on first use: PyTorch stands behind it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mfbench import api

    return getattr(api, name)
