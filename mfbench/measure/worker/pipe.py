"""Messages over a pipe: the token of the request, a length, a pickle.

Provider code shares the worker's process and can write into its pipe. Bytes that do not begin with the token are not
unpickled, and no read takes longer than its time limit.
"""

from __future__ import annotations

import os
import pickle
import struct
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any

from mfbench.correctness.audit.tokens import TOKEN_BYTES

LENGTH = struct.Struct("<Q")
HEADER_BYTES = TOKEN_BYTES + LENGTH.size
POLL_S = 0.2  # between checks that the other side is alive
CHUNK_BYTES = 1 << 20


class GarbledPipe(Exception):
    """The message does not answer the request: somebody else wrote into the pipe."""


def send(descriptor: int, token: bytes, message: Any) -> None:
    """Write a whole message."""
    content = pickle.dumps(message)
    left = memoryview(token + LENGTH.pack(len(content)) + content)
    while left:
        left = left[os.write(descriptor, left) :]


def receive(descriptor: int) -> tuple[bytes, Any]:
    """Wait for the next message; return its token and content.

    Raises:
        EOFError: the other side closed the pipe.
    """
    token, length = _split(_read(descriptor, HEADER_BYTES, lambda: None))
    return token, pickle.loads(_read(descriptor, length, lambda: None))


def receive_answer(descriptor: int, token: bytes, limit_s: float, alive: Callable[[], bool]) -> Any:
    """Wait for the message with that token; return its content.

    Args:
        descriptor: end of the pipe.
        token: of the request.
        limit_s: seconds to wait for the whole message.
        alive: whether the process at the other end lives.

    Raises:
        EOFError: the other side is gone.
        TimeoutError: the message is not complete within the limit.
        GarbledPipe: the message has another token.
    """
    deadline = time.monotonic() + limit_s

    def wait_for_bytes() -> None:
        while not wait([descriptor], min(POLL_S, max(0.0, deadline - time.monotonic()))):
            if not alive() and not wait([descriptor], 0):  # a child process may still hold the pipe open
                raise EOFError
            if time.monotonic() >= deadline:
                raise TimeoutError

    found, length = _split(_read(descriptor, HEADER_BYTES, wait_for_bytes))
    if found != token:
        raise GarbledPipe
    return pickle.loads(_read(descriptor, length, wait_for_bytes))


def _split(header: bytes) -> tuple[bytes, int]:
    return header[:TOKEN_BYTES], LENGTH.unpack(header[TOKEN_BYTES:])[0]


def _read(descriptor: int, length: int, wait_for_bytes: Callable[[], None]) -> bytes:
    content = bytearray()
    while len(content) < length:
        wait_for_bytes()
        part = os.read(descriptor, min(CHUNK_BYTES, length - len(content)))
        if not part:
            raise EOFError
        content += part
    return bytes(content)
