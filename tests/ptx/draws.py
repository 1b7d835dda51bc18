"""Random problems for the step, in every form of ratings that it accepts."""

from __future__ import annotations

import torch

from kernels import encode_ratings

from .steps import Problem


def _with_mask(dtype: torch.dtype, mask_dtype: torch.dtype):
    return lambda ratings, observed: (ratings.to(dtype), observed.to(mask_dtype))


def _encoded(name: str):
    return lambda ratings, observed: (encode_ratings(ratings, observed, name, layout="dense"), None)


def _transposed(ratings: torch.Tensor, observed: torch.Tensor):
    return ratings.float().T.contiguous().T, observed.T.contiguous().T


def _padded(ratings: torch.Tensor, observed: torch.Tensor):
    """Rows with a gap after them, none of them aligned."""
    n = ratings.shape[1]
    wide = torch.full((2, ratings.shape[0], n + 5), float("nan"))
    wide[0, :, :n], wide[1, :, :n] = ratings, observed
    return wide[0, :, :n], wide[1].to(torch.uint8)[:, :n]


def _weighted(ratings: torch.Tensor, observed: torch.Tensor):
    """Weights of either sign, exact in bfloat16; no ratings but where these are not 0."""
    return ratings.float(), (observed * (torch.arange(observed.numel()).reshape(observed.shape) % 7 - 3.5)).bfloat16()


def _sparse(dtype: torch.dtype, index_dtype: torch.dtype = torch.int64):
    """A raw tensor in compressed rows."""

    def convert(ratings: torch.Tensor, observed: torch.Tensor):
        rows = torch.zeros(len(ratings) + 1, dtype=index_dtype)
        rows[1:] = observed.sum(1).cumsum(0)
        columns = observed.nonzero()[:, 1].to(index_dtype)
        return torch.sparse_csr_tensor(rows, columns, ratings[observed].to(dtype), ratings.shape), None

    return convert


def _sparse_encoded(name: str):
    return lambda ratings, observed: (encode_ratings(ratings, observed, name, layout="sparse"), None)


ENCODINGS = {
    "sparse float32, int32 indices": _sparse(torch.float32, torch.int32),
    "sparse float64, int64 indices": _sparse(torch.float64),
    "sparse uint8-code, uint16 indices": _sparse_encoded("uint8-code"),
    "sparse bfloat16, uint16 indices": _sparse_encoded("bfloat16"),
    "float32, uint8 mask": _with_mask(torch.float32, torch.uint8),
    "float32, bool mask, transposed": _transposed,
    "float32 with gaps between rows": _padded,
    "float32, bfloat16 weights": _weighted,
    "uint8, float32 mask": _with_mask(torch.uint8, torch.float32),
    "float64-nan": _encoded("float64-nan"),
    "float32-nan": _encoded("float32-nan"),
    "bfloat16-nan": _encoded("bfloat16-nan"),
    "float16-nan": _encoded("float16-nan"),
    "uint8-code": _encoded("uint8-code"),
    "uint8-bits": lambda ratings, observed: (encode_ratings(ratings.to(torch.uint8), observed, "uint8-bits"), None),
    "int8-bits": lambda ratings, observed: (encode_ratings(ratings.to(torch.int8), observed, "int8-bits"), None),
}


def draw(seed: int, encoding: str, rank: int, m: int, n: int, density: float, dtype=torch.float32) -> Problem:
    """Factors and biases of a realistic fit, some of them large; half-star ratings; empty rows and columns."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype)

    observed = torch.rand(m, n, generator=generator) < density
    if m > 2 and n > 2:
        observed[m // 2], observed[:, n // 3] = False, False
        observed[0], observed[:, n - 1] = True, True
    stars = torch.randint(1, 11, (m, n), generator=generator) / 2
    if "bits" in encoding or encoding.startswith("uint8, "):
        stars = stars.round()
    bad = torch.tensor([float("nan"), float("inf"), 1e30, 0.0])[torch.randint(4, (m, n), generator=generator)]
    ratings, mask = ENCODINGS[encoding](torch.where(observed, stars, bad), observed)
    parameters = [normal(m, rank), normal(n, rank), 3 * normal(m, 1), normal(n), normal() + 3.5]
    weights = mask.double() if mask is not None and mask.is_floating_point() else observed.double()
    return Problem(parameters, ratings, mask, torch.where(observed, stars, 0.0), weights)
