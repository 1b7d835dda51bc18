#!/usr/bin/env bash
# PyTorch 2.13.0: pickle refuses a tensor of uint16, uint32 or uint64 that torch.save and copy.deepcopy take.
#
# Expected: pickle.dumps returns bytes from which pickle.loads makes the tensor again, as for every other dtype: a tensor
#           defines __reduce_ex__ for this, and the documentation of torch.save says that it pickles tensors itself
#           ("Uses Python's pickle utility for serialization").
# Seen:     AttributeError: type object 'torch.storage.UntypedStorage' has no attribute 'dtype', for these three dtypes
#           alone; uint8 and the signed ones work. torch.save writes them, since it handles storages without going through
#           their own __reduce__. Who keeps indices in uint16 meets this where objects are pickled for him: in an argument
#           of a concurrent.futures or multiprocessing worker with plain pickle, or in a cache on disk. With PyTorch
#           2.13.0 on Python 3.11, 2026-11-29.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv env
env/bin/pip install -q torch==2.13.0 numpy==2.4.6

cat > dtypes.py <<'PY'
import copy
import io
import pickle

import torch


def saved(tensor):
    file = io.BytesIO()
    torch.save(tensor, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


WAYS = {
    "pickle": lambda tensor: pickle.loads(pickle.dumps(tensor)),
    "torch.save": saved,
    "deepcopy": copy.deepcopy,
}
for dtype in (torch.uint8, torch.int16, torch.uint16, torch.uint32, torch.uint64):
    tensor = torch.arange(5).to(dtype)
    for name, way in WAYS.items():
        try:
            result = "the same" if way(tensor).tolist() == tensor.tolist() else "another tensor"
        except Exception as error:
            result = f"{type(error).__name__}: {error}"
        print(f"{dtype} by {name}: {result}")
PY
env/bin/python dtypes.py | tee seen
echo "expected: the same, for every dtype and way"
for dtype in uint16 uint32 uint64; do
    grep -q "torch.$dtype by pickle: AttributeError" seen && grep -q "torch.$dtype by torch.save: the same" seen ||
        { echo "the finding no longer holds"; exit 1; }
done
grep -q "torch.uint8 by pickle: the same" seen || { echo "the finding could not be observed"; exit 1; }
