"""What makes a rating file unreadable. `load_ratings` adds the file's name and raises these as a `UsageError`."""

from __future__ import annotations


class BadData(Exception):
    """A file without ratings, or in another form than expected; `argument` is the one at fault."""

    code = "bad-data"

    def __init__(self, message: str, argument: str = "data") -> None:
        super().__init__(message)
        self.argument = argument


class Ambiguous(BadData):
    """A file that can be read in more than one way; the message lists the readings and how to choose one."""

    code = "ambiguous-data"
