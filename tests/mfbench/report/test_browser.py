"""The page in a browser: it fetches nothing, says nothing on the console, and its controls work."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.mfbench.report.synthetic import HOSTILE, case, failed, history, ok, suite, write

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, which the extra `test` brings")
CHROMIUM = os.environ.get("MFBENCH_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium on PATH nor in MFBENCH_CHROMIUM"),
]

INTERACTIVE_S = 3.0
DESKTOP, PHONE, PAPER = ({"width": width, "height": 900} for width in (1200, 390, 690))


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


class Visit:
    """A page that was opened, with all that it asked for and said."""

    def __init__(self, browser, path: Path, **settings) -> None:
        self.page = browser.new_context(**settings).new_page()
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.session = self.page.context.new_cdp_session(self.page)
        self.session.send("Performance.enable", {"timeDomain": "threadTicks"})
        self.page.goto(path.as_uri())

    def main_thread_s(self) -> float:
        """Processor time of the page's main thread so far, which another job on the machine does not lengthen."""
        metrics = self.session.send("Performance.getMetrics")["metrics"]
        return next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")

    def column(self, number: int, table: str = "results") -> list[str]:
        return self.page.locator(f"#{table} tbody tr:visible > td:nth-child({number})").all_inner_texts()

    def check_quiet(self, path: Path) -> None:
        assert self.messages == []
        assert [url for url in self.requests if not url.startswith("data:")] == [path.as_uri()]


@pytest.fixture
def report(made, tmp_path: Path):
    def make(records: list) -> Path:
        made(write(tmp_path / "r.jsonl", records))
        return tmp_path / "report.html"

    return make


RECORDS = [*suite(), failed(case(0), "wrong", HOSTILE, HOSTILE), failed(case(1), "crashed", "by SIGSEGV", "b.py:f")]


def test_the_table_sorts_and_filters(browser, report) -> None:
    path = report(RECORDS)
    visit = Visit(browser, path, viewport=DESKTOP)
    median = visit.page.locator("#results thead button").nth(3)
    median.click()
    ascending = [value for value in visit.column(4) if value.endswith("s") and "SIG" not in value]
    assert ascending == ["1 ms", "3.99 ms", "4 ms", "16 ms", "16 ms", "63.8 ms", "64 ms", "256 ms"] or (
        len(ascending) == 8 and ascending == sorted(ascending, key=lambda v: float(v.split()[0]))
    )
    assert visit.column(3)[-2:] == ["wrong", "crashed"]
    median.click()
    assert [v for v in visit.column(4) if v.endswith("s") and "SIG" not in v] == ascending[::-1]
    assert visit.column(3)[-2:] == ["wrong", "crashed"]
    visit.page.locator("[data-filter=results]").fill("crashed b.py")
    assert visit.column(2) == ["b.py:f"]
    assert visit.page.locator("[data-count=results]").inner_text() == "1 of 10 rows"
    visit.page.locator("[data-filter=results]").fill("")
    assert len(visit.column(2)) == 10
    visit.check_quiet(path)


def test_the_theme_switches(browser, report) -> None:
    path = report(RECORDS)
    visit = Visit(browser, path, viewport=DESKTOP, color_scheme="dark")

    def background() -> str:
        return visit.page.evaluate("getComputedStyle(document.body).backgroundColor")

    dark = background()
    visit.page.locator("#theme").click()
    light = background()
    assert light == "rgb(255, 255, 255)" != dark
    visit.page.locator("#theme").click()
    assert background() == dark
    visit.page.locator("#theme").click()
    assert visit.page.locator("#theme").inner_text() == "Theme: system"
    visit.page.emulate_media(color_scheme="light")
    assert background() == light
    visit.page.emulate_media(media="print", color_scheme="dark")
    assert background() == light
    visit.check_quiet(path)


def test_a_row_opens_its_samples(browser, report) -> None:
    path = report(RECORDS)
    visit = Visit(browser, path, viewport=DESKTOP)
    opener = visit.page.locator("#results tbody button").first
    opener.click()
    drawn = visit.page.locator("tr.strip polyline").get_attribute("points")
    assert len(drawn.split()) == 30
    opener.click()
    assert visit.page.locator("tr.strip").count() == 0
    failing = visit.page.locator("#results tr.bad button").first
    failing.click()
    assert visit.page.locator("tr.strip").inner_text().strip() == "Not timed: wrong."
    visit.check_quiet(path)


def test_a_history_shows_the_samples_of_any_run(browser, report) -> None:
    path = report(history(runs=8, cases=1, step_at=4, ratio=1.5))
    visit = Visit(browser, path, viewport=DESKTOP)
    visit.page.locator("#results tbody button").first.click()
    assert visit.page.locator("tr.strip circle").count() == 8
    assert "run-7" in visit.page.locator("tr.strip p").first.inner_text()
    visit.page.locator("tr.strip circle").nth(2).click()
    assert "run-2" in visit.page.locator("tr.strip p").first.inner_text()
    visit.check_quiet(path)


def test_names_are_not_executed(browser, report) -> None:
    path = report(RECORDS)
    visit = Visit(browser, path, viewport=DESKTOP)
    visit.page.locator("#results tr.bad button").first.click()
    assert visit.page.evaluate("window.hacked") is None
    assert HOSTILE.rstrip("\u202e") in visit.page.locator("#failed").inner_text()
    visit.check_quiet(path)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_page_does_not_scroll_sideways(browser, report, tmp_path: Path, size, scheme: str) -> None:
    visit = Visit(browser, report(RECORDS), viewport=size, color_scheme=scheme)
    visit.page.locator("#results tbody button").first.click()
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    image = visit.page.screenshot(full_page=True)
    if keep := os.environ.get("MFBENCH_SCREENSHOTS"):
        (Path(keep) / f"report-{size['width']}-{scheme}.png").write_bytes(image)
    assert len(image) > 20_000


def test_paper_has_headings_and_no_controls(browser, report) -> None:
    path = report([ok(case(m=50 + number, n=64)) for number in range(201)])
    visit = Visit(browser, path, viewport=PAPER)
    assert visit.page.get_by_text("Show all rows").is_visible()
    visit.page.emulate_media(media="print")
    assert visit.page.locator("#results th").all_inner_texts()[:4] == ["case", "provider", "status", "median"]
    controls = visit.page.locator("header button, th button, input, [data-more] button")
    assert controls.count() > 10
    assert not any(control.is_visible() for control in controls.all())
    assert visit.page.get_by_text("The page has more rows than this print").is_visible()
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= PAPER["width"]


@pytest.mark.parametrize("records", ["history", "cases"])
def test_5000_records_are_interactive_at_once(browser, report, records: str) -> None:
    found = (
        history(runs=250, cases=20, step_at=125, ratio=1.2)
        if records == "history"
        else [ok(case(m=50 + number, n=64), name) for number in range(2500) for name in ("fused", "autograd")]
    )
    path = report(found)
    assert path.stat().st_size < 4_000_000
    visit = Visit(browser, path, viewport=DESKTOP)
    visit.page.locator("#results tbody button").first.click()
    visit.page.locator("tr.strip polyline").wait_for()
    assert visit.main_thread_s() < INTERACTIVE_S
    visit.check_quiet(path)
    if records == "cases":
        assert len(visit.column(2)) == 200
        visit.page.locator("[data-filter=results]").fill("2549×64 autograd")
        assert visit.column(2) == ["autograd"]
