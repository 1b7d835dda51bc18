"""Blocks of PTX in braces, as inline assembly has them: what they declare gets a unique name in the function."""

from __future__ import annotations

import re
from itertools import count

_INNERMOST = re.compile(r"(?<=[;{\n])\s*(\{(?:[^{};]*\{[^{};]*\}[^{};]*;|[^{};]*;)+[^{};]*\})")
_LABELS = re.compile(r"(?:^|[\n{;])\s*([\w$]+):(?!:)")
_DECLARED = re.compile(r"\.reg\s+\.\w+\s+([^;]*);")


def unscoped(body: str) -> str:
    """Return the body of a function without such blocks; lines stay where they are."""
    numbers = count()
    while block := _INNERMOST.search(body):
        body = body[: block.start(1)] + _renamed(block[1][1:-1], next(numbers)) + body[block.end(1) :]
    return body


def _renamed(block: str, number: int) -> str:
    names = {name: f"{name}${number}" for name in _LABELS.findall(block)}
    for declared in _DECLARED.findall(block):
        for name in (name.strip() for name in declared.split(",")):
            if "<" not in name:
                names[name] = f"%{name.lstrip('%')}${number}"
    for name, unique in names.items():
        block = re.sub(rf"(?<![\w$%.]){re.escape(name)}(?![\w$])", unique.replace("\\", ""), block)
    return block
