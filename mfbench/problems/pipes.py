"""Names of pipes, for records and messages: a number of a file descriptor would tell nothing."""

from __future__ import annotations

import re

DESCRIPTOR = re.compile(r"/(?:dev|proc/(?:self|thread-self|\d+))/fd/(\d+)(?=#|$)")
STDIN = re.compile(r"/dev/stdin(?=#|$)")


def shown(data: str) -> str:
    """Return `<stdin>` or `<pipe>` in place of the path of an open file, and anything else unchanged.

    Args:
        data: a path, perhaps with the options of `datasets.with_options`.
    """
    if found := STDIN.match(data):
        return "<stdin>" + data[found.end() :]
    if found := DESCRIPTOR.match(data):
        return ("<stdin>" if found[1] == "0" else "<pipe>") + data[found.end() :]
    return data
