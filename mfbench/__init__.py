"""The harness: says whether a kernel of biased, masked matrix factorization is right, and whether it is faster."""

import importlib.util
import warnings
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent


def foreign_packages() -> list[str]:
    """What is wrong where another project's package of the same generic name stands in front of one of ours."""
    wrong = []
    for name in ("kernels", "reference"):
        spec = importlib.util.find_spec(name)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin != _ROOT / name / "__init__.py":
            wrong.append(
                f"the package {name!r} that Python finds ({origin}) is not mfbench's, which lies in {_ROOT / name}: "
                "install mfbench into an environment of its own"
            )
    return wrong


for _message in foreign_packages():
    warnings.warn(_message, ImportWarning, stacklevel=2)
