"""What a change did to the machine code: two inspections, build by build."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mfbench.inspect.builds import Build, Inspection

FIGURES = {
    "regs": lambda build: build.registers,
    "stack": lambda build: build.stack_bytes,
    "shared": lambda build: build.shared_bytes,
    "instr": lambda build: build.mix.instructions,
    "matrix": lambda build: build.mix.matrix,
    "blk": lambda build: build.blocks,
    "issue/DRAM": lambda build: round(build.modelled.issue_over_dram, 3),
    "DRAM": lambda build: round(build.modelled.dram_fraction, 3),
}


def table(base: Inspection, new: Inspection) -> RenderableType:
    """The builds whose figures changed, as `before → after`; then what only one of the two has."""
    before = {build.spec: build for build in base.builds}
    after = {build.spec: build for build in new.builds}
    grid = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for name in ("build", "tile", *FIGURES):
        grid.add_column(name, no_wrap=True)
    changed = [spec for spec in after if spec in before and _figures(before[spec]) != _figures(after[spec])]
    for spec in changed:
        grid.add_row(" ".join(map(str, spec)), *map(_arrow, _figures(before[spec]), _figures(after[spec])))
    common = len(before.keys() & after.keys())
    lines = [f"{len(changed)} of {common} builds changed; before: Triton {base.triton}, after: {new.triton}"]
    lines += [f"only before: {' '.join(map(str, spec))}" for spec in before.keys() - after.keys()] if common else []
    lines += [f"only after: {' '.join(map(str, spec))}" for spec in after.keys() - before.keys()]
    return Group(*([grid] if changed else []), Text("\n".join(lines)))


def _figures(build: Build) -> list[str]:
    return [build.tile, *(str(figure(build)) for figure in FIGURES.values())]


def _arrow(before: str, after: str) -> str:
    return after if before == after else f"{before} → {after}"
