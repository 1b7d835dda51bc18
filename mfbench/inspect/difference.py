"""Compare two inspections build by build."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mfbench.inspect.document import Build, Inspection, Spec

FIGURES: dict[str, Callable[[Build], object]] = {
    "tile": lambda build: build.tile,
    "registers": lambda build: build.registers,
    "stack": lambda build: build.stack_bytes,
    "shared": lambda build: build.shared_bytes,
    "instructions": lambda build: build.mix.instructions,
    "matrix": lambda build: build.mix.matrix,
    "modelled issue": lambda build: f"{build.modelled.issue_over_dram:.3f}",
    "modelled DRAM": lambda build: f"{build.modelled.dram_fraction:.1%}",
}
BESIDE = {"registers": "registers", "stack": "stack_bytes", "shared": "shared_bytes"}  # of the other launches


def differences(base: Inspection, new: Inspection) -> Iterator[str]:
    """Yield a line for each build whose figures changed, the builds of one side only, and the number of changes."""
    before = {build.spec: build for build in base.builds}
    after = {build.spec: build for build in new.builds}
    common = [spec for spec in after if spec in before]
    changed = {spec: changes for spec in common if (changes := list(_changes(before[spec], after[spec])))}
    for spec, changes in changed.items():
        yield f"{_name(spec)}: {', '.join(changes)}"
    for title, only in (("before", before.keys() - after.keys()), ("now", after.keys() - before.keys())):
        if only:
            yield f"only {title}: {', '.join(map(_name, sorted(only)))}"
    yield f"{len(changed)} of {len(common)} builds changed; before: Triton {base.triton}, now: Triton {new.triton}"


def _changes(before: Build, after: Build) -> Iterator[str]:
    for name, figure in FIGURES.items():
        if figure(before) != figure(after):
            yield f"{name} {figure(before)} → {figure(after)}"
    others = {launch.name: launch for launch in before.beside}
    for launch in after.beside:
        other = others.get(launch.name, launch)  # an older document has none
        for name, attribute in BESIDE.items():
            if getattr(other, attribute) != getattr(launch, attribute):
                yield f"{launch.name} {name} {getattr(other, attribute)} → {getattr(launch, attribute)}"


def _name(spec: Spec) -> str:
    return " ".join(map(str, spec))
