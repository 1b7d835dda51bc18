"""The precision of float32 products: what PyTorch is set to, and full precision whatever that is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

PRECISIONS = ("ieee", "tf32x3", "bf16x3", "tf32")
_PRECISION_OF_TORCH = {"highest": "ieee", "high": "bf16x3", "medium": "tf32"}
_DEVICES = {"cpu": "mkldnn", "cuda": "cuda"}  # PyTorch's name of the library that multiplies on a device


def resolve_precision(precision: str | None) -> str:
    """Return the requested precision, or the one that PyTorch is set to for products on a GPU if it is None.

    PyTorch has two switches: `torch.backends.cuda.matmul.fp32_precision`, and `torch.set_float32_matmul_precision`,
    which sets the former too, but cannot be read once the former was set to something else.

    Raises:
        ValueError: no precision has that name.
    """
    if precision is None:
        return _precision_of_torch()
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected None or one of {', '.join(PRECISIONS)}, got {precision!r}")
    return precision


def _precision_of_torch() -> str:
    if torch._C._get_fp32_precision_getter("cuda", "matmul") != "tf32":  # the property costs 5 times as much
        return "ieee"
    try:
        return _PRECISION_OF_TORCH[torch.get_float32_matmul_precision()]
    except RuntimeError:  # both switches were used
        return "tf32"


@contextmanager
def full_float32(*devices: str) -> Iterator[None]:
    """Compute PyTorch's float32 products in full precision on the devices ("cpu", "cuda"), whatever it is set to.

    The switches belong to the process: products of other threads are affected too.
    """
    changed = []
    for library in (_DEVICES[device] for device in devices if device in _DEVICES):
        setting = _read(library, "matmul")
        if setting not in ("none", "ieee"):
            # A setting that equals the library's may be inherited, and "none" inherits it again.
            changed.append((library, "none" if setting == _read(library, "all") else setting))
            torch._C._set_fp32_precision_setter(library, "matmul", "ieee")
    try:
        yield
    finally:
        for library, setting in changed:
            torch._C._set_fp32_precision_setter(library, "matmul", setting)


def _read(library: str, operation: str) -> str:
    setting: str = torch._C._get_fp32_precision_getter(library, operation)
    return setting
