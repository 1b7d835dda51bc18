"""Disassemble the kernels of many cubins at once: nvdisasm takes most of its time to start, whatever it reads."""

from __future__ import annotations

import re
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

_SECTION = "<IIQQQQIIQQ"  # of an ELF file: name, type, flags, address, offset, size, ...
_INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]+)\*/(\s.*)$", re.MULTILINE)
_BRANCH = re.compile(r"(\bBRA\b[^;&]*?)\b0x([0-9a-f]+)")  # & begins what the scheduler waits for


def disassemble(cubins: Sequence[bytes], target: str) -> list[str]:
    """Return the instructions of each cubin, as `nvdisasm -c` prints them: branches go to labels.

    Args:
        cubins: of one kernel each.
        target: such as "sm_90".

    Raises:
        ValueError: a cubin has no kernel, or more than one.
    """
    if not cubins:
        return []
    codes = [_code(cubin) for cubin in cubins]
    rows = [(int(address, 16), text) for address, text in _INSTRUCTION.findall(_raw(b"".join(codes), target))]
    kernels = pairwise(accumulate(map(len, codes), initial=0))
    return ["\n".join(_labelled([row for row in rows if begin <= row[0] < end])) for begin, end in kernels]


def _code(cubin: bytes) -> bytes:
    """Return the machine code of a cubin's kernel."""
    (sections,) = struct.unpack_from("<Q", cubin, 40)
    number, names = struct.unpack_from("<2H", cubin, 60)
    each = struct.calcsize(_SECTION)
    headers = [struct.unpack_from(_SECTION, cubin, sections + each * at) for at in range(number)]
    names_offset = headers[names][4]
    found = [
        cubin[offset : offset + size]
        for name, _, _, _, offset, size, *_ in headers
        if cubin.startswith(b".text.", names_offset + name)
    ]
    if len(found) != 1:
        raise ValueError(f"cubin: expected one kernel, found {len(found)}")
    return found[0]


def _raw(code: bytes, target: str) -> str:
    """Return what nvdisasm prints for machine code: branches go to addresses."""
    from triton import knobs

    with tempfile.NamedTemporaryFile(suffix=".bin") as file:
        file.write(code)
        file.flush()
        command = [knobs.nvidia.nvdisasm.path, "--binary", target.replace("sm_", "SM"), file.name]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _labelled(rows: list[tuple[int, str]]) -> Iterator[str]:
    """Yield the lines of a kernel, the targets of its branches as labels."""
    targets = {int(found[2], 16) for _, text in rows if (found := _BRANCH.search(text))}
    for address, text in rows:
        if address in targets:
            yield f".L_x_{address}:"
        branch = _BRANCH.sub(lambda found: f"{found[1]}`(.L_x_{int(found[2], 16)})", text)
        yield f"        /*{address:04x}*/{branch}"
