"""The version, the place of installation, and packages of other projects under the generic names of ours."""

import importlib.util
from pathlib import Path

VERSION = "0.1.0"
ROOT = Path(__file__).resolve().parent.parent
MEASURED = ("kernels", "reference")  # packages that --against takes from the other revision; the harness stays


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
