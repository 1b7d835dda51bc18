"""The text: the verdict comes first, and it is short whatever happens."""

from __future__ import annotations

import pytest

from mfbench.gpu_check.run import Findings
from mfbench.gpu_check.summary import LONGEST_LINE, MOST_LINES, summary
from mfbench.gpu_check.task import PlainCase, Result, Task

ENVIRONMENT = {
    "cpu": "a CPU", "system": "Linux", "driver": "13.0", "multiprocessors": 132, "commit": "abc", "dirty": True,
    "versions": {"torch": "2.11", "triton": "3.6"},
}  # fmt: skip


def task(part: str, name: str, required: bool = True) -> Task:
    return Task(part, name, lambda: Result(name), required)


def findings(wrong: str = "", count: int = 3) -> Findings:
    found = Findings("NVIDIA H100", seconds=123.4)
    for number in range(count):
        name = f"build {number}"
        found.results.append((task("equivalence", name), Result(name, wrong, "0.31 dQ")))
    return found


def text(found: Findings, missing: tuple[str, ...] = ()) -> list[str]:
    return summary(found, ENVIRONMENT, missing).splitlines()


def test_the_verdict_is_the_first_line() -> None:
    assert text(findings())[0] == "RIGHT: all 3 checks on NVIDIA H100, 123 s"
    assert text(findings("dP is off by 0.2"))[0] == (
        "WRONG: 3 of 3 checks on NVIDIA H100, 123 s; first build 0: dP is off by 0.2"
    )
    found = findings()
    found.left_out.append(task("determinism", "tf32 rank 30"))
    assert text(found)[0] == (
        "INCOMPLETE: nothing wrong in 3 checks on NVIDIA H100, 123 s, but 1 more were not made, from tf32 rank 30 on"
    )
    found.lost = "a check did not end in time"
    found.running = task("equivalence", "ieee rank 256")
    lines = text(found)
    assert lines[0] == "WRONG: a check did not end in time after 3 checks on NVIDIA H100, 123 s"
    assert "  equivalence: ieee rank 256 did not end in time" in lines


def test_what_was_left_out_is_named() -> None:
    found = findings()
    found.left_out += [task("the rest", f"problem {number}", required=False) for number in range(9)]
    lines = text(found, ("without scipy: no confidence intervals",))
    assert lines[0].startswith("RIGHT")
    assert "without scipy: no confidence intervals" in lines
    assert lines[-1] == "  the rest: problem 0, problem 1, problem 2, problem 3 and 5 more"


@pytest.mark.parametrize("wrong", ["", "an output " * 100])
def test_it_is_short_whatever_happens(wrong: str) -> None:
    lines = text(findings(wrong, count=1000))
    assert len(lines) <= MOST_LINES < 100
    assert max(map(len, lines)) <= LONGEST_LINE
    assert lines[-1].startswith("and ") == (not wrong)


def test_times_are_a_table() -> None:
    def record(provider: str, seconds: float, ci95: tuple[float | None, float | None]) -> dict:
        speedup = {"baseline": "autograd", "ratio": 3e-4 / seconds, "ci95": ci95}
        case = PlainCase("gpu-check", 200, 300, 30)
        return {"provider": provider, "case": case, "timing": {"median_s": seconds}, "speedup": speedup}

    found = findings()
    records = (record("autograd", 3e-4, (1, 1)), record("fused", 1e-4, (2.9, 3.1)), record("other", 2e-4, (None, None)))
    found.results.append(
        (task("times", "200×300"), Result("200×300", note="compile not timed: no compiler", records=records))
    )
    lines = [" ".join(line.split()) for line in text(found)]
    begin = lines.index("times")
    assert lines[begin + 1 : begin + 6] == [
        "200×300 rank 30", "autograd 300 µs", "fused 100 µs 3× [2.9, 3.1]", "other 200 µs 1.5×",
        "200×300: compile not timed: no compiler",
    ]  # fmt: skip
