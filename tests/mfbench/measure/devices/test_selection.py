"""The devices of a command, with and without a GPU."""

from __future__ import annotations

import pytest
import torch

from mfbench.errors import UsageError
from mfbench.measure.devices.selection import select


@pytest.mark.parametrize(
    ("device", "without", "with_gpu"),
    [(None, ["cpu"], ["cuda"]), ("cpu", ["cpu"], ["cpu"]), ("all", ["cpu"], ["cpu", "cuda"]), ("cuda", None, ["cuda"])],
)
def test_devices(monkeypatch: pytest.MonkeyPatch, device: str | None, without: list | None, with_gpu: list) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert select(device) == with_gpu
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    if without is None:
        with pytest.raises(UsageError) as raised:
            select(device)
        assert (raised.value.code, raised.value.argument) == ("no-such-device", "device")
    else:
        assert select(device) == without
