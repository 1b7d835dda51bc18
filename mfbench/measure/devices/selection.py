"""The devices that a command runs on."""

from __future__ import annotations

import torch

from mfbench.errors import UsageError


def select(device: str | None) -> list[str]:
    """Return the devices for `--device`: "cpu", "cuda" or both for "all"; for None the best one here.

    Raises:
        UsageError: "cuda" was asked for and PyTorch sees no GPU.
    """
    cuda = torch.cuda.is_available()
    if device == "cuda" and not cuda:
        message = "expected a device of this machine, got cuda, and PyTorch sees no GPU here"
        raise UsageError(message, code="no-such-device", argument="device")
    if device is None:
        return ["cuda" if cuda else "cpu"]
    return ["cpu", *(["cuda"] if cuda else [])] if device == "all" else [device]
