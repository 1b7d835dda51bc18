"""Messages over a pipe: whole ones arrive, others' bytes are refused unread, nothing waits beyond its limit."""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Iterator

import pytest

from mfbench.measure.worker import pipe
from mfbench.measure.worker.pipe import GarbledPipe, receive, receive_answer, send

TOKEN, OTHER = bytes(range(16)), bytes(16)
LIMIT_S = 20.0


@pytest.fixture
def ends() -> Iterator[tuple[int, int]]:
    """The ends of a pipe for reading and writing."""
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        try:
            os.close(descriptor)
        except OSError:  # the test closed it
            continue


def alive() -> bool:
    return True


class Bomb:
    """Unpickling it fails the test."""

    def __reduce__(self) -> tuple:
        return pytest.fail, ("unpickled",)


@pytest.mark.parametrize("message", [None, ("ok", [1.5, "µ"]), b"x" * 3_000_000], ids=["none", "tuple", "3 MB"])
def test_messages_of_any_length_arrive_whole(ends: tuple[int, int], message: object) -> None:
    reader, writer = ends
    sender = threading.Thread(target=send, args=(writer, TOKEN, message))  # 3 MB exceed a pipe's buffer
    sender.start()
    assert receive_answer(reader, TOKEN, LIMIT_S, alive) == message
    sender.join()


def test_requests_come_with_their_token(ends: tuple[int, int]) -> None:
    reader, writer = ends
    send(writer, TOKEN, "first")
    send(writer, OTHER, "second")
    assert receive(reader) == (TOKEN, "first")
    assert receive(reader) == (OTHER, "second")


def test_an_answer_with_another_token_is_refused_unread(ends: tuple[int, int]) -> None:
    reader, writer = ends
    send(writer, OTHER, Bomb())
    with pytest.raises(GarbledPipe):
        receive_answer(reader, TOKEN, LIMIT_S, alive)


def test_half_a_message_times_out(ends: tuple[int, int]) -> None:
    reader, writer = ends
    content = pickle.dumps("whole")
    os.write(writer, TOKEN + pipe.LENGTH.pack(len(content)) + content[:-1])
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        receive_answer(reader, TOKEN, 0.1, alive)
    assert time.monotonic() - start < LIMIT_S / 2


@pytest.mark.parametrize("sent", [b"", TOKEN, TOKEN + pipe.LENGTH.pack(100) + b"torn"])
def test_a_closed_pipe_is_the_end(ends: tuple[int, int], sent: bytes) -> None:
    reader, writer = ends
    os.write(writer, sent)
    os.close(writer)
    with pytest.raises(EOFError):
        receive_answer(reader, TOKEN, LIMIT_S, alive)
    with pytest.raises(EOFError):
        receive(reader)


def test_a_dead_process_ends_the_wait_though_a_child_keeps_the_pipe_open(ends: tuple[int, int]) -> None:
    reader, _ = ends
    start = time.monotonic()
    with pytest.raises(EOFError):
        receive_answer(reader, TOKEN, LIMIT_S, lambda: False)
    assert time.monotonic() - start < LIMIT_S / 2


def test_the_answer_of_a_process_that_has_ended_is_read(ends: tuple[int, int]) -> None:
    reader, writer = ends
    send(writer, TOKEN, "last words")
    assert receive_answer(reader, TOKEN, LIMIT_S, lambda: False) == "last words"
