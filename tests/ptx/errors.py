"""What can go wrong when PTX executes, each with the line of PTX that did it."""

from __future__ import annotations


class PTXError(Exception):
    """An instruction that cannot execute; the message ends with its line number and text."""

    def __init__(self, message: str, line: int, text: str) -> None:
        super().__init__(f"{message}\n  PTX line {line}: {text}")
        self.line = line


class Unsupported(PTXError):
    """An instruction, modifier or operand that this interpreter does not know."""


class OutOfBounds(PTXError):
    """A thread touched bytes that belong to no argument, or lie outside shared, local or parameter memory."""


class Misaligned(PTXError):
    """An address that is not a multiple of the access's width; hardware faults on it."""


class Diverged(PTXError):
    """A warp-wide instruction or a barrier that some of the threads it needs never reach together."""


class InFlight(PTXError):
    """A register that a pending asynchronous instruction uses."""


class Unfenced(PTXError):
    """An asynchronous instruction without the fence that orders it after other uses of its registers."""


class Misused(PTXError):
    """An mbarrier or tensor memory used before it is set up, after it is given back, or by the wrong warp."""


class Endless(PTXError):
    """More instructions than the limit: a loop that does not end."""
