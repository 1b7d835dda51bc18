"""Check out another revision of this project's kernels, or of a user's files, for this harness to measure."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mfbench.errors import NotComparable, UsageError
from mfbench.git import git
from mfbench.installation import MEASURED, ROOT
from mfbench.providers import user_code
from mfbench.results.records import Record

DIGITS = 12  # shown of a commit's hash
REFUSED = re.compile(r"(?:dubious ownership in|unsafe) repository (?:at )?\(?'(.+?)'")  # git 2.35.3 on, and before
SHALLOW = "; this clone is shallow, and `git fetch --unshallow` gets the rest"
OF_THE_HARNESS = ("closed-form", "compile-closed-form")  # providers that no revision of the kernels changes


class Checkout(NamedTuple):
    """The measured part of another revision, unpacked into a folder."""

    revision: str  # as the user named it; a full hash is cut to `DIGITS`
    commit: str
    folder: Path
    repository: Path | None = None  # the user's, if the providers are files in it

    def name(self, provider: str) -> str:
        """Return the name in records of a provider of that revision."""
        return f"{provider}@{self.revision}"

    def provider(self, name: str) -> str | None:
        """Return the provider with that name in records; None for one of the present checkout."""
        return name.removesuffix(f"@{self.revision}") if name.endswith(f"@{self.revision}") else None

    def location(self, provider: str) -> str:
        """Return what to load a provider of that revision by."""
        if self.repository is None:
            return provider
        path, _, function = provider.rpartition(":")
        return f"{self.folder / Path(path).resolve().relative_to(self.repository)}:{function}"

    def stamped(self, record: Record) -> Record:
        """Return the record with the commit that its provider comes from."""
        if self.provider(record.provider) is None:
            return record
        return record.model_copy(update={"env": record.env | {"commit": self.commit, "dirty": False}})

    def complete(self, records: Sequence[Record]) -> list[Record]:
        """Return the records whose other side is there too; both sides are measured in the same rounds."""
        keys = {record.key for record in records}
        return [
            record
            for record in records
            if (record.case, self.provider(record.provider) or self.name(record.provider), record.device) in keys
        ]

    def check_resumed(self, records: Sequence[Record]) -> None:
        """Check that an earlier part of the run was against the same commit.

        Raises:
            UsageError: the revision was another commit then.
        """
        for record in records:
            if self.provider(record.provider) is not None and record.env.get("commit") != self.commit:
                raise UsageError(
                    f"{self.revision} is commit {self.commit[:DIGITS]}, and was "
                    f"{str(record.env.get('commit'))[:DIGITS]} when the run began",
                    code="different-run",
                    argument="resume",
                )


@contextlib.contextmanager
def checkout(revision: str, providers: Sequence[str] = ()) -> Iterator[Checkout]:
    """Unpack a revision into a temporary folder, which is removed afterwards; the repository stays unchanged.

    For providers that are files, the revision is one of their own repository, which is unpacked whole.

    Raises:
        UsageError: no git checkout, no such revision, or files and named providers together.
        NotComparable: the revision has no kernels to measure, or a file is not in it.
    """
    for name in providers:
        if (location := user_code.locate(name)) and not location.is_file:
            message = f"{name}: with --against, give the file of a module, as path/to/file.py:{location.function}"
            raise UsageError(message, code="bad-provider", argument="provider")
    repository = _repository_of([name.rpartition(":")[0] for name in providers if ".py:" in name])
    if repository and not all(".py:" in name for name in providers):
        raise UsageError(
            "with --against either files or names, as they have different revisions",
            code="bad-provider",
            argument="provider",
        )
    if repository is None and not (ROOT / ".git").exists():
        message = f"expected a git checkout of the project, and {ROOT} is none"
        raise UsageError(message, code="not-a-repository", argument="against")
    root, measured = (repository, ()) if repository else (ROOT, MEASURED)
    resolved = _git(root, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    if resolved.returncode:
        hint = SHALLOW if _git(root, "rev-parse", "--is-shallow-repository").stdout.strip() == b"true" else ""
        message = f"no revision {revision!r} in {root}: {_last_line(resolved.stderr)}{hint}"
        raise UsageError(message, code="no-such-revision", argument="against")
    commit = resolved.stdout.decode().strip()
    packed = _git(root, "archive", "--format=zip", commit, *measured)
    if packed.returncode:
        message = f"{revision} cannot be unpacked: {_last_line(packed.stderr)}"
        raise NotComparable(message, code="not-in-revision", argument="against")
    with tempfile.TemporaryDirectory(prefix="mfbench-against-") as folder:
        with zipfile.ZipFile(io.BytesIO(packed.stdout)) as archive:
            archive.extractall(folder)
        other = Checkout(revision[:DIGITS] if revision == commit else revision, commit, Path(folder), repository)
        for name in providers if repository else ():
            if not Path(other.location(name).rpartition(":")[0]).is_file():
                message = f"{revision} has no {name.rpartition(':')[0]}"
                raise NotComparable(message, code="not-in-revision", argument="against")
        yield other


def _repository_of(files: Sequence[str]) -> Path | None:
    """Return the git repository that the files are in; None without files."""
    roots = set()
    for file in files:
        found = _git(Path(file).resolve().parent, "rev-parse", "--show-toplevel")
        if found.returncode:
            message = f"{file} is in no git repository: {_last_line(found.stderr)}"
            raise UsageError(message, code="not-a-repository", argument="against")
        roots.add(Path(found.stdout.decode().rstrip("\n")).resolve())
    if len(roots) > 1:
        message = f"the files are in different repositories: {', '.join(map(str, sorted(roots)))}"
        raise UsageError(message, code="bad-provider", argument="against")
    return roots.pop() if roots else None


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run git.

    Raises:
        UsageError: it cannot be run, or refuses the repository because another user owns it.
    """
    try:
        done = git(root, *arguments)
    except OSError as error:
        message = f"git cannot be run: {error.strerror}"
        raise UsageError(message, code="no-git", argument="against") from None
    if refused := REFUSED.search(done.stderr.decode(errors="replace")):
        message = (
            f"git refuses the repository {refused[1]}, which another user owns; if you trust it, "
            f"`git config --global --add safe.directory {refused[1]}`"
        )
        raise UsageError(message, code="foreign-owner", argument="against")
    return done


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "git gives no reason"
