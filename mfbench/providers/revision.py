"""Another revision beside the present one, of this project's kernels or of a user's files, measured by this harness."""

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
from mfbench.installation import MEASURED, ROOT
from mfbench.results.records import Record

DIGITS = 12  # of a commit's name
OWN = ("closed-form",)  # providers that are part of the harness


class Checkout(NamedTuple):
    """What is measured of another revision, unpacked into a folder."""

    revision: str  # as the user named it; of a whole commit's name the first digits
    commit: str
    folder: Path
    repository: Path | None = None  # of the user, where the providers are files in it

    def name(self, provider: str) -> str:
        """How a provider of that revision is called in records."""
        return f"{provider}@{self.revision}"

    def provider(self, name: str) -> str | None:
        """The provider that is called so; None where the name is of the present checkout."""
        return name.removesuffix(f"@{self.revision}") if name.endswith(f"@{self.revision}") else None

    def location(self, provider: str) -> str:
        """Where a provider of that revision is loaded from."""
        if self.repository is None:
            return provider
        path, _, function = provider.rpartition(":")
        return f"{self.folder / Path(path).resolve().relative_to(self.repository)}:{function}"

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
                    f"--resume: {self.revision} is commit {self.commit[:DIGITS]}, and was "
                    f"{str(record.env.get('commit'))[:DIGITS]} when the run began"
                )


@contextlib.contextmanager
def checkout(revision: str, providers: Sequence[str] = ()) -> Iterator[Checkout]:
    """The revision in a temporary folder, which is removed afterwards. The repository is only read.

    Of providers that are files, it is the revision of their own repository, which is unpacked whole.

    Raises:
        UsageError: this is no git checkout, it has no such revision, or files and named providers are mixed.
        NotComparable: the revision has no kernels to measure, or a file is not in it.
    """
    repository = _repository_of([name.rpartition(":")[0] for name in providers if ".py:" in name])
    if repository and not all(".py:" in name for name in providers):
        raise UsageError("--provider: with --against either files or names, since their revisions are not the same")
    if repository is None and not (ROOT / ".git").exists():
        raise UsageError(f"--against: expected a git checkout of the project, and {ROOT} is none")
    root, measured = (repository, ()) if repository else (ROOT, MEASURED)
    resolved = _git(root, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    if resolved.returncode:
        raise UsageError(f"--against: no revision {revision!r} in {root}: {_last_line(resolved.stderr)}")
    commit = resolved.stdout.decode().strip()
    packed = _git(root, "archive", "--format=zip", commit, *measured)
    if packed.returncode:
        raise NotComparable(f"--against: {revision} cannot be unpacked: {_last_line(packed.stderr)}")
    with tempfile.TemporaryDirectory(prefix="mfbench-against-") as folder:
        with zipfile.ZipFile(io.BytesIO(packed.stdout)) as archive:
            archive.extractall(folder)
        other = Checkout(revision[:DIGITS] if revision == commit else revision, commit, Path(folder), repository)
        for name in providers if repository else ():
            if not Path(other.location(name).rpartition(":")[0]).is_file():
                raise NotComparable(f"--against: {revision} has no {name.rpartition(':')[0]}")
        yield other


def _repository_of(files: Sequence[str]) -> Path | None:
    """The git repository that the files are in; None without files."""
    roots = set()
    for file in files:
        found = _git(Path(file).resolve().parent, "rev-parse", "--show-toplevel")
        if found.returncode:
            raise UsageError(f"--against: {file} is in no git repository: {_last_line(found.stderr)}")
        roots.add(Path(found.stdout.decode().rstrip("\n")).resolve())
    if len(roots) > 1:
        raise UsageError(f"--against: the files are in different repositories: {', '.join(map(str, sorted(roots)))}")
    return roots.pop() if roots else None


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", "-C", root, *arguments], capture_output=True, check=False)
    except OSError as error:
        raise UsageError(f"--against: git cannot be run: {error.strerror}") from None


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "git gives no reason"
