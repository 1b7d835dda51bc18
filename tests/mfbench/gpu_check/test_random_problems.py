"""Random problems for the rest of the time."""

from __future__ import annotations

import pytest

from mfbench.gpu_check import random_problems
from mfbench.gpu_check.task import Context


@pytest.mark.interpret
def test_batches_are_checked_in_every_mode(context: Context, monkeypatch: pytest.MonkeyPatch, planted: None) -> None:
    monkeypatch.setattr(random_problems, "PROBLEMS", 4)
    monkeypatch.setattr(random_problems, "BATCH", 2)
    tasks = list(random_problems.random_problems(context))
    assert [task.name for task in tasks] == ["random problems 1 to 2", "random problems 3 to 4"]
    assert not any(task.required for task in tasks)
    result = tasks[0].run()
    assert "interpret tf32x3: " in result.wrong
    assert "interpret deterministic: " not in result.wrong
