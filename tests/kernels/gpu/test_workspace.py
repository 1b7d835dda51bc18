"""The workspace: regions lie apart and aligned, and are read as they were laid out."""

import torch

from kernels.gpu.workspace import ALIGNMENT, Layout


def test_regions_hold_what_is_written_and_nothing_of_each_other():
    layout = Layout()
    forms = [(torch.float32, 3, 5), (torch.bfloat16, 2, 7, 1), (torch.int32, 1), (torch.float64, 33), (torch.uint8, 9)]
    regions = [layout.add(*form) for form in forms]
    for dtype in (torch.float32, torch.float64):
        workspace = torch.empty(layout.nbytes // dtype.itemsize, dtype=dtype)
        views = [region.of(workspace) for region in regions]
        for place, view in enumerate(views):
            view.fill_(place + 1)
        for place, (view, (kind, *shape)) in enumerate(zip(views, forms, strict=True)):
            assert (view.dtype, view.shape) == (kind, tuple(shape))
            assert (view == place + 1).all()
            assert (view.data_ptr() - workspace.data_ptr()) % ALIGNMENT == 0
