"""The harness: says whether a kernel of biased, masked matrix factorization is right, and whether it is faster."""

import importlib.util
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

MEASURED = ("kernels", "reference")  # of whatever revision; the harness is this one's always
_ROOT = Path(__file__).resolve().parent.parent


def foreign_packages() -> list[str]:
    """What is wrong where another project's package of the same generic name stands in front of one of ours."""
    wrong = []
    for name in MEASURED:
        spec = importlib.util.find_spec(name)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin != _ROOT / name / "__init__.py":
            wrong.append(
                f"the package {name!r} that Python finds ({origin}) is not mfbench's, which lies in {_ROOT / name}: "
                "install mfbench into an environment of its own"
            )
    return wrong


def installed_from(folder: Path) -> bool:
    """Whether a checkout in that folder, if there is one, is the one that runs."""
    return folder.resolve() == _ROOT or not (folder / "mfbench" / "cli.py").is_file()


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
