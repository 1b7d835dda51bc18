"""Kill training at random moments and resume it with another number of processes; compare its last loss.

    python -m tests.studies.train_kills --kills 20

A run over one, two or three processes loses one of them to SIGKILL, torchrun's own among them; the next run resumes it
with another number, and so on; when one finishes, the next starts with an empty folder. The loss in the end must be
that of an undisturbed run, and every checkpoint that is there after a kill must be readable.
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click
import psutil
import torch

from mfbench.installation import ROOT
from mfbench.train.checkpoint_folder import content_of
from mfbench.train.resharding import Rows, read

TRAINING = ["--data", "seed", "--size", "200x300", "--epochs", "28001", "--every", "500"]
CHECKPOINT_EVERY = 200  # epochs
PROCESSES = (1, 2, 3)
STARTING = 0.25  # share of kills at some time after the start; the others come after the first new checkpoint
SECONDS = (0.0, 10.0)  # shortest and longest of that time
TOLERANCE = 1e-6  # relative, of the last loss
END_S = 60.0  # longest time from the death of a process to the end of the others
POLL_S = 0.05


class Outcome(NamedTuple):
    kills: int
    in_training: int  # kills that left a later checkpoint than the one that the run began with
    finished: int  # runs that completed
    differing: int  # of these, whose last loss is not that of the undisturbed run
    largest: float  # relative difference of a last loss
    unreadable: int  # checkpoints that could not be read after a kill
    lost: int  # kills after which the last checkpoint was older than one seen before

    @property
    def flawless(self) -> bool:
        return not (self.differing or self.unreadable or self.lost)


def command(processes: int, arguments: Sequence[object]) -> list[str]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [sys.executable, *(torchrun if processes > 1 else []), "-m", "mfbench", "train", *map(str, arguments)]


def start(processes: int, arguments: Sequence[object], folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "out.json").open("wb") as out, (folder / "log.txt").open("wb") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(command(processes, arguments), stdout=out, stderr=log, cwd=folder, env=environment)


def last_loss(folder: Path) -> float:
    return float(json.loads((folder / "out.json").read_text())["entries"][-1]["loss"])


def last_number(checkpoints: Path) -> int:
    """Return the number of the last complete checkpoint; 0 if there is none."""
    names = [entry.name for entry in checkpoints.iterdir()] if checkpoints.exists() else []
    return max((int(name.partition("-")[0]) for name in names if name[0] != "."), default=0)


def unreadable(checkpoints: Path) -> int:
    """Return how many complete checkpoints cannot be read as a whole."""
    count = 0
    for path in checkpoints.iterdir() if checkpoints.exists() else ():
        if path.name.startswith("."):
            continue
        try:
            users = int(content_of(path)["problem"]["size"].partition("x")[0])
            tensors = read(path, Rows(0, users, users))
            whole = len(tensors["parameters.user_factors"]) == users
            count += not (whole and all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()))
        except BaseException as error:  # the library's is no Exception
            click.echo(f"{path.name}: {error}", err=True)
            count += 1
    return count


def kill_one(process: subprocess.Popen[bytes], rng: random.Random) -> None:
    """Kill one process of a run, and see that the others end."""
    parent = psutil.Process(process.pid)
    members = [parent, *parent.children(recursive=True)]
    victim = rng.choice(members)
    victim.kill()
    try:
        if victim != parent:
            process.wait(timeout=END_S)
    finally:
        for member in members:  # without torchrun its workers would go on
            if member.is_running():
                member.kill()
        process.wait()
        psutil.wait_procs(members, timeout=END_S)


def kill_and_resume(
    folder: Path,
    kills: int,
    seed: int,
    longest_s: float = SECONDS[1],
    training: Sequence[str] = TRAINING,
    checkpoint_every: int = CHECKPOINT_EVERY,
) -> Outcome:
    """Kill `kills` runs at random moments, then let the last one finish."""
    rng = random.Random(seed)
    if start(1, [*training, "--json"], folder).wait():
        raise RuntimeError((folder / "log.txt").read_text())
    expected, checkpoints = last_loss(folder), folder / "run"
    arguments = [*training, "--json", "--checkpoint", checkpoints, "--checkpoint-every", checkpoint_every, "--resume"]
    killed = in_training = finished = differing = broken = lost = 0
    largest = 0.0
    while killed < kills or not finished or checkpoints.exists():
        began = last_number(checkpoints)
        process = start(rng.choice(PROCESSES), arguments, folder)
        since = 0 if rng.random() < STARTING else began + 1
        seen = _watch(process, checkpoints, since, rng.uniform(SECONDS[0], longest_s) if killed < kills else math.inf)
        if process.poll() is None:
            kill_one(process, rng)
            killed += 1
            broken += unreadable(checkpoints)
            lost += last_number(checkpoints) < seen
            in_training += last_number(checkpoints) > began
        elif process.returncode:
            raise RuntimeError((folder / "log.txt").read_text())
        else:
            finished += 1
            difference = abs(last_loss(folder) / expected - 1)
            largest, differing = max(largest, difference), differing + (difference > TOLERANCE)
            shutil.rmtree(checkpoints)
    return Outcome(killed, in_training, finished, differing, largest, broken, lost)


def _watch(process: subprocess.Popen[bytes], checkpoints: Path, since: int, seconds: float) -> int:
    """Wait until some time after checkpoint number `since`, or the end of the run; return the last number seen."""
    end, seen = math.inf, last_number(checkpoints)
    while process.poll() is None and time.monotonic() < end:
        time.sleep(POLL_S)
        seen = max(seen, last_number(checkpoints))
        if seen >= since and end == math.inf:
            end = time.monotonic() + seconds
    return seen


@click.command(help=__doc__)
@click.option("--kills", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--seed", default=1, show_default=True)
def main(kills: int, seed: int) -> None:
    with tempfile.TemporaryDirectory(prefix="mfbench-train-kills-") as folder:
        outcome = kill_and_resume(Path(folder), kills, seed)
    click.echo(
        f"{outcome.kills} kills, {outcome.in_training} of them after a new checkpoint; {outcome.finished} runs "
        f"finished, {outcome.differing} with another loss (largest relative difference {outcome.largest:.1e}); "
        f"{outcome.unreadable} checkpoints unreadable, {outcome.lost} lost"
    )
    raise SystemExit(not outcome.flawless)


if __name__ == "__main__":
    main()
