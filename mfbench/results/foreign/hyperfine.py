"""hyperfine: the files of `--export-json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from mfbench.results.comparison import Quartiles
from mfbench.results.foreign.results import Part, ToolResults, entries_of, normal_quartiles

NAME = "hyperfine"


class _Result(Part):
    command: str
    mean: float
    stddev: float | None = None
    times: list[float] | None = None
    exit_codes: Sequence[int | None] = ()  # None: ended by a signal
    parameters: dict[str, str] = Field({})


def recognises(document: dict[str, Any]) -> bool:
    """Return whether hyperfine wrote this document."""
    return any(isinstance(entry, dict) and "command" in entry for entry in entries_of(document, "results"))


def read(path: Path, document: dict[str, Any]) -> ToolResults:
    """Read the commands of a document. A command of which a run failed (`--ignore-failure`) counts as an error."""
    results = ToolResults(path, NAME)
    found = list(results.valid(_Result, entries_of(document, "results"), "results"))
    repeated = {command for command, count in Counter(result.command for result in found).items() if count > 1}
    for result in found:
        name = result.command
        if name in repeated and result.parameters:
            name += f" ({', '.join(f'{key}={value}' for key, value in result.parameters.items())})"
        failed = [code for code in result.exit_codes if code != 0]
        if failed:
            what = "ended by a signal" if failed[0] is None else f"exit code {failed[0]}"
            results.add_failure(NAME, name, "error", f"{what} in {len(failed)} of {len(result.exit_codes)} runs")
        else:
            results.add(NAME, name, _samples(result))
    return results


def _samples(result: _Result) -> list[float] | Quartiles:
    return result.times or normal_quartiles(result.mean, result.stddev or 0.0, len(result.exit_codes))
