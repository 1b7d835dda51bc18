"""What the user did or has that stops a command: one readable line, exit code 2."""


class UsageError(Exception):
    """Bad input from the user; the message names the argument, what came and what was expected."""


class DataUnavailable(Exception):
    """A data set that is not installed here; the message says how to get it."""


class NotComparable(Exception):
    """Two measurements that say nothing about each other; the message says why. Exit code 4."""
