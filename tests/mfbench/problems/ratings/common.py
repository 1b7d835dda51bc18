"""Reading in tests: the ratings as a dict, and the warnings."""

import warnings
from pathlib import Path

from mfbench.problems.ratings import DataWarning, RatingMatrix, load_ratings


def read(path, **options) -> tuple[dict, list[str]]:
    """Return {(user, item): rating} and the messages of the warnings, without the file's name."""
    matrix, said = load(path, **options)
    return as_dict(matrix), said


def load(path, **options) -> tuple[RatingMatrix, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        matrix = load_ratings(path, **options)
    assert all(warning.category is DataWarning for warning in caught), [str(warning.message) for warning in caught]
    return matrix, [str(warning.message).removeprefix(f"{path}: ") for warning in caught]


def as_dict(matrix: RatingMatrix) -> dict:
    ratings = matrix.ratings
    assert ratings.shape == (len(matrix.users), len(matrix.items))
    starts, columns = ratings.crow_indices().tolist(), ratings.col_indices().tolist()
    found = {}
    for row, user in enumerate(matrix.users):
        in_row = columns[starts[row] : starts[row + 1]]
        assert in_row == sorted(set(in_row))
        for place, column in enumerate(in_row, starts[row]):
            found[user, matrix.items[column]] = float(ratings.values()[place])
    return found


def write(folder: Path, content: str | bytes, name: str = "ratings") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path
