"""What `mfbench verify` does, for as long as time is left: random problems through every mode of the kernel."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator

from mfbench.gpu_check.task import Context, Result, Task
from mfbench.testing.random_problems import draw
from mfbench.testing.verify import verify_backend

PART = "the rest"
PROBLEMS = 400  # more than anybody has time for
BATCH = 20  # problems of a task


def random_problems(context: Context) -> Iterator[Task]:
    """Yield tasks of a few problems each."""
    for first in range(0, PROBLEMS, BATCH):
        name = f"random problems {first + 1} to {first + BATCH}"
        yield Task(PART, name, functools.partial(_check, context, name, first), required=False, seconds=30)


def _check(context: Context, name: str, first: int) -> Result:
    problems = itertools.islice(draw(first + BATCH, context.seed), first, None)
    machine = context.machine
    tallies, failures = verify_backend(machine.backend, machine.device, problems)
    wrong = "; ".join(f"{failure.provider}: {failure.problem}: {failure.reason}" for failure in failures)
    worst = max(ratio for tally in tallies for ratio in tally.worst.values())
    return Result(name, wrong, f"{worst:.2f} of the bound")
