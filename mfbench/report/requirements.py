"""What a report needs before it can be made: the extra `report`, and a file name whose format is known."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from mfbench.errors import UsageError

NEEDED = ("jinja2", "matplotlib")
FORMATS = {".html": "html", ".htm": "html", ".md": "md", ".markdown": "md", ".csv": "csv", "": "html"}


def require() -> None:
    """Check that the extra `report` is installed.

    Raises:
        UsageError: it is not; the message names the missing packages.
    """
    missing = [package for package in NEEDED if find_spec(package) is None]
    if missing:
        message = f"reports need {' and '.join(missing)}: pip install 'mfbench[report]'"
        raise UsageError(message, code="missing-package")


def format_of(path: Path, argument: str = "path") -> str:
    """Return the format of a report by the ending of its name.

    Args:
        path: of the report.
        argument: that the path was given by, for the error.

    Raises:
        UsageError: the ending is no format's.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        message = f"expected a name that ends in .html, .md or .csv, or a format, got {path}"
        raise UsageError(message, code="bad-format", argument=argument)
    return FORMATS[suffix]
