"""From rounds to a record: joint verdicts, and what the table says about how the rounds were measured."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from mfbench.measure import recording, roofline
from mfbench.measure.rounds import CaseTiming, ProviderTiming
from mfbench.problems.cases import Case
from mfbench.report import terminal
from mfbench.results import comparison
from mfbench.results.records import Record
from tests.mfbench.results.test_comparison import ENV

CASE = Case(suite="t", m=300, n=200, rank=8, density=0.5, ratings_dtype="float32", mask="uint8", data="synthetic",
            seed=1)  # fmt: skip
CEILINGS = roofline.Ceilings(9e10, 1e11, 1e10)


def rounds(
    ratio: float = 1.03, noise: float = 0.01, scale: float = 1.0, gaps: bool = False, cold: bool = False, **changes
) -> CaseTiming:
    rng = np.random.default_rng(3)
    base, new = (scale * 1e-3 * np.exp(rng.normal(0, noise, 60)) for _ in range(2))
    providers = {"base": ProviderTiming(base, 2, cold, False), "new": ProviderTiming(new / ratio, 3, cold, gaps)}
    fields = {"pilot_rounds": 6, "placements": 20, "throttled": 0, "dropped": 0, "background_cores": np.zeros(20),
              "resolve": None, "planned_s": 1.0, "took_s": 1.0}  # fmt: skip
    return CaseTiming(providers, **(fields | changes))


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording.environment, "describe", lambda device: ENV)


def record(found: CaseTiming, family: int = 1, device: str = "cpu") -> Record:
    origin = recording.Origin("r", CASE, device)
    parts = recording.timed(origin, "new", found, "base", 0.02, family, CEILINGS, CASE.m * CASE.n)
    return Record(run_id="r", time="", case=CASE, provider="new", device=device, status="ok", env=ENV,
                  correctness={}, **parts)  # fmt: skip


def test_the_verdicts_of_a_larger_family_take_more_evidence() -> None:
    alone, among_many = (record(rounds(), family) for family in (1, 10_000))
    assert alone.speedup.verdict == "faster"
    assert among_many.speedup.verdict == "inconclusive"
    assert alone.speedup.ci95 == among_many.speedup.ci95  # which is of the ratio alone
    assert among_many.speedup.family == 10_000
    assert "all 10000 hold jointly" in terminal.legend([among_many])
    assert "hold jointly" not in terminal.legend([alone])


def printed(one: Record) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(terminal.table([one]))
    return console.export_text()


def test_an_inconclusive_verdict_says_what_it_needs() -> None:
    noisy, noisier = (record(rounds(1.0, noise, took_s=2.0)) for noise in (0.06, 0.12))
    assert [r.speedup.verdict for r in (noisy, noisier)] == ["inconclusive"] * 2
    assert noisy.speedup.needs_s > 4.0
    assert noisier.speedup.needs_s / noisy.speedup.needs_s == pytest.approx(4.0, rel=0.3)
    times = noisy.speedup.needs_s / 2.0
    told = f"new: undecided; {times:.2g} times as many rounds would probably decide it: --budget "
    assert told in printed(noisy)
    decided = record(rounds())
    assert decided.speedup.needs_s is None
    assert "undecided" not in printed(decided)
    crowded = record(rounds(1.0, 0.06, background_cores=np.full(20, 0.9)))
    assert crowded.speedup.needs_s is None
    assert f"new: undecided: other programs took 0.9 of {ENV['cpus']} cores" in printed(crowded)


def test_what_an_inconclusive_verdict_needs_decides_it() -> None:
    few = record(rounds(1.0, 0.06, took_s=2.0))
    times = few.speedup.needs_s / 2.0
    rng = np.random.default_rng(8)
    base, new = (1e-3 * np.exp(rng.normal(0, 0.06, round(60 * times))) for _ in range(2))
    providers = {"base": ProviderTiming(base, 2, False, False), "new": ProviderTiming(new, 2, False, False)}
    assert few.speedup.verdict == "inconclusive"
    assert record(rounds()._replace(providers=providers)).speedup.verdict == "same"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"background_cores": np.repeat([0.0, 0.9], [10, 10])},
            "Other programs kept the machine busy in 50% of the rounds.",
        ),
        ({"background_cores": np.repeat([0.0, 0.9], [10, 10])}, "only a factor that they cannot have caused"),
        ({"throttled": 7}, "7 rounds were measured again"),
        ({"dropped": 12}, "12 rounds were replaced"),
        ({"scale": 1e-3}, "a ceiling was measured too low"),
    ],
)
def test_troubles_are_told_below_the_table(changes, told: str) -> None:
    assert told in terminal.legend([record(rounds(**changes))])
    assert told not in terminal.legend([record(rounds())])


def test_ratios_are_explained_where_there_are_any() -> None:
    one = record(rounds())
    alone = one.model_copy(update={"speedup": one.speedup.model_copy(update={"baseline": one.provider})})
    assert "ratios within each round" in terminal.legend([alone, one])
    assert "within each round" not in terminal.legend([alone])


def test_the_legend_names_the_peak_of_the_vector_units() -> None:
    assert "(90 GFLOP/s, measured, of 100 that the vector units can do)" in terminal.legend([record(rounds())])


def test_a_fraction_beyond_the_ceiling_is_marked_in_the_table() -> None:
    output = io.StringIO()
    impossible = record(rounds(scale=1e-3)).model_copy(update={"correctness": {"loss": _correct()}})
    Console(file=output, width=100).print(terminal.table([impossible]))
    assert impossible.roofline.fraction > 1
    assert "%!" in output.getvalue()


def test_80_columns_hold_the_name_of_a_file_and_a_wide_interval() -> None:
    slow = record(rounds())
    wide = slow.speedup.model_copy(update={"ratio": 0.00715, "ci95": (0.00382, 0.0151), "verdict": "inconclusive"})
    slow = slow.model_copy(update={"provider": "src/my_compiled[1].py:step", "speedup": wide})
    output = io.StringIO()
    Console(file=output, width=80).print(terminal.table([slow]))
    printed = output.getvalue()
    for part in ("my_compiled[1]", ":step", "[0.00382, 0.0151]", "inconclusive", "GEMM"):
        assert part in printed
    assert max(map(len, printed.splitlines())) <= 80


def _correct():
    from mfbench.results.records import Correctness

    return Correctness(error=0.0, bound=1.0, rms_error=0.0, rms_bound=1.0, ok=True)


@pytest.mark.parametrize("resolve", [None, 0.05])
def test_the_record_says_what_its_rounds_were_to_resolve(resolve: float | None) -> None:
    assert record(rounds(resolve=resolve)).timing.resolve == resolve


def test_the_record_says_how_the_samples_came_about() -> None:
    timing = record(rounds(background_cores=np.repeat([0.0, 0.9], [15, 5]), throttled=2)).timing
    assert (timing.placements, timing.rounds, timing.throttled, timing.disturbed) == (20, 60, 2, 15)
    assert timing.foreign_cores == pytest.approx(0.225)
    assert timing.method.startswith("perf_counter")
    on_gpu = record(rounds(cold=True, gaps=True), device="cuda").timing
    assert on_gpu.cold_cache
    assert on_gpu.method.startswith("device events, launch gaps included")


@pytest.mark.parametrize(
    ("ratio", "foreign", "verdict"),
    [
        (1.0, 0.0, "same"),
        (1.5, 0.0, "faster"),
        (1.0, 0.9, "inconclusive"),
        (2.5, 0.9, "inconclusive"),  # two threads on 1.1 cores: one side may have had 2.8 programs on its cores
        (3.0, 0.9, "faster"),
        (1 / 3.0, 0.9, "slower"),
        (100.0, 1.9, "inconclusive"),
    ],
)
def test_on_a_busy_machine_only_what_other_programs_cannot_cause_is_a_verdict(
    ratio: float, foreign: float, verdict: str
) -> None:
    among_others = np.repeat([0.0, foreign], [10, 10])
    found = record(rounds(ratio, noise=0.001, background_cores=among_others))
    assert found.speedup.verdict == verdict
    assert found.speedup.ci95 == record(rounds(ratio, noise=0.001)).speedup.ci95
    assert (found.crowding is not None) == (foreign > 0)
    assert (found.speedup.reason is not None) == (verdict == "inconclusive")
    other = comparison.measurement(found)
    calm = other._replace(samples=1.0001 * ratio * other.samples, crowding=None)
    (pair,) = comparison.compare([calm], [other], 0.02, paired=True).pairs
    assert (pair.outcome == "inconclusive") == (verdict == "inconclusive")
    assert pair.reason == found.speedup.reason


@pytest.mark.parametrize(
    ("ci95", "told"),
    [((2.0, 4.5), "3 [2, 4.5]"), ((0.5, 6461.0), "3 [too noisy]"), ((None, None), "3 [too few rounds]")],
)
def test_a_ratio_never_stands_alone(ci95, told: str) -> None:
    one = record(rounds())
    wide = one.model_copy(update={"speedup": one.speedup.model_copy(update={"ratio": 3.0, "ci95": ci95})})
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(terminal.table([wide]))
    assert told in console.export_text()
