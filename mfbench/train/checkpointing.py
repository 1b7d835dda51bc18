"""Checkpoints for a run that asks for them: only then is the library imported that writes them, for half a second."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from mfbench import log
from mfbench.train.identity import Identity
from mfbench.train.options import TrainOptions
from mfbench.train.saving import BestParameters

if TYPE_CHECKING:
    from mfbench.train.checkpoint import Checkpoints
    from mfbench.train.checkpoint_folder import Folder


def folder_of(options: TrainOptions) -> Folder | None:
    """Return the folder of checkpoints that the options name, ready to be written; None if they name none.

    A process that torchrun has started again continues as with `resume`.

    Raises:
        UsageError: as `open_folder`.
    """
    if options.checkpoint is None:
        return None
    from mfbench.train.checkpoint_folder import open_folder

    restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    folder = open_folder(options.checkpoint, options.resume or restarted)
    if options.resume and not folder.complete:
        log.note(f"{options.checkpoint} has no checkpoint yet; starting from the beginning")
    return folder


def checkpoints_in(
    folder: Folder | None,
    identity: Identity,
    best: BestParameters,
    every: int,
    users: slice,
    all_users: int,
    group: Any = None,
) -> contextlib.AbstractContextManager[Checkpoints | None]:
    """Return a run's checkpoints, as a context that completes the last one before it ends; of None for no folder.

    Arguments and errors are those of `Checkpoints`, with the users of this process as a range of all.
    """
    if folder is None:
        return contextlib.nullcontext()
    from mfbench.train.checkpoint import Checkpoints, completed
    from mfbench.train.resharding import Rows

    rows = Rows(users.start, users.stop, all_users)
    return completed(Checkpoints(folder, identity, best, rows, every, group))
