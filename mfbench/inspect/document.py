"""The results of an inspection, which `--json` prints and `--compare` and `report` read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from mfbench.inspect.machine_code import Mix
from mfbench.inspect.model import Modelled

if TYPE_CHECKING:
    from kernels.aot import Launch

SCHEMA: Literal["mfbench-inspect/1"] = "mfbench-inspect/1"


class Spec(NamedTuple):
    """One configuration of the kernel."""

    target: str
    rank: int
    precision: str
    encoding: str
    mode: str


class _Configuration(BaseModel):
    target: str
    rank: int
    precision: str
    encoding: str
    mode: Literal["fast", "deterministic", "sse"]  # sse: the loss of sparse ratings without gradients
    reason: str = ""  # what is wrong with it

    @property
    def spec(self) -> Spec:
        return Spec(self.target, self.rank, self.precision, self.encoding, self.mode)


class Resources(BaseModel):
    """What a launch takes; registers (32-bit) and stack (bytes) are per thread."""

    name: str
    warps: int
    registers: int
    stack_bytes: int
    shared_bytes: int


class Build(_Configuration):
    """A compiled configuration and its pass over the ratings; `launches` has what every launch of its step takes.

    Registers (32-bit) and stack (bytes) are per thread.
    """

    tile: str  # users x items x warps; of sparse ratings, entries x columns of the factors x warps
    registers: int
    stack_bytes: int
    shared_bytes: int
    shared_limit: int
    blocks: int  # resident per multiprocessor
    mix: Mix
    bytes_per_rating: float  # ratings and mask; of sparse ratings all bytes that a step moves, through the cache
    # Modelled DRAM bytes of a step / bytes of ratings and mask: 16384 x 16384; sparse ratings, MovieLens 25M's shape
    traffic: float
    modelled: Modelled
    unexecuted: list[str] | None = None  # instructions of the pass that no test executes; None: its code is not PTX
    launches: list[Resources] = Field(default_factory=list)  # of a step, in order; empty in older documents
    ok: bool

    @property
    def beside(self) -> list[Resources]:
        """The launches before and after the pass: what prepares and, with gradients, what finishes."""
        return [*self.launches[:1], *self.launches[2:]]


class NotBuilt(_Configuration):
    """A configuration that is not shipped, or is shipped but does not compile."""

    shipped: bool


def resources(launches: Sequence[Launch]) -> list[Resources]:
    """Return what each launch takes."""
    return [
        Resources(
            name=launch.name, warps=launch.num_warps, registers=launch.registers, stack_bytes=launch.stack_bytes,
            shared_bytes=launch.shared_bytes,
        )
        for launch in launches
    ]  # fmt: skip


def not_built(spec: Spec, error: Exception) -> NotBuilt:
    """Return a configuration that raised an error when it was planned or compiled."""
    shipped = not str(error).startswith("not shipped")
    reason = f"{type(error).__name__}: {error}" if shipped else str(error)
    return NotBuilt(**spec._asdict(), shipped=shipped, reason=reason)


class Inspection(BaseModel):
    """All builds; all clocks in them are modelled."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["mfbench-inspect/1"] = Field(default=SCHEMA, alias="schema")
    triton: str
    builds: list[Build]
    not_built: list[NotBuilt]

    @property
    def failed(self) -> list[Build | NotBuilt]:
        """Shipped builds that are not clean or do not compile."""
        broken = [build for build in self.builds if not build.ok]
        return [*broken, *(build for build in self.not_built if build.shipped)]
