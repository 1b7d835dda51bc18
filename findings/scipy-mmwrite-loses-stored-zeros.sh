#!/usr/bin/env bash
# SciPy 1.17.1: mmwrite drops a stored zero of a small square sparse matrix, or makes two of it.
#
# Expected: mmread gives back the entries that mmwrite was given, because SciPy keeps explicit zeros of a sparse array as
#           stored entries (the guide to sparse arrays, "Sparse arrays, implicit zeros, and duplicates", tells stored from
#           implicit zeros and has eliminate_zeros to drop them), and the MatrixMarket coordinate format can hold them. For
#           symmetry="AUTO", the default, the documentation says only that the symmetry type is either determined or set
#           to 'general'.
# Seen:     symmetry is judged by values, to which a stored zero equals an absent one. A matrix whose only entries off the
#           diagonal are stored zeros becomes "symmetric": above the diagonal the zero is not written at all; below it, it
#           comes back twice, mirrored. With symmetry="general" both survive. A matrix of ratings with a rating of 0 loses
#           or gains one. With SciPy 1.17.1, NumPy 2.4.6 on Python 3.11, 2026-11-28.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv env
env/bin/pip install -q scipy==1.17.1 numpy==2.4.6

cat > zeros.py <<'PY'
import io

import scipy.io
import scipy.sparse


def back(row, column, **options):
    matrix = scipy.sparse.coo_array(([0.0, 5.0], ([row, 2], [column, 2])), shape=(3, 3))
    file = io.BytesIO()
    scipy.io.mmwrite(file, matrix, **options)
    file.seek(0)
    read = scipy.io.mmread(file, spmatrix=False)
    return sorted((int(i), int(j), float(v)) for i, j, v in zip(read.row, read.col, read.data))


print("stored zero above the diagonal:", back(0, 1))
print("stored zero below the diagonal:", back(1, 0))
print("above, symmetry='general':", back(0, 1, symmetry="general"))
PY
env/bin/python zeros.py | tee seen
echo "expected: [(0, 1, 0.0), (2, 2, 5.0)], then [(1, 0, 0.0), (2, 2, 5.0)], then the first again"
grep -qF "above the diagonal: [(2, 2, 5.0)]" seen &&
    grep -qF "below the diagonal: [(0, 1, 0.0), (1, 0, 0.0), (2, 2, 5.0)]" seen &&
    grep -qF "symmetry='general': [(0, 1, 0.0), (2, 2, 5.0)]" seen || { echo "the finding no longer holds"; exit 1; }
