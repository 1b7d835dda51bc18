"""Read a file of ratings, whatever wrote it, into a sparse matrix."""

from __future__ import annotations

from mfbench.problems.ratings.left_out import DataWarning
from mfbench.problems.ratings.reader import load_ratings
from mfbench.problems.ratings.triplets import RatingMatrix

__all__ = ["DataWarning", "RatingMatrix", "load_ratings"]
