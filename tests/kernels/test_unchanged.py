"""Values are kept with their tensors until one of them changes or dies."""

from __future__ import annotations

import torch

from kernels.unchanged import Unchanged


def test_a_value_is_void_once_a_tensor_is_changed_or_another():
    kept: Unchanged[str] = Unchanged()
    first, second = torch.arange(3), torch.arange(4)
    assert kept.get((first, second)) is None
    kept.keep((first, second), "sorted")
    assert kept.get((first, second)) == "sorted"
    assert kept.get((first, second.clone())) is None
    assert kept.get((second, first)) is None
    second[0] = 7
    assert kept.get((first, second)) is None
    kept.keep((first, second), "again")
    second.set_(torch.arange(4))
    assert kept.get((first, second)) is None


def test_a_value_dies_with_the_first_tensor():
    kept: Unchanged[torch.Tensor] = Unchanged()
    first, second = torch.arange(3), torch.arange(4)
    kept.keep((first, second), torch.ones(1))
    del second
    assert len(kept._known) == 1
    assert kept.get((first, torch.arange(4))) is None
    del first
    assert not kept._known


def test_nothing_is_kept_of_inference_tensors():
    kept: Unchanged[str] = Unchanged()
    with torch.inference_mode():
        tensor = torch.arange(3)
    kept.keep((tensor,), "sorted")
    assert kept.get((tensor,)) is None
