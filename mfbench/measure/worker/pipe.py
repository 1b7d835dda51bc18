"""Messages over a pipe: the token of the request that they answer, a length, a pickle.

Whoever shares the process of the other end can write into the pipe. What does not begin with the token is no message
and is not unpickled, and no reading takes longer than it was allowed.
"""

from __future__ import annotations

import os
import pickle
import secrets
import struct
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any

TOKEN_BYTES = 16
LENGTH = struct.Struct("<Q")
HEADER_BYTES = TOKEN_BYTES + LENGTH.size
LOOK_S = 0.2  # between looks at whether the other side lives
CHUNK_BYTES = 1 << 20


class GarbledPipe(Exception):
    """Somebody else wrote into the pipe."""


def new_token() -> bytes:
    return secrets.token_bytes(TOKEN_BYTES)


def send(descriptor: int, token: bytes, message: Any) -> None:
    """Write a message whole."""
    content = pickle.dumps(message)
    left = memoryview(token + LENGTH.pack(len(content)) + content)
    while left:
        left = left[os.write(descriptor, left) :]


def receive(descriptor: int) -> tuple[bytes, Any]:
    """The next message and its token, whenever it comes.

    Raises:
        EOFError: the other side closed the pipe.
    """
    token, length = _split(_read(descriptor, HEADER_BYTES, lambda: None))
    return token, pickle.loads(_read(descriptor, length, lambda: None))


def receive_answer(descriptor: int, token: bytes, limit_s: float, alive: Callable[[], bool]) -> Any:
    """The message with that token.

    Raises:
        EOFError: the other side is gone.
        TimeoutError: it did not come, or not whole.
        GarbledPipe: something else did.
    """
    end = time.monotonic() + limit_s

    def wait_a_moment() -> None:
        while not wait([descriptor], min(LOOK_S, max(0.0, end - time.monotonic()))):
            if not alive() and not wait([descriptor], 0):  # a child of it may keep the pipe open
                raise EOFError
            if time.monotonic() >= end:
                raise TimeoutError

    found, length = _split(_read(descriptor, HEADER_BYTES, wait_a_moment))
    if found != token:
        raise GarbledPipe
    return pickle.loads(_read(descriptor, length, wait_a_moment))


def _split(header: bytes) -> tuple[bytes, int]:
    return header[:TOKEN_BYTES], LENGTH.unpack(header[TOKEN_BYTES:])[0]


def _read(descriptor: int, length: int, wait_a_moment: Callable[[], None]) -> bytes:
    content = bytearray()
    while len(content) < length:
        wait_a_moment()
        part = os.read(descriptor, min(CHUNK_BYTES, length - len(content)))
        if not part:
            raise EOFError
        content += part
    return bytes(content)
