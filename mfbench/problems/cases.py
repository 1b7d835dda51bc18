"""Cases and suites: which problems are measured."""

from __future__ import annotations

import difflib
import itertools
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mfbench.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SUITES = Path(__file__).parent / "suites"
FIXED_SIZE = ("synthetic", "blocks", "seed")  # data that can be drawn at any size; all other data brings its own

LARGEST, MOST_RATINGS = 2**40, 2**56

RatingsDtype = Literal["float64", "float32", "bfloat16", "float16", "uint8", "int8"]
MaskKind = Literal["bool", "uint8", "int32", "int64", "float32", "none"]


class Case(BaseModel):
    """One problem to measure. `m` and `n` are 0 until the data that brings them has been read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    suite: str
    m: int = Field(ge=0)
    n: int = Field(ge=0)
    rank: int = Field(ge=0)
    density: float = Field(ge=0, le=1)
    ratings_dtype: RatingsDtype
    mask: MaskKind  # its dtype; "none": NaN in the ratings marks the unobserved places
    data: str
    workload: Literal["step"] = "step"
    seed: int

    @property
    def label(self) -> str:
        name = "" if self.data == "synthetic" else f"{Path(self.data).name} "
        mask = "NaN" if self.mask == "none" else f"{self.mask} mask"
        return f"{name}{self.m}×{self.n} rank {self.rank}, {self.density:.3g} observed, {self.ratings_dtype} + {mask}"

    @property
    def asked(self) -> Case:
        """The case without what its data brings: the same before and after that has been read."""
        return self if self.data in FIXED_SIZE else self.model_copy(update={"m": 0, "n": 0, "density": 0.0})


class Axes(BaseModel):
    """A group of cases in a suite file: every combination of the values given."""

    model_config = ConfigDict(extra="forbid")

    size: list[str] = Field(["0x0"], min_length=1)
    rank: list[Annotated[int, Field(ge=0, le=1 << 20)]] = Field([32], min_length=1)
    density: list[Annotated[float, Field(ge=0, le=1)]] = Field([0.8], min_length=1)
    ratings_dtype: list[RatingsDtype] = Field(["float32"], min_length=1)
    mask: list[MaskKind] = Field(["uint8"], min_length=1)
    data: list[str] = Field(["synthetic"], min_length=1)
    seed: list[Annotated[int, Field(ge=0, lt=2**63)]] = Field([1], min_length=1)

    @field_validator("*", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return list(value) if isinstance(value, list | tuple) else [value]

    @model_validator(mode="after")
    def _drawn_data_has_a_size(self) -> Axes:
        if "size" not in self.model_fields_set and set(self.data) & set(FIXED_SIZE):
            raise ValueError(f"size is missing, and {', '.join(self.data)} has none of its own")
        return self

    def cases(self, suite: str) -> Iterable[Case]:
        axes = self.model_dump()
        sizes = [parse_size(size) for size in axes.pop("size")]
        for (m, n), *values in itertools.product(sizes, *axes.values()):
            yield Case(suite=suite, m=m, n=n, **dict(zip(axes, values, strict=True)))


class Suite(BaseModel):
    """A suite file: what it is for, who takes part, which cases."""

    model_config = ConfigDict(extra="forbid")

    name: str
    description: str
    providers: list[str] = ["fused", "autograd", "closed-form"]
    case: list[Axes] = Field(min_length=1)

    def cases(self, overrides: Mapping[str, Any]) -> list[Case]:
        """The suite's cases with some axes replaced, each once, in the suite's order.

        A size given by the user leaves out the groups whose data has a size of its own.
        """
        groups = [group.model_copy(update=dict(overrides)) for group in self.case]
        if "size" not in overrides:  # a data set's group has no size for data that is drawn
            groups = [group for group in groups if group.size != ["0x0"] or not set(group.data) & set(FIXED_SIZE)]
        if "size" in overrides and "data" not in overrides:
            groups = [group for group in groups if set(group.data) <= set(FIXED_SIZE)]
        return list(dict.fromkeys(case for group in groups for case in group.cases(self.name)))


def parse_size(text: str) -> tuple[int, int]:
    """`MxN` as two numbers."""
    m, x, n = text.lower().replace("×", "x").partition("x")
    if not (x and m.isdecimal() and n.isdecimal()):
        raise UsageError(f"--size: expected MxN, two whole numbers such as 2048x1024, got {text!r}")
    if max(int(m), int(n)) > LARGEST or int(m) * int(n) > MOST_RATINGS:
        raise UsageError(
            f"--size: expected at most {LARGEST} users and items, and {MOST_RATINGS} ratings, got {text!r}"
        )
    return int(m), int(n)


def suite_names() -> list[str]:
    return sorted(path.stem for path in SUITES.glob("*.toml"))


def load_suite(name_or_path: str) -> Suite:
    """A suite by name, or from a TOML file of the user's.

    Raises:
        UsageError: no such suite, not TOML, or a field that does not fit; the message says which.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = SUITES / f"{name_or_path}.toml"
        if not path.exists():
            raise UsageError(f"--suite: no suite {name_or_path!r}{nearest(name_or_path, suite_names())}")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        return Suite.model_validate({**content, "name": path.stem})
    except OSError as error:
        raise UsageError(f"--suite: cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--suite: {path} is not TOML: {error}") from None
    except ValidationError as error:
        raise UsageError(f"--suite: {path}: {fault(error, Suite)}") from None


def nearest(name: str, names: Iterable[str]) -> str:
    """The tail of an error message: the nearest valid name, or all of them."""
    names = list(names)
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(names)}"


def fault(error: ValidationError, model: type[BaseModel]) -> str:
    """The first thing that does not fit `model`, where it stands, and what came; for a wrong name the nearest one."""
    detail = error.errors(include_url=False)[0]
    path = [str(part) for part in detail["loc"]]
    place = ".".join(path) + ": " if path else ""
    if detail["type"] == "extra_forbidden":
        return f"{place}no such name{nearest(path[-1], (Axes if path[:-1] else model).model_fields)}"
    return f"{place}{detail['msg'].removeprefix('Value error, ')}, got {detail['input']!r}"
