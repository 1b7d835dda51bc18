"""Encode ratings with what is observed of them: fewer bytes to read, nothing lost."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from kernels import csr
from kernels.decoding import CHUNK_ELEMENTS, MISSING_CODE, check_exact
from kernels.encoded import EncodedRatings, check_no_mask
from kernels.levels import find_levels, to_codes
from kernels.problem import OCCUPIED_BLOCK, WIDE_INTEGERS, Observations, check_ratings, packed_words

FLOAT_DTYPES = {
    "bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32, "float64": torch.float64,
}  # fmt: skip
BYTE_DTYPES = {"uint8": torch.uint8, "int8": torch.int8}
LAYOUTS = ("auto", "dense", "sparse")
# Fraction of observed ratings below which a sparse step is faster, by device: on a CPU between what was measured on two
# (docs/sparse.md), on a GPU as modelled from compiled kernels, elsewhere as modelled from the bytes that the `torch`
# backend moves.
CROSSOVER = {"cpu": 0.28, "cuda": 0.03, "xpu": 0.03}
CROSSOVER_ELSEWHERE = 0.003
TILE = 64  # users and items of the tiles that are counted for WORTH_SKIPPING
WORTH_SKIPPING = 0.9  # tiles are skipped if at most this fraction of them holds an observed entry


def encode_ratings(
    ratings: Tensor, mask: Tensor | None = None, encoding: str | None = None, layout: str = "auto"
) -> EncodedRatings:
    """Return ratings and mask together, in the fewest bytes that lose nothing.

    Bytes per place of a dense layout: 1 as a code (ratings on an evenly spaced scale of at most 255 levels), 1.125 as
    an 8-bit integer beside a packed mask, 2, 4 or 8 as a float that is NaN where unobserved. Bytes per observed rating
    of a sparse layout: 1, 2, 4 or 8, and 2 for its column if there are at most 65,536 items, else 4.

    Args:
        ratings: (m, n), of any dtype that the step accepts; dense, or `torch.sparse_csr`, `sparse_coo` or `sparse_csc`,
            of which every stored entry is observed.
        mask: (m, n), non-zero where observed; None: NaN marks the unobserved entries. A float mask must hold 0 and 1:
            the encodings have no room for weights. None beside sparse ratings.
        encoding: a name listed at `EncodedRatings.encoding`; None: the smallest that fits.
        layout: "dense", "sparse", or "auto": the one in which a step is faster on the ratings' device, by the fraction
            of observed ratings, unless only one of them has the requested encoding.

    Raises:
        TypeError: an argument is not a tensor, or the ratings' dtype is not one that the step accepts.
        ValueError: the shapes differ, the mask holds weights, an observed rating is an integer that float64 would
            round, or NaN where NaN marks the unobserved ones, an index of sparse ratings is out of range or repeated,
            or the requested encoding would lose something.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout: expected one of {', '.join(LAYOUTS)}, got {layout!r}")
    if isinstance(ratings, Tensor) and ratings.layout not in (torch.strided, *csr.LAYOUTS):
        expected = "a dense tensor, torch.sparse_csr, torch.sparse_coo or torch.sparse_csc"
        raise TypeError(f"ratings: expected {expected}, got {ratings.layout}")
    if isinstance(ratings, Tensor) and ratings.layout in csr.LAYOUTS:
        check_no_mask(mask)
        entries = csr.compress(ratings.detach())
        check_ratings(entries.ratings, None)
        check_exact(entries, torch.float64)  # from here on, float64 stands for the ratings
        if layout == "auto" and encoding is None and torch.isnan(entries.ratings).any():
            layout = "sparse"  # a dense layout has no place for an observed NaN
        if _chosen_layout(layout, encoding, entries.ratings, len(entries.ratings), entries.shape) == "sparse":
            return _encode_sparse(entries, encoding)
        return _encode_dense(*_spread(entries), encoding)
    check_ratings(ratings, mask)
    ratings = ratings.detach()
    observed = _observed(ratings, mask)
    check_exact(Observations(ratings, mask), torch.float64)
    if _chosen_layout(layout, encoding, ratings, int(observed.sum()), ratings.shape) == "sparse":
        return _encode_sparse(csr.compress_dense(ratings, observed), encoding)
    return _encode_dense(ratings, observed, encoding)


def _chosen_layout(layout: str, encoding: str | None, ratings: Tensor, observed: int, shape: tuple[int, ...]) -> str:
    if layout != "auto":
        return layout
    if encoding in FLOAT_DTYPES or encoding in BYTE_DTYPES:
        return "sparse"
    if encoding not in (None, "uint8-code"):
        return "dense"
    crossover = CROSSOVER.get(ratings.device.type, CROSSOVER_ELSEWHERE)
    return "sparse" if observed < crossover * math.prod(shape) else "dense"


def _observed(ratings: Tensor, mask: Tensor | None) -> Tensor:
    """Return which ratings of a matrix are observed, bool.

    Raises:
        ValueError: the mask has another shape or holds weights, or an observed rating is NaN.
    """
    if mask is None:
        return ~torch.isnan(ratings)
    if mask.shape != ratings.shape:
        raise ValueError(f"mask: expected shape {tuple(ratings.shape)} as ratings, got {tuple(mask.shape)}")
    observed = mask != 0
    _check_binary(mask)
    if (torch.isnan(ratings) & observed).any():
        raise ValueError("ratings: expected no NaN at an observed entry, since NaN encodes 'missing'; got one")
    return observed


def _spread(entries: Observations) -> tuple[Tensor, Tensor]:
    """Return a matrix with sparse ratings in their places, and which places those are.

    Raises:
        ValueError: one of the ratings is NaN.
    """
    values, (rows, columns) = entries.ratings, csr.indices_of(entries)
    if torch.isnan(values).any():
        raise ValueError("ratings: expected no NaN, since NaN encodes 'missing' in a dense layout; got one")
    places = csr.user_of_entries(rows, 0, len(values)), columns.long()
    ratings = values.new_zeros(entries.shape)
    observed = torch.zeros(entries.shape, dtype=torch.bool, device=values.device)
    ratings[places], observed[places] = values, True
    return ratings, observed


def _encode_dense(ratings: Tensor, observed: Tensor, encoding: str | None) -> EncodedRatings:
    encoders: dict[str, Callable[[Tensor, Tensor, str], EncodedRatings | None]] = {"uint8-code": _as_codes}
    for name in _byte_dtypes(ratings):
        encoders[f"{name}-bits"] = _with_bits
    encoders |= {f"{name}-nan": _as_floats for name in FLOAT_DTYPES}
    for name in _tried(encoding, list(encoders), ratings):
        encoded = encoders[name](ratings, observed, name)
        if encoded is not None:
            return encoded._replace(occupied=_occupied(observed))
    raise _lossy(encoding)


def _encode_sparse(entries: Observations, encoding: str | None) -> EncodedRatings:
    ratings, (rows, columns) = entries.ratings, csr.indices_of(entries)
    dtypes = _byte_dtypes(ratings) | FLOAT_DTYPES
    for name in _tried(encoding, ["uint8-code", *dtypes], ratings):
        stored = _entries_as_codes(ratings) if name == "uint8-code" else _entries_as(dtypes[name], ratings)
        if stored is not None:
            values, levels = stored
            rows = rows.to(torch.int64, copy=True)
            columns = columns.to(csr.index_dtype(entries.items), copy=True)
            return EncodedRatings(values, name, levels, rows=rows, columns=columns, items=entries.items)
    raise _lossy(encoding)


def _byte_dtypes(ratings: Tensor) -> dict[str, torch.dtype]:
    """Return the byte-wide dtypes that may hold ratings of this dtype, by name."""
    return {name: dtype for name, dtype in BYTE_DTYPES.items() if ratings.dtype in (dtype, *WIDE_INTEGERS)}


def _tried(encoding: str | None, known: list[str], ratings: Tensor) -> list[str]:
    if encoding is None:
        return known
    if encoding not in known:
        raise ValueError(f"encoding: expected one of {', '.join(known)} for {ratings.dtype}, got {encoding!r}")
    return [encoding]


def _lossy(encoding: str | None) -> ValueError:
    return ValueError(f"encoding: expected one that loses nothing of these ratings, got {encoding!r}")


def _check_binary(mask: Tensor) -> None:
    """Raise ValueError where a float mask holds weights other than 0 and 1."""
    others = mask[(mask != 0) & (mask != 1)] if mask.is_floating_point() else mask[:0]
    if len(others):
        raise ValueError(
            f"mask: expected 0 and 1, since encoded ratings cannot carry weights, got {others.flatten()[0].item()}; "
            "pass the ratings and their weights without encoding them"
        )


def _occupied(observed: Tensor) -> Tensor | None:
    """Return which blocks hold an observed entry, if enough tiles are empty for skipping to pay."""
    rows, columns = observed.shape
    if 0 in (rows, columns):
        return None
    pixels = observed.to(torch.float32)[None]
    blocks = torch.nn.functional.max_pool2d(pixels, OCCUPIED_BLOCK, ceil_mode=True)
    tiles = torch.nn.functional.max_pool2d(blocks, TILE // OCCUPIED_BLOCK, ceil_mode=True)
    return blocks[0] > 0 if tiles.mean() < WORTH_SKIPPING else None


def _equal(values: Tensor, ratings: Tensor) -> bool:
    """Return whether values (of any dtype) equal the ratings, NaN where they are NaN."""
    values, ratings = values.double(), ratings.double()
    return bool(((values == ratings) | (values.isnan() & ratings.isnan())).all())


def _lossless(values: Tensor, ratings: Tensor, observed: Tensor) -> bool:
    """Return whether values (of any dtype) equal the ratings wherever these are observed."""
    return torch.equal(values.double().masked_fill(~observed, 0), ratings.double().masked_fill(~observed, 0))


def _as_floats(ratings: Tensor, observed: Tensor, name: str) -> EncodedRatings | None:
    values = ratings.to(FLOAT_DTYPES[name.removesuffix("-nan")])
    if not _lossless(values, ratings, observed):
        return None
    return EncodedRatings(values.masked_fill(~observed, float("nan")), name)


def _with_bits(ratings: Tensor, observed: Tensor, name: str) -> EncodedRatings | None:
    values = ratings.to(getattr(torch, name.removesuffix("-bits")))
    if values.dtype is not ratings.dtype and not _lossless(values, ratings, observed):
        return None
    m, n = ratings.shape
    columns = torch.zeros(m, packed_words(n) * 32, dtype=torch.uint8, device=ratings.device)
    columns[:, :n] = observed
    weights = 1 << torch.arange(8, dtype=torch.uint8, device=ratings.device)
    packed = (columns.reshape(m, -1, 8) * weights).sum(2, dtype=torch.uint8)
    return EncodedRatings(values, name, bits=packed.view(torch.int32))


def _as_codes(ratings: Tensor, observed: Tensor, name: str) -> EncodedRatings | None:
    rows = max(1, CHUNK_ELEMENTS // max(1, ratings.shape[1]))
    levels = find_levels(part[here] for part, here in zip(ratings.split(rows), observed.split(rows), strict=True))
    if levels is None:
        return None
    codes, scale_and_offset = to_codes(ratings, levels), levels_tensor(levels, ratings.device)
    if not _lossless(codes * levels[0] + levels[1], ratings, observed):
        return None
    codes = codes.nan_to_num_(0).to(torch.uint8).masked_fill_(~observed, MISSING_CODE)
    return EncodedRatings(codes, name, scale_and_offset)


def _entries_as(dtype: torch.dtype, ratings: Tensor) -> tuple[Tensor, None] | None:
    """Return a copy of sparse ratings in another dtype, and no levels, if that loses nothing."""
    values = ratings.to(dtype, copy=True)
    chunks = zip(values.split(CHUNK_ELEMENTS), ratings.split(CHUNK_ELEMENTS), strict=True)
    return (values, None) if all(_equal(*pair) for pair in chunks) else None


def _entries_as_codes(ratings: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return the codes of sparse ratings and their scale and offset, if that loses nothing."""
    levels = find_levels(ratings.split(CHUNK_ELEMENTS))
    if levels is None:
        return None
    codes = torch.empty_like(ratings, dtype=torch.uint8)
    for chunk, to in zip(ratings.split(CHUNK_ELEMENTS), codes.split(CHUNK_ELEMENTS), strict=True):
        exact = to_codes(chunk, levels)
        if not _equal(exact * levels[0] + levels[1], chunk):
            return None
        to.copy_(exact)
    return codes, levels_tensor(levels, ratings.device)


def levels_tensor(levels: tuple[float, float], device: torch.device) -> Tensor:
    """Return scale and offset as a step takes them."""
    return torch.tensor(levels, dtype=torch.float64, device=device)
