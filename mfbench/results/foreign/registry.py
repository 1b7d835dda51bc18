"""Which tool wrote a file, by the fields that it has."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from mfbench.results.foreign import asv, google_benchmark, hyperfine, nvbench, pyperf, pytest_benchmark
from mfbench.results.foreign.results import ToolResults

GZIP = b"\x1f\x8b"
Document = dict[str, Any]


class Tool(NamedTuple):
    """A benchmark tool whose results can be read."""

    name: str
    recognises: Callable[[Document], bool]
    read: Callable[[Path, Document], ToolResults]


TOOLS = tuple(
    Tool(reader.NAME, reader.recognises, reader.read)
    for reader in (pytest_benchmark, pyperf, google_benchmark, hyperfine, asv, nvbench)
)


def parse(path: Path, content: bytes) -> ToolResults | None:
    """Return the results in a file's content, which may be compressed with gzip; None if no tool here wrote it."""
    document = json_object(content)
    tool = document and next((tool for tool in TOOLS if tool.recognises(document)), None)
    return tool.read(path, document) if tool and document else None


def json_object(content: bytes) -> Document | None:
    """Return the one JSON object in a file's content; None if it holds something else."""
    try:
        found = json.loads(gzip.decompress(content) if content.startswith(GZIP) else content)
    except (ValueError, RecursionError, OSError, EOFError):
        return None
    return found if isinstance(found, dict) else None
