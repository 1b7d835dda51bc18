"""Cases and suites: which problems are measured."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mfbench import log
from mfbench.errors import UsageError
from mfbench.problems.bounds import DENSITY, DRAWN, RANK, SEED
from mfbench.problems.faults import expectation, first_fault
from mfbench.problems.pipes import shown
from mfbench.wording import counted, nearest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SUITES = Path(__file__).parent / "suites"
DEFAULT_SUITE = "quick"
CUSTOM_SUITE = "custom"  # in the records of cases that options describe without a suite

SHAPE_CODES = {"size": "bad-size", "density": "bad-axis"}  # of errors, for what data sets have of their own
NO_MASK = "sparse ratings have no mask, since all that are stored are observed"
LARGEST = 2**40  # users or items
MOST_RATINGS = 2**56

RatingsDtype = Literal["float64", "float32", "bfloat16", "float16", "uint8", "int8"]
MaskKind = Literal["bool", "uint8", "int32", "int64", "float32", "none"]  # "none": NaN marks unobserved ratings
Layout = Literal["dense", "sparse"]  # a matrix and its mask, or torch.sparse_csr, whose stored entries are observed
AskedLayout = Literal["dense", "sparse", "auto"]  # "auto": as `mfbench.problems.inputs.resolve` chooses
Workload = Literal["step"]


class CaseSpec(BaseModel):
    """A case as a suite or an option asks for it; a data set has its own size and density, which are None here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    suite: str
    size: tuple[int, int] | None  # users, items
    rank: int
    density: float | None
    layout: AskedLayout = "auto"
    ratings_dtype: RatingsDtype
    mask: MaskKind
    data: str
    workload: Workload = "step"
    seed: int

    @property
    def label(self) -> str:
        """The case in a few words."""
        name = Path(shown(self.data)).name if self.size is None else f"{self.size[0]}×{self.size[1]}"
        return f"{name} rank {self.rank}"

    def sized(self, m: int, n: int, density: float, layout: Layout = "dense") -> Case:
        """Return the case with this size, density and layout; sparse ratings have no mask."""
        fields = self.model_dump(exclude={"size", "density", "layout"}) | (
            {"mask": "none"} if layout == "sparse" else {}
        )
        fields["data"] = shown(self.data)
        return Case(m=m, n=n, density=density, layout=layout, **fields)

    def without_data(self) -> Case:
        """Return a case of no users and items, for the record of a data set that is not installed."""
        return self.sized(0, 0, 0.0, "sparse" if self.layout == "sparse" else "dense")

    def leads_to(self, case: Case) -> bool:
        """Return whether a case may come from this specification, which may leave the layout open."""
        size, density = (self.size or (case.m, case.n)), case.density if self.density is None else self.density
        return self.layout in (case.layout, "auto") and case == self.sized(*size, density, case.layout)


class Case(BaseModel):
    """One problem to measure, as records hold it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    suite: str  # name or file
    m: int = Field(ge=0)  # users
    n: int = Field(ge=0)  # items
    rank: int = Field(ge=0)  # columns of the factors
    density: float = Field(ge=0, le=1)  # observed fraction of the ratings
    layout: Layout = "dense"  # of the ratings that providers are given
    ratings_dtype: RatingsDtype  # dtype of the ratings
    mask: MaskKind  # its dtype; `none`: NaN marks unobserved ratings, or the layout is sparse
    data: str  # `synthetic` and the like are drawn; else a data set or a file
    workload: Workload = "step"  # what is timed: loss and gradients
    seed: int  # of everything drawn
    processes: int | None = None  # that share the users in a group; absent: one process without a group

    @property
    def label(self) -> str:
        """The case in words, without its seed."""
        name = "" if self.data == "synthetic" else f"{Path(self.data).name} "
        mask = "NaN" if self.mask == "none" else f"{self.mask} mask"
        ratings = f"sparse {self.ratings_dtype}" if self.sparse else f"{self.ratings_dtype} + {mask}"
        shared = f", {counted(self.processes, 'process', 'es')}" if self.processes else ""
        return f"{name}{self.m}×{self.n} rank {self.rank}, {self.density:.3g} observed, {ratings}{shared}"

    @property
    def sparse(self) -> bool:
        """Whether providers are given sparse ratings."""
        return self.layout == "sparse"

    @property
    def expected_ratings(self) -> int:
        """Number of observed ratings, exact except where each place is drawn."""
        return round(self.density * self.m * self.n)


class Axes(BaseModel):
    """A group of cases in a suite file: every combination of the given values."""

    model_config = ConfigDict(extra="forbid")

    size: list[str] = Field([], min_length=1)
    rank: list[Annotated[int, Field(ge=RANK.low, le=RANK.high)]] = Field([32], min_length=1)
    density: list[Annotated[float, Field(ge=DENSITY.low, le=DENSITY.high)]] = Field([0.8], min_length=1)
    layout: list[AskedLayout] = Field(["auto"], min_length=1)
    ratings_dtype: list[RatingsDtype] = Field(["float32"], min_length=1)
    mask: list[MaskKind] = Field(["uint8"], min_length=1)
    data: list[str] = Field(["synthetic"], min_length=1)
    seed: list[Annotated[int, Field(ge=SEED.low, le=SEED.high)]] = Field([1], min_length=1)

    @field_validator("*", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return list(value) if isinstance(value, list | tuple) else [value]

    @model_validator(mode="after")
    def _drawn_data_has_a_size(self) -> Axes:
        if not self.size and self.draws:
            raise ValueError("size is missing, which drawn data needs")
        return self

    @model_validator(mode="after")
    def _sparse_ratings_have_no_mask(self) -> Axes:
        if self.masks_nothing and "mask" in self.model_fields_set:
            raise ValueError(f"mask: {NO_MASK}, got {', '.join(self.mask)}")
        return self

    @property
    def masks_nothing(self) -> bool:
        """Whether no layout has a mask, but one is asked for."""
        return set(self.layout) == {"sparse"} and set(self.mask) != {"none"}

    @property
    def masks_some(self) -> bool:
        """Whether one of several layouts has no mask, but one is asked for in every case."""
        return set(self.layout) > {"sparse"} and "mask" in self.model_fields_set and "none" not in self.mask

    @property
    def draws(self) -> bool:
        """Whether some of the data is drawn, which needs a size."""
        return not set(self.data).isdisjoint(DRAWN)

    def specs(self, suite: str) -> Iterator[CaseSpec]:
        """Yield every combination.

        Raises:
            UsageError: a size is not MxN.
        """
        axes = self.model_dump()
        sizes: list[tuple[int, int] | None] = [parse_size(size) for size in axes.pop("size")]
        for size, *values in itertools.product(sizes or [None], *axes.values()):
            properties = dict(zip(axes, values, strict=True))
            if properties["data"] not in DRAWN:
                size, properties["density"] = None, None
            if properties["layout"] == "sparse":
                properties["mask"] = "none"
            yield CaseSpec(suite=suite, size=size, **properties)


class Suite(BaseModel):
    """A suite file: what it is for, who takes part, which cases."""

    model_config = ConfigDict(extra="forbid")

    name: str
    description: str
    providers: list[str] = ["fused", "autograd", "closed-form"]
    baseline: str = "autograd"  # what speed-ups are relative to, unless an option says otherwise
    case: list[Axes] = Field(min_length=1)

    def specs(self, axes: Mapping[str, list[Any]]) -> list[CaseSpec]:
        """Return the suite's cases in their order, each once, with the values of some axes replaced.

        A given size leaves out the groups of data sets, which have their own; a given data set takes the place of these
        alone, if the suite has any.

        Raises:
            UsageError: a size is not MxN, or a size or density comes with data that has its own.
        """
        groups = self.case
        if "data" in axes and not set(axes["data"]) & set(DRAWN):
            refuse_shape(axes["data"][0], {"size", "density"} & set(axes))
            groups = [group for group in groups if not group.draws] or groups
        groups = [group.model_copy(update=dict(axes)) for group in groups]
        if "mask" in axes and groups and all(group.masks_nothing for group in groups):
            message = f"{NO_MASK}, got {', '.join(axes['mask'])}"
            raise UsageError(message, code="bad-axis", argument="mask")
        if any(group.masks_some for group in groups):
            log.note(f"suite {self.name}: {NO_MASK}; the others have the mask")
        if "size" not in axes:  # a data set's group has no size for data that is drawn instead
            groups = [group for group in groups if group.size or not group.draws]
        if "size" in axes and "data" not in axes:
            groups = [group for group in groups if set(group.data) <= set(DRAWN)]
        return list(dict.fromkeys(spec for group in groups for spec in group.specs(self.name)))


def refuse_shape(data: str, given: Collection[str]) -> None:
    """Raise UsageError where a size or a density is given beside a data set, which has its own."""
    for name in sorted(given, reverse=True):
        message = f"{data!r} has its own {name}; only {', '.join(DRAWN)} are drawn at any {name}"
        raise UsageError(message, code=SHAPE_CODES[name], argument=name)


def parse_axes(given: Mapping[str, Any]) -> Axes:
    """Return a group of cases.

    Args:
        given: a value or several for each axis, by its name in `Axes`.

    Raises:
        UsageError: no such axis, a value that does not fit it, or no size for data that needs one.
    """
    try:
        axes = Axes.model_validate(dict(given))
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        axis = str(detail["loc"][0]) if detail["loc"] else None
        if axis and detail["type"] == "extra_forbidden":
            message = f"no such name{nearest(axis, Axes.model_fields)}"
            raise UsageError(message, code="no-such-axis", argument=axis) from None
        raise UsageError(expectation(detail), code="bad-axis", argument=axis) from None
    for size in axes.size:
        parse_size(size)
    return axes


def parse_overrides(given: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the values of the given axes alone, each as a list, to replace those of a suite.

    Raises:
        UsageError: no such axis, or a value that does not fit it.
    """
    axes = parse_axes({"size": "1x1", **given})
    return {name: getattr(axes, name) for name in given}


def find_suite(name: str | None, axes: Mapping[str, Any]) -> Suite:
    """Return a suite by name or file; for None the one case that the axes describe, or else the default suite.

    Args:
        name: of a shipped suite, or a TOML file.
        axes: they describe a case if they have a size.

    Raises:
        UsageError: as `load_suite` and `parse_axes`.
    """
    if name is None and "size" in axes:
        return Suite(name=CUSTOM_SUITE, description="Described by options", case=[parse_axes(axes)])
    return load_suite(name or DEFAULT_SUITE)


def parse_size(text: str) -> tuple[int, int]:
    """Return the two numbers of `MxN`.

    Raises:
        UsageError: the text is something else, or the size is too large.
    """
    m, x, n = text.lower().replace("×", "x").partition("x")
    if not (x and m.isdecimal() and n.isdecimal()):
        raise UsageError(
            f"expected MxN, two whole numbers such as 2048x1024, got {text!r}", code="bad-size", argument="size"
        )
    if max(int(m), int(n)) > LARGEST or int(m) * int(n) > MOST_RATINGS:
        raise UsageError(
            f"expected at most {LARGEST} users and items, and {MOST_RATINGS} ratings, got {text!r}",
            code="bad-size",
            argument="size",
        )
    return int(m), int(n)


def suite_names() -> list[str]:
    """Return the names of the shipped suites."""
    return sorted(path.stem for path in SUITES.glob("*.toml"))


def load_suite(name_or_path: str) -> Suite:
    """Return a suite by name, or from a user's TOML file.

    Raises:
        UsageError: no such suite, not TOML, or a field that does not fit; the message says which.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = SUITES / f"{name_or_path}.toml"
        if not path.exists():
            message = f"no suite {name_or_path!r}{nearest(name_or_path, suite_names())}"
            raise UsageError(message, code="no-such-suite", argument="suite")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        return Suite.model_validate({**content, "name": path.stem})
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
        raise UsageError(message, code="unreadable-file", argument="suite") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}", code="not-toml", argument="suite") from None
    except ValidationError as error:
        raise UsageError(f"{path}: {_suite_fault(error)}", code="bad-suite", argument="suite") from None


def _suite_fault(error: ValidationError) -> str:
    """Describe the first fault of a suite file, with the nearest name for an unknown one."""
    detail = error.errors(include_url=False)[0]
    if detail["type"] != "extra_forbidden":
        return first_fault(error)
    path = [str(part) for part in detail["loc"]]
    return f"{'.'.join(path)}: no such name{nearest(path[-1], (Axes if path[:-1] else Suite).model_fields)}"
