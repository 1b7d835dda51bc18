"""PTX text as instructions: one `Kernel` an entry, operands as small objects, nothing executed."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

from .errors import Unsupported
from .scopes import unscoped


@dataclass(frozen=True)
class Register:
    name: str  # some special registers (%laneid) look like any other


@dataclass(frozen=True)
class Immediate:
    """A literal; `bits` are those of a float literal (0f, 0d), else the integer, negative ones included."""

    bits: int


@dataclass(frozen=True)
class Symbol:
    """A name that is no register: a label, a shared or local variable, a parameter, a special register (%tid.x)."""

    name: str


@dataclass(frozen=True)
class Vector:
    items: tuple[Operand | None, ...]  # None: the sink `_`


@dataclass(frozen=True)
class Address:
    base: Register | Symbol | Immediate
    offset: int


Operand = Register | Immediate | Symbol | Vector | Address


@dataclass(frozen=True)
class Instruction:
    line: int
    text: str
    opcode: str  # up to the first dot
    modifiers: tuple[str, ...]  # the rest, split at dots
    operands: tuple[Operand | None, ...]
    guard: str | None  # the predicate register of @p
    negated: bool  # @!p

    def unsupported(self, what: str) -> Unsupported:
        return Unsupported(f"{what} is not supported", self.line, self.text)


@dataclass
class Kernel:
    name: str
    parameters: dict[str, str]  # name -> type, in order
    widths: dict[str, int] = field(default_factory=dict)  # register -> bits (1: predicate)
    ranges: dict[str, int] = field(default_factory=dict)  # prefix of a numbered family -> bits
    variables: dict[str, tuple[str, int, int]] = field(default_factory=dict)  # name -> (space, alignment, bytes)
    labels: dict[str, int] = field(default_factory=dict)  # label -> index of the next instruction
    instructions: list[Instruction] = field(default_factory=list)

    def width(self, register: str) -> int:
        return self.widths.get(register) or self.ranges[register.rstrip("0123456789")]

    def declares(self, name: str) -> bool:
        return name in self.widths or name.rstrip("0123456789") in self.ranges


_ENTRY = re.compile(r"\.entry\s+([\w$.]+)\s*\(([^)]*)\)")
_PARAMETER = re.compile(r"\.param\s+\.(\w+)[^,]*?([\w$]+)\s*(?:,|$)")
_VARIABLE = re.compile(r"\.(shared|local)\s+(?:\.align\s+(\d+)\s+)?\.b8\s+([\w$]+)\[(\d*)\]")
_REGISTERS = re.compile(r"\.reg\s+\.(pred|[a-z]+(\d+))\s+(.*)")
_IGNORED = re.compile(r"\.(loc|file|pragma|section)\b")
_COMMENT = re.compile(r"//[^\n]*")
_LABEL = re.compile(r"([\w$%.]+):(?!:)\s*")
_NUMBER = re.compile(r"-?(?:0[xX][0-9a-fA-F]+|0[fFdD][0-9a-fA-F]{8,16}|\d+)U?")


def parse(ptx: str, entry: str | None = None) -> Kernel:
    """The named entry of a PTX module (the only one where `entry` is None)."""
    ptx = _COMMENT.sub("", ptx)
    found = {match[1]: match for match in _ENTRY.finditer(ptx)}
    if entry is None and len(found) != 1:
        raise ValueError(f"entry: expected a name, as the module has {sorted(found)}")
    name = entry or next(iter(found))
    if name not in found:
        raise ValueError(f"entry: expected one of {sorted(found)}, got {name!r}")
    match = found[name]
    kernel = Kernel(name, {p[2]: p[1] for p in _PARAMETER.finditer(match[2].replace("\n", " "))})
    for variable in _VARIABLE.finditer(ptx[: ptx.find(".entry")]):
        _declare_variable(kernel, variable)
    start = ptx.index("{", match.end()) + 1
    _parse_body(kernel, unscoped(_body(ptx, start)), first_line=ptx.count("\n", 0, start) + 1)
    return kernel


def _body(ptx: str, start: int) -> str:
    depth, at = 1, start
    for brace in re.finditer(r"[{}]", ptx[start:]):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            at = start + brace.start()
            break
    return ptx[start:at]


def _parse_body(kernel: Kernel, body: str, first_line: int) -> None:
    pending = ""
    for number, raw in enumerate(body.split("\n"), first_line):
        line = raw.strip()
        if not pending and _IGNORED.match(line):
            continue
        if not pending:
            line = _take_labels(kernel, line)
        *statements, pending = f"{pending} {line}".split(";")
        for statement in statements:
            _parse_statement(kernel, statement.strip(), number)
        pending = pending.strip()


def _take_labels(kernel: Kernel, text: str) -> str:
    while label := _LABEL.match(text):
        kernel.labels[label[1]] = len(kernel.instructions)
        text = text[label.end() :]
    return text


def _parse_statement(kernel: Kernel, text: str, line: int) -> None:
    text = _take_labels(kernel, text)
    if not text or _IGNORED.match(text):
        return
    if registers := _REGISTERS.match(text):
        _declare_registers(kernel, registers)
    elif variable := _VARIABLE.match(text):
        _declare_variable(kernel, variable)
    else:
        kernel.instructions.append(_parse_instruction(text, line))


def _declare_variable(kernel: Kernel, match: re.Match[str]) -> None:
    kernel.variables[match[3]] = (match[1], int(match[2] or 1), int(match[4] or 0))


def _declare_registers(kernel: Kernel, match: re.Match[str]) -> None:
    bits = int(match[2] or 1)
    for name in match[3].split(","):
        family = re.fullmatch(r"\s*([\w%$]+)<\d+>\s*", name)
        if family:
            kernel.ranges[family[1]] = bits
        else:
            kernel.widths[name.strip()] = bits


@lru_cache(maxsize=1 << 16)  # texts that differ in one line share all other instructions
def _parse_instruction(text: str, line: int) -> Instruction:
    match = re.fullmatch(r"(?:@(!?)([\w%$]+)\s+)?([a-z][\w.:]*)\s*(.*)", text, re.DOTALL)
    if match is None:
        raise Unsupported("this statement is not supported", line, text)
    opcode, *modifiers = match[3].split(".")
    try:
        operands = tuple(_parse_operand(item) for item in _split(match[4]))
    except ValueError as error:
        raise Unsupported(f"operand {error} is not supported", line, text) from None
    return Instruction(line, " ".join(text.split()), opcode, tuple(modifiers), operands, match[2], match[1] == "!")


def _split(text: str) -> list[str]:
    """Operands at the commas outside braces and brackets."""
    items, depth, start = [], 0, 0
    for at, character in enumerate(text):
        depth += (character in "{[") - (character in "}]")
        if character == "," and depth == 0:
            items.append(text[start:at])
            start = at + 1
    items.append(text[start:])
    return [item.strip() for item in items if item.strip()]


def _parse_operand(text: str) -> Operand | None:
    if text == "_":
        return None
    if text.startswith("{"):
        return Vector(tuple(_parse_operand(item) for item in _split(text.strip("{}"))))
    if text.startswith("["):
        base, sign, offset = re.fullmatch(r"\[\s*([^\s+\-\]]+)\s*([+-]?)\s*(\S*?)\s*\]", text).groups()
        return Address(_parse_operand(base), int(sign + (offset or "0"), 0))
    if "|" in text:  # two results, as in setp p|q and shfl d|p
        return Vector(tuple(_parse_operand(item.strip()) for item in text.split("|")))
    if _NUMBER.fullmatch(text):
        return Immediate(_literal(text.rstrip("U")))
    if re.fullmatch(r"%[\w$]+", text):
        return Register(text)
    if re.fullmatch(r"[\w$%.]+", text):
        return Symbol(text)
    raise ValueError(repr(text))


def _literal(text: str) -> int:
    return int(text[2:], 16) if text[:2].lower() in ("0f", "0d") else int(text, 0)
