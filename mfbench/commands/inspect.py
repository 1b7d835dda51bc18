"""`mfbench inspect`: what the kernel compiles to for every target, without a GPU."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import click
from pydantic import ValidationError
from rich.console import Console, RenderableType
from rich.progress import Progress
from rich.text import Text

from kernels.gpu.config import TARGETS
from mfbench.errors import UsageError
from mfbench.inspect import difference
from mfbench.inspect.builds import ENCODINGS, MODES, PRECISIONS, RANKS, distinct, examine_all, specs
from mfbench.inspect.devices import DEVICE_RATES
from mfbench.inspect.document import Build, Inspection, Resources, Spec
from mfbench.inspect.sparse import SPARSE_ENCODINGS, bound
from mfbench.report.terminal import Block, Fitted, Output

ENCODING_NAMES = (*ENCODINGS, *SPARSE_ENCODINGS)
NAMES = {"target": tuple(TARGETS), "precision": PRECISIONS, "encoding": ENCODING_NAMES, "mode": MODES}
DEFAULTS = {**NAMES, "encoding": ("float32+uint8",), "mode": ("fast",)}
DEFAULT_SPARSE = {"precision": ("ieee",), "encoding": ("sparse-code",), "mode": MODES}
LARGEST_RANK = 1 << 20
DEFAULT_RANKS = (30,)


def command(chosen: dict[str, list[str] | None], everything: bool, jobs: int | None, other: Path | None,
            as_json: bool) -> int:  # fmt: skip
    """Compile and print; return 1 if a shipped build is not clean.

    Raises:
        UsageError: an option has an unknown name, or the file to compare with cannot be read.
    """
    base = None if other is None else _read(other)
    inspection = inspect(chosen_specs(chosen, everything), jobs)
    if as_json:
        click.echo(inspection.model_dump_json(by_alias=True))
    else:
        changes = [] if base is None else [Text(line) for line in difference.differences(base, inspection)]
        Output().print(*_parts(inspection), *changes, sep="\n")
    return int(bool(inspection.failed))


def inspect(wanted: Sequence[Spec], jobs: int | None = None) -> Inspection:
    """Compile and examine, with a progress bar on stderr.

    Args:
        wanted: the configurations.
        jobs: processes to compile in; None: one per usable CPU.

    Raises:
        UsageError: triton cannot be imported.
    """
    try:
        import triton
    except ImportError as error:
        message = f"inspect needs triton, which cannot be imported ({error})"
        raise UsageError(message, code="missing-package") from error
    jobs = min(jobs or len(os.sched_getaffinity(0)), max(1, len(wanted)))
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("compiling", total=len(wanted))
        found = list(examine_all(list(wanted), jobs, lambda: progress.advance(bar)))
    return Inspection(
        triton=triton.__version__,
        builds=[build for build in found if isinstance(build, Build)],
        not_built=[build for build in found if not isinstance(build, Build)],
    )


def chosen_specs(chosen: dict[str, list[str] | None], everything: bool) -> list[Spec]:
    """Return the configurations that the options name.

    Args:
        chosen: names by option; None for those not given.
        everything: all names instead of the default ones for options not given.

    Raises:
        UsageError: an unknown name.
    """
    axes: dict[str, Sequence[str]] = {}
    for axis, known in NAMES.items():
        axes[axis] = chosen[axis] or (known if everything else DEFAULTS[axis])
        for name in axes[axis]:
            if name not in known:
                message = f"expected names of {', '.join(known)}; got {name!r}"
                raise UsageError(message, code="bad-build", argument=axis)
    given = chosen["rank"]
    if given is not None and not all(rank.isdecimal() and 0 < int(rank) <= LARGEST_RANK for rank in given):
        message = f"expected whole numbers from 1 to {LARGEST_RANK}, got {','.join(given)!r}"
        raise UsageError(message, code="bad-build", argument="rank")
    ranks = list(dict.fromkeys(map(int, given))) if given else RANKS if everything else DEFAULT_RANKS
    wanted = specs(axes["target"], ranks, axes["precision"], axes["encoding"], axes["mode"])
    if everything:
        return wanted if chosen["encoding"] or chosen["mode"] else distinct(wanted)
    if not chosen["mode"]:  # of sparse ratings, all modes
        sparse = [name for name in axes["encoding"] if name in SPARSE_ENCODINGS]
        others = [mode for mode in MODES if mode not in axes["mode"]]
        wanted += specs(axes["target"], ranks, axes["precision"], sparse, others)
    if not (chosen["precision"] or chosen["encoding"] or chosen["mode"]):
        wanted += specs(axes["target"], ranks, *DEFAULT_SPARSE.values())
    return wanted


def _read(path: Path) -> Inspection:
    try:
        return Inspection.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", code="unreadable-file", argument="compare") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        message = f"{path}: expected the output of `mfbench inspect --json`: {where}: {first['msg']}"
        raise UsageError(message, code="bad-inspection", argument="compare") from None


def _parts(inspection: Inspection) -> Iterable[RenderableType]:
    if inspection.builds:
        yield table(inspection.builds)
        yield Text(LEGEND, style="dim")
        yield from (Text(line, style="dim") for line in beside(inspection.builds))
        yield from (Text(line, style="dim") for line in executed(inspection.builds))
        yield from (Text(bound(build)) for build in inspection.builds if build.encoding in SPARSE_ENCODINGS)
    missing = Counter(build.reason for build in inspection.not_built if not build.shipped)
    for reason, count in missing.items():
        yield Text(reason + (f" ({count} configurations)" if count > 1 else ""), style="dim")
    failed = inspection.failed
    for build in failed:
        yield Text(f"failed: {' '.join(map(str, build.spec))}: {build.reason}", style="red")
    clean = sum(build.ok for build in inspection.builds)
    yield Text(
        f"{clean} builds are clean, {len(failed)} are not, compiled by Triton {inspection.triton}. Nothing was run."
    )


def beside(builds: Sequence[Build]) -> Iterator[str]:
    """Yield, for each target, a line with the most that the launches before and after the pass take."""
    for target, group in _by_target(builds):
        launches: dict[str, list[Resources]] = {}
        for launch in (launch for build in group for launch in build.beside):
            launches.setdefault(launch.name, []).append(launch)
        most = (
            f"{name} {max(launch.registers for launch in each)} registers, "
            f"{max(launch.stack_bytes for launch in each)} bytes of stack, "
            f"{max(launch.shared_bytes for launch in each)} of shared memory"
            for name, each in launches.items()
        )
        if launches:
            yield f"{target}: the other launches take at most: {'; '.join(most)}."


def executed(builds: Sequence[Build]) -> Iterator[str]:
    """Yield, for each target, a line with the instructions of its builds that no test executes."""
    for target, group in _by_target(builds):
        lists = [build.unexecuted for build in group]
        if None in lists:
            yield f"{target}: no test executes its machine code."
            continue
        missing = sorted({name for names in lists for name in names or ()})
        count = sum(bool(names) for names in lists)
        yield f"{target}: " + (
            f"no test executes {', '.join(missing)}, in {count} of {len(lists)} builds."
            if missing else "every instruction of its builds is one that the tests execute."
        )  # fmt: skip


def _by_target(builds: Sequence[Build]) -> Iterator[tuple[str, list[Build]]]:
    for target, group in itertools.groupby(sorted(builds, key=_block_order), key=lambda build: build.target):
        yield target, list(group)


LEGEND = (
    "\nregs, stack: 32-bit registers and bytes per thread. shared: KiB. blk: resident programs per multiprocessor. "
    "instr: instructions of the main loop per warp, mma: those for the matrix units. Modelled from the main loop and "
    "published rates: issue, clocks to issue a tile's instructions / clocks to read it from DRAM; binds, the resource "
    "that takes longest; DRAM, the fraction of the memory bandwidth that this leaves; moved, bytes that a step of "
    "16384 x 16384 (of sparse ratings, MovieLens 25M's shape) moves / bytes of its ratings and mask. A tile of sparse "
    "ratings is entries x columns of the factors x warps.\n"
)


COLUMNS = (
    "rank", "precision", "tile", "regs", "stack", "shared", "blk", "instr", "mma", "issue", "binds", "DRAM", "moved",
)  # fmt: skip


def table(builds: Sequence[Build]) -> RenderableType:
    """Return one line per build, in blocks by target, encoding and mode."""
    groups = itertools.groupby(
        sorted(builds, key=_block_order), key=lambda build: (build.target, build.encoding, build.mode)
    )
    return Fitted([Block(_title(*names), COLUMNS, [_row(build) for build in group], ()) for names, group in groups])


def _title(target: str, encoding: str, mode: str) -> str:
    limit = TARGETS[target].shared_bytes >> 10
    return f"{target} as {DEVICE_RATES[target].name}, {limit} KiB shared · {encoding} · {mode}"


def _block_order(build: Build) -> tuple[int, int, int]:
    return list(TARGETS).index(build.target), ENCODING_NAMES.index(build.encoding), MODES.index(build.mode)


def _row(build: Build) -> Sequence[Text]:
    model = build.modelled
    cells = [
        str(build.rank), build.precision, build.tile, str(build.registers), str(build.stack_bytes),
        f"{build.shared_bytes / 1024:.0f}", str(build.blocks), str(build.mix.instructions), str(build.mix.matrix),
        f"{model.issue_over_dram:.2f}", model.binds, f"{model.dram_fraction:.0%}", f"{build.traffic:.2f}",
    ]  # fmt: skip
    return [Text(cell, style="" if build.ok else "red") for cell in cells]
