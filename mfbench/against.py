"""Another revision of this project beside the present one: its kernels, measured by this harness."""

from __future__ import annotations

import contextlib
import io
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mfbench.errors import NotComparable, UsageError
from mfbench.records import Record

ROOT = Path(__file__).resolve().parent.parent
MEASURED = ("kernels", "reference")  # the harness itself is this checkout's on both sides
OWN = ("closed-form",)  # providers that are part of the harness


class Checkout(NamedTuple):
    """What is measured of another revision, unpacked into a folder."""

    revision: str  # as the user named it
    commit: str
    folder: Path

    def name(self, provider: str) -> str:
        """How a provider of that revision is called in records."""
        return f"{provider}@{self.revision}"

    def provider(self, name: str) -> str | None:
        """The provider that is called so; None where the name is of the present checkout."""
        return name.removesuffix(f"@{self.revision}") if name.endswith(f"@{self.revision}") else None

    def stamped(self, record: Record) -> Record:
        """The record with the commit that its provider was taken from."""
        if self.provider(record.provider) is None:
            return record
        return record.model_copy(update={"env": record.env | {"commit": self.commit, "dirty": False}})

    def complete(self, records: Sequence[Record]) -> list[Record]:
        """Records that have their other side: a side that is alone has to be measured again, in the same rounds."""
        keys = {record.key for record in records}
        return [
            record
            for record in records
            if (record.case, self.provider(record.provider) or self.name(record.provider), record.device) in keys
        ]

    def check_resumed(self, records: Sequence[Record]) -> None:
        """Whether an earlier part of the run was against the same commit.

        Raises:
            UsageError: the name stood for another then.
        """
        for record in records:
            if self.provider(record.provider) is not None and record.env.get("commit") != self.commit:
                raise UsageError(
                    f"--resume: {self.revision} is commit {self.commit[:12]}, and was "
                    f"{str(record.env.get('commit'))[:12]} when the run began"
                )


@contextlib.contextmanager
def checkout(revision: str) -> Iterator[Checkout]:
    """The revision in a temporary folder, which is removed afterwards. The repository is only read.

    Raises:
        UsageError: this is no git checkout, or it has no such revision.
        NotComparable: the revision has no kernels to measure.
    """
    if not (ROOT / ".git").exists():
        raise UsageError(f"--against: expected a git checkout of the project, and {ROOT} is none")
    resolved = _git("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    if resolved.returncode:
        raise UsageError(f"--against: no revision {revision!r} in {ROOT}: {_last_line(resolved.stderr)}")
    commit = resolved.stdout.decode().strip()
    packed = _git("archive", "--format=zip", commit, *MEASURED)
    if packed.returncode:
        raise NotComparable(f"--against: {revision} cannot be unpacked: {_last_line(packed.stderr)}")
    with tempfile.TemporaryDirectory(prefix="mfbench-against-") as folder:
        with zipfile.ZipFile(io.BytesIO(packed.stdout)) as archive:
            archive.extractall(folder)
        yield Checkout(revision, commit, Path(folder))


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, check=False)
    except OSError as error:
        raise UsageError(f"--against: git cannot be run: {error.strerror}") from None


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "git gives no reason"
