"""Errors that end a command with one line and an exit code, each with a stable code that programs can rely on."""

from __future__ import annotations

CODES = {
    # Arguments and options
    "bad-usage": "the command line cannot be parsed",
    "bad-value": "an option's value has the wrong type or is out of range",
    "bad-size": "a size is not MxN, is too large, or is not wanted here",
    "bad-axis": "a property of a case has the wrong type or is out of range",
    "bad-device": "no such kind of device, or not allowed here",
    "bad-provider": "not a provider's name, or a provider that cannot be used here",
    "bad-baseline": "a baseline that cannot be used here",
    "bad-number": "a number is out of range",
    "bad-optimizer": "no such optimizer",
    "bad-build": "no such target, rank, precision, encoding or mode of a compiled build",
    "bad-format": "a file name that says no known format",
    "too-many": "a command takes one value, and several were given",
    # Names that do not exist
    "no-such-suite": "no suite of this name",
    "no-such-axis": "no such property of a case",
    "no-such-provider": "no provider of this name, or no such file",
    "no-such-function": "the provider's file has no such function",
    "no-such-data": "no data set or file of this name",
    "no-such-figure": "the report has no figure of this name",
    "no-such-revision": "git knows no such revision",
    "no-such-device": "this machine has no such device",
    # Files
    "bad-name": "a file's name is not valid UTF-8",
    "unreadable-file": "a file cannot be opened or read",
    "unwritable-file": "a file or folder cannot be written",
    "unwritable-output": "standard output is closed or full",
    "same-file": "the output would overwrite an input, or another run",
    "not-toml": "a suite file is not TOML",
    "bad-suite": "a suite file has a wrong or missing field",
    "bad-records": "a file holds something other than records",
    "bad-inspection": "a file is not the output of `mfbench inspect --json`",
    "bad-data": "a file of ratings cannot be understood",
    "ambiguous-data": "a file of ratings can be read in more than one way",
    "data-too-large": "the ratings do not fit into memory",
    # Providers
    "provider-load-failed": "a provider's file raised an error or crashed when it was loaded",
    "provider-failed": "a provider raised an error or returned something unusable",
    # Runs
    "no-cases": "the suite has no case left after the options were applied",
    "different-run": "--resume: the run to continue was started with other options, on other data or elsewhere",
    "diverged": "the learning rate given with `--lr` is too large",
    "bad-loss": "the loss is not finite at the start, or training diverges at every learning rate tried",
    "nothing-to-draw": "the records hold nothing for this figure",
    # This machine
    "out-of-memory": "this process needs more memory than is free, or than its limit allows",
    "missing-package": "an optional package is not installed",
    "missing-data": "the installed package lacks the data set, or has another version of it",
    "foreign-package": "another project's package shadows one of ours",
    "no-git": "git cannot be run",
    "foreign-owner": "git refuses a repository that another user owns",
    "not-a-repository": "a file or the project lies in no git repository",
    # Measurements that cannot be compared (exit code 4)
    "not-comparable": "two measurements cannot be compared",
    "different-kind": "records and another tool's results",
    "different-schema": "records of a schema that this version does not read",
    "different-environment": "measured on another machine or with other versions",
    "not-in-revision": "the revision lacks the kernels or the provider's file",
    "revision-load-failed": "this harness cannot load the revision's kernels",
    "nothing-timed": "no case was timed on both sides",
    "missing-cases": "the new side lacks cases of the base",
    # Reports (exit code 4)
    "nothing-to-show": "no file holds anything that a report can show",
}
"""Every code with its meaning. A code keeps its meaning; messages may be reworded."""


class MfbenchError(Exception):
    """Base of the errors below.

    Attributes:
        message: what came and what was expected.
        argument: the Python argument at fault, or None; the command line shows `ratings_dtype` as `--ratings-dtype`.
        code: a key of `CODES`.
        exit_code: of a command that ends with this error.
    """

    code = "bad-usage"
    exit_code = 2

    def __init__(self, message: str, *, code: str | None = None, argument: str | None = None) -> None:
        super().__init__(message if argument is None else f"{argument}: {message}")
        self.message, self.argument = message, argument
        self.code = code or type(self).code

    @property
    def for_command_line(self) -> str:
        """The message, which begins with the option at fault and ends with the code in brackets."""
        option = "" if self.argument is None else f"--{self.argument.replace('_', '-')}: "
        return f"{option}{self.message} [{self.code}]"


class UsageError(MfbenchError):
    """Bad input from the user; the message names the argument, what came and what was expected."""


class DataUnavailable(MfbenchError):
    """A data set that is not installed here; the message says how to get it."""

    code = "missing-data"


class NotComparable(MfbenchError):
    """Two measurements that say nothing about each other; the message says why."""

    code = "not-comparable"
    exit_code = 4

    @property
    def for_command_line(self) -> str:
        return f"not comparable: {super().for_command_line}"


class NothingToShow(MfbenchError):
    """Files without anything that a report can show; the message says what they hold."""

    code = "nothing-to-show"
    exit_code = 4
