"""What an inspection found, as `--json` prints it and `--compare` and `report` read it."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from mfbench.inspect.machine_code import Mix
from mfbench.inspect.model import Modelled

SCHEMA: Literal["mfbench-inspect/1"] = "mfbench-inspect/1"


class Spec(NamedTuple):
    """One configuration that a user may ask for."""

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
    mode: Literal["fast", "deterministic"]
    reason: str = ""  # what is wrong with it

    @property
    def spec(self) -> Spec:
        return Spec(self.target, self.rank, self.precision, self.encoding, self.mode)


class Build(_Configuration):
    """What one configuration compiled to; registers (32 bits) and stack (bytes) of a thread."""

    tile: str  # users x items x warps
    registers: int
    stack_bytes: int
    shared_bytes: int
    shared_limit: int
    blocks: int  # resident on a multiprocessor
    mix: Mix
    bytes_per_rating: float
    traffic: float  # of a step of 16384 x 16384, modelled: bytes of DRAM over one read of ratings and mask
    modelled: Modelled
    ok: bool


class NotBuilt(_Configuration):
    """A configuration that is not shipped, or that is and does not compile."""

    shipped: bool


class Inspection(BaseModel):
    """All builds; every clock in them is modelled."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["mfbench-inspect/1"] = Field(default=SCHEMA, alias="schema")
    triton: str
    builds: list[Build]
    not_built: list[NotBuilt]

    @property
    def failed(self) -> list[Build | NotBuilt]:
        """What is shipped and is not clean, or does not compile at all."""
        broken = [build for build in self.builds if not build.ok]
        return [*broken, *(build for build in self.not_built if build.shipped)]
