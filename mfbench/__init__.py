"""Check whether a kernel for biased, masked matrix factorization is correct, and measure whether it is faster."""

import warnings
from typing import TYPE_CHECKING, Any

from mfbench.installation import VERSION as __version__
from mfbench.installation import foreign_packages

for _message in foreign_packages():
    warnings.warn(_message, ImportWarning, stacklevel=2)

if TYPE_CHECKING:
    from mfbench.api import Compared, Results, compare, load, run
    from mfbench.problems.ratings import load_ratings

__all__ = ["Compared", "Results", "__version__", "compare", "foreign_packages", "load", "load_ratings", "run"]


def __getattr__(name: str) -> Any:
    """Import the Python interface on first use, as it needs PyTorch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "load_ratings":
        from mfbench.problems.ratings import load_ratings

        return load_ratings
    from mfbench import api

    return getattr(api, name)
