"""The version, the place of installation, and packages of other projects under the generic names of ours."""

import importlib.util
import sys
from pathlib import Path

VERSION = "0.1.0"
ROOT = Path(__file__).resolve().parent.parent
MEASURED = ("kernels", "reference")  # packages that --against takes from the other revision; the harness stays

REQUIRED = (
    "torch",
    "triton",
    "numpy",
    "scipy",
    "click",
    "rich",
    "pydantic",
    "psutil",
    "tomli",
)  # as pyproject has them


def missing_packages() -> list[str]:
    """Return which of the required packages are not installed; Triton and tomli are not required everywhere."""
    everywhere = {"triton": sys.platform != "linux", "tomli": sys.version_info >= (3, 11)}
    return [name for name in REQUIRED if not everywhere.get(name) and importlib.util.find_spec(name) is None]


def foreign_packages() -> list[str]:
    """Describe each package of another project that shadows one of ours."""
    wrong = []
    for name in MEASURED:
        spec = importlib.util.find_spec(name)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin != ROOT / name / "__init__.py":
            wrong.append(
                f"the package {name!r} that Python finds ({origin}) is not mfbench's, which is in {ROOT / name}: "
                "rename it if it is yours, else install mfbench into a separate environment"
            )
    return wrong


def installed_from(folder: Path) -> bool:
    """Return whether the folder holds no checkout, or the one that is running."""
    return folder.resolve() == ROOT or not (folder / "mfbench" / "cli.py").is_file()
