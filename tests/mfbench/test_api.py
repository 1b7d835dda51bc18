"""The Python interface: the same results as the command line's, as objects that a notebook shows."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import mfbench
from mfbench.errors import NotComparable, UsageError
from mfbench.installation import VERSION
from mfbench.measure.options import RunOptions
from mfbench.results import environment
from tests.mfbench.report.synthetic import HOSTILE, case, failed, suite, write

pytest.importorskip("matplotlib", reason="needs the extra `report`")


@pytest.fixture
def results(tmp_path: Path) -> mfbench.Results:
    records = [*suite(), failed(case(0), "wrong", HOSTILE, HOSTILE)]
    return mfbench.load(write(tmp_path / "r.jsonl", records))


def test_importing_is_cheap() -> None:
    code = "import sys, mfbench; sys.exit(bool({'torch', 'numpy', 'pandas', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_run_gives_what_the_command_line_records(tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    results = mfbench.run(size="30x40", rank=5, provider="fused", budget=0.2, out=out)
    frame = results.to_pandas()
    assert list(frame.provider) == ["fused", "autograd"]
    assert set(frame.status) == {"ok"}
    assert (frame.m == 30).all()
    assert mfbench.load(out).to_pandas().equals(frame)
    assert results.sentence.endswith("all 2 results lie within the bounds of the correctness gate.")


@pytest.mark.slow
def test_threads_are_those_that_were_set_and_stay_so(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch\nfrom kernels import mf_loss_and_grads\n"
        "def on_one_thread(*arguments):\n"
        "    assert torch.get_num_threads() == 1\n"
        "    return mf_loss_and_grads(*arguments)\n"
    )
    name, before = f"{path}:on_one_thread", torch.get_num_threads()
    options = {"size": "30x40", "rank": 5, "data": "synthetic", "provider": name, "baseline": name, "budget": 0.1}
    try:
        torch.set_num_threads(3)
        asked = mfbench.run(threads=1, **options)
        assert torch.get_num_threads() == 3
        torch.set_num_threads(1)
        found = mfbench.run(**options)
    finally:
        torch.set_num_threads(before)
    for record in (*asked.records, *found.records):
        assert record.status == "ok", record.reason
        assert record.env["threads"] == 1


def test_a_record_names_the_file_as_it_was_loaded(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from kernels import mf_loss_and_grads\n"
        "def saved_meanwhile(*arguments):\n"
        "    open(__file__, 'a').write('# more')\n"
        "    return mf_loss_and_grads(*arguments)\n"
    )
    name, loaded = f"{path}:saved_meanwhile", environment.source(f"{path}:saved_meanwhile")
    found = mfbench.run(size="30x40", rank=5, data="synthetic", provider=name, baseline=name, budget=0.1)
    assert {record.env["source"] for record in found.records} == {loaded}
    assert environment.source(name) != loaded


def test_a_frame_has_what_the_records_have(results: mfbench.Results) -> None:
    frame = results.to_pandas().set_index(["m", "provider"])
    assert frame.loc[(64, "fused"), "speedup"] == pytest.approx(4, rel=0.02)
    assert frame.loc[(64, "fused"), "median_s"] == pytest.approx(results.records[0].timing.median_s, rel=1e-5)
    assert frame.loc[(64, "fused"), "error_over_bound"] == pytest.approx(0.1)
    assert frame.loc[(64, HOSTILE), "reason"] == HOSTILE


def test_a_notebook_shows_the_table_and_no_markup_of_names(results: mfbench.Results) -> None:
    shown = results._repr_html_()
    assert shown.count("<tr>") == 1 + 9
    assert results.sentence in shown
    assert "<script" not in shown
    assert "<img" not in shown


def test_plots_are_pictures(results: mfbench.Results, tmp_path: Path) -> None:
    assert results.plot()._repr_png_().startswith(b"\x89PNG")
    assert results.plot("samples-001").save(tmp_path / "s.svg").read_text().startswith("<?xml")
    assert results.plot("roofline").figure.axes[0].get_xscale() == "log"
    with pytest.raises(UsageError, match="did you mean 'speedups'"):
        results.plot("speedup")


def test_reports_are_written(results: mfbench.Results, tmp_path: Path) -> None:
    assert results.sentence in results.report(tmp_path / "r.html").read_text()
    assert results.report(tmp_path / "r.md").read_text().startswith("**fused is")
    assert results.report(tmp_path / "r.csv").read_text().startswith("run,time,suite,m,n,rank,")
    assert results.report(tmp_path / "r.html", "csv").read_text() == (tmp_path / "r.csv").read_text()


def test_comparisons_have_verdicts(tmp_path: Path) -> None:
    base, new = write(tmp_path / "a.jsonl", suite(0)), write(tmp_path / "b.jsonl", suite(1, factor=1.5))
    by_path, by_results = mfbench.compare(base, new), mfbench.compare(mfbench.load(base), mfbench.load(new))
    for compared in (by_path, by_results):
        frame = compared.to_pandas()
        assert sorted(frame.outcome) == ["same"] * 4 + ["slower"] * 4
        assert frame[frame.provider == "fused"].ratio.to_numpy() == pytest.approx(1 / 1.5, rel=0.02)
        assert compared.exit_code == 1
        assert compared.plot()._repr_png_().startswith(b"\x89PNG")
        assert compared._repr_html_().count("slower") >= 4


def test_another_environment_is_not_comparable(tmp_path: Path) -> None:
    other = [record.model_copy(update={"env": {**record.env, "cpu": "Other 1"}}) for record in suite(1)]
    base, new = write(tmp_path / "a.jsonl", suite(0)), write(tmp_path / "b.jsonl", other)
    with pytest.raises(NotComparable, match="cpu is Other 1, was Testium 9000"):
        mfbench.compare(base, new)
    forced = mfbench.compare(base, new, force=True)
    assert [difference.name for difference in forced.comparison.environment] == ["cpu"]


@pytest.mark.parametrize(("arguments", "code", "argument"), [
    ({"sise": "3x4"}, "no-such-axis", "sise"),
    ({"provider": print}, "bad-provider", "provider"),
    ({"budget": -1}, "bad-number", "budget"),
    ({"resolve": 1}, "bad-number", "resolve"),
    ({"suite": "quik"}, "no-such-suite", "suite"),
    ({"provider": "fusd"}, "no-such-provider", "provider"),
    ({"baseline": "fusd"}, "no-such-provider", "baseline"),
    ({"size": "3x4", "suite": "movielens", "data": ["movielens"], "device": "gpu"}, "bad-device", "device"),
])  # fmt: skip
def test_bad_arguments_are_named(arguments: dict, code: str, argument: str) -> None:
    with pytest.raises(UsageError) as raised:
        mfbench.run(**arguments)
    assert (raised.value.code, raised.value.argument) == (code, argument)
    assert str(raised.value).startswith(f"{argument}: ")


def test_the_signature_of_run_has_the_defaults_of_its_options() -> None:
    parameters = inspect.signature(mfbench.run).parameters
    for field in dataclasses.fields(RunOptions):
        if field.name not in ("axes", "out"):
            assert parameters[field.name].default == field.default


def test_a_report_of_an_unknown_format_is_refused_and_not_written(results: mfbench.Results, tmp_path: Path) -> None:
    for name, form in (("r.pdf", None), ("r.html", "pdf")):
        with pytest.raises(UsageError) as raised:
            results.report(tmp_path / name, form)
        assert raised.value.code == "bad-format"
        assert not (tmp_path / name).exists()


def test_the_version_is_the_packages() -> None:
    assert mfbench.__version__ == VERSION


def test_resuming_needs_the_file() -> None:
    with pytest.raises(UsageError, match=r"^resume: needs `out`") as error:
        mfbench.run(size="8x8", resume=True)
    assert error.value.argument == "resume"


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"ratings_dtype": "int16"}, "^ratings_dtype: expected one of .*, got 'int16'; did you mean 'int8'"),
        ({"rank": 1.5}, "^rank: expected a whole number, got 1.5$"),
        ({"density": [0.5, -1]}, "^density: expected a number from 0, got -1$"),
    ],
)
def test_values_that_do_not_fit_are_told_in_our_words(axes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        mfbench.run(size="8x8", **axes)
