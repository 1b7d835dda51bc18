"""Find the columns of users, items and ratings by their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from mfbench.errors import UsageError
from mfbench.problems.ratings.errors import Ambiguous, BadData

ROLES = ("user", "item", "rating")
SKIPPED = ("_", "time", "timestamp")  # what --columns may call a column that is not used
# Names in small letters, without punctuation and RecBole's types
KNOWN = {
    "user": {
        "user", "users", "userid", "uid", "userno", "member", "memberid", "customer", "customerid", "custid",
        "reviewer", "reviewerid", "rater", "raterid", "person", "personid",
    },
    "item": {
        "item", "items", "itemid", "iid", "itemno", "movie", "movieid", "film", "filmid", "book", "bookid", "isbn",
        "product", "productid", "asin", "parentasin", "artist", "artistid", "song", "songid", "track", "trackid",
        "joke", "jokeid", "anime", "animeid", "business", "businessid", "game", "gameid", "recipe", "recipeid",
    },
    "rating": {
        "rating", "ratings", "rate", "score", "scores", "stars", "starrating", "overall", "value", "weight",
        "bookrating", "movierating", "userrating", "reviewrating", "reviewscore", "reviewoverall",
    },
}  # fmt: skip
INTER_TYPE = re.compile(r":(token|token_seq|float|float_seq)$")


class Columns(NamedTuple):
    """Positions, from 0, of the three columns that are read."""

    user: int
    item: int
    rating: int


def normalized(name: str) -> str:
    """Return a column's name as `KNOWN` has it."""
    return re.sub(r"[\W_]", "", INTER_TYPE.sub("", name.strip().lower()))


def roles_of(names: Sequence[str]) -> dict[str, list[int]]:
    """Return the columns whose names stand for each role."""
    plain = [normalized(name) for name in names]
    return {role: [i for i, name in enumerate(plain) if name in KNOWN[role]] for role in ROLES}


def by_name(names: Sequence[str], columns: Sequence[str] | None) -> Columns:
    """Return the three columns from their names, or from three of the names in the order user, item, rating.

    Raises:
        BadData: a role fits none of the names.
        Ambiguous: a role fits several.
    """
    if columns is not None:
        return _chosen(names, columns)
    found = roles_of(names)
    several = {role: at for role, at in found.items() if len(at) > 1}
    missing = [role for role in ROLES if not found[role]]
    if several:
        readings = "; ".join(
            f"{role} may be {' or '.join(repr(names[i].strip()) for i in at)}" for role, at in several.items()
        )
        raise Ambiguous(f"more than one reading: {readings}; {_advice()}")
    if missing:
        raise BadData(f"found no {' and no '.join(missing)} among the columns {shown(names)}; {_advice()}")
    return Columns(*(found[role][0] for role in ROLES))


def _chosen(names: Sequence[str], columns: Sequence[str]) -> Columns:
    exact = [name.strip() for name in names]
    bare = [INTER_TYPE.sub("", name) for name in exact]
    places = []
    for column in columns:
        at = [i for i, name in enumerate(exact) if name == column] or [i for i, n in enumerate(bare) if n == column]
        if len(at) != 1:
            raise BadData(f"{'more than one' if at else 'no'} column {column!r} among {shown(names)}", "columns")
        places += at
    return Columns(*places)


def by_position(columns: Sequence[str], count: int) -> Columns | None:
    """Return the three columns from their numbers, or from what each column holds; None where neither is given.

    Args:
        columns: three numbers from 1 in the order user, item, rating; or `user`, `item` and `rating` in the order of
            the file's columns, with `_` for one that is not used.
        count: columns of the file.
    """
    if len(columns) == 3 and all(column.isdecimal() and 1 <= int(column) <= count for column in columns):
        return Columns(*(int(column) - 1 for column in columns))
    once = len(columns) <= count and all(columns.count(role) == 1 for role in ROLES)
    if once and all(column in (*ROLES, *SKIPPED) for column in columns):
        return Columns(*(columns.index(role) for role in ROLES))
    return None


def parse(columns: str | Sequence[str] | None) -> list[str] | None:
    """Return the names of `--columns` one by one.

    Raises:
        UsageError: fewer than three, or the same one twice.
    """
    if columns is None:
        return None
    names = [name.strip() for name in (columns.split(",") if isinstance(columns, str) else columns)]
    used = [name for name in names if name not in SKIPPED]
    if len(used) < 3 or len(set(used)) < len(used):
        message = f"expected user,item,rating, or the names of these columns, got {','.join(names)!r}"
        raise UsageError(message, code="bad-value", argument="columns")
    return names


def shown(names: Sequence[str]) -> str:
    """Return the names of a file's columns as a message shows them."""
    return ", ".join(repr(name.strip()) for name in names[:12]) + (", ..." if len(names) > 12 else "")


def _advice() -> str:
    return "--columns USER,ITEM,RATING names the three"
