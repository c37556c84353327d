"""A real browser, if there is one, and pages of the committed studies."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from suite.analysis.records import Results, read_results
from suite.report.html.write import report_html

RESULTS = Path(__file__).parents[2] / "results"
ENGINES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no browser tests: pip install playwright")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, ENGINES)), None)
    if path is None:
        pytest.skip("no browser tests: no Chromium here (apt-get install chromium, or set CHROMIUM to its path)")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser, tmp_path) -> Callable:
    """Open a page, wait until it is drawn, and fail at the end if it asked for anything or complained."""
    opened, complaints = [], []

    def opens(text: str, *, width: int = 1200, scheme: str = "light"):
        path = tmp_path / "report.html"
        path.write_text(text, encoding="utf-8")
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        opened.append(page)
        page.set_default_timeout(20_000)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: complaints.append(request.url) if request.url != path.as_uri() else None)
        page.goto(path.as_uri())
        page.locator("[data-part=frontier] svg.chart").first.wait_for()
        return page

    yield opens
    for page in opened:
        page.close()
    assert complaints == []


@pytest.fixture(scope="session")
def default() -> Results:
    """The study of the README's command."""
    return read_results(RESULTS / "imdb_frontier")


@pytest.fixture(scope="session")
def default_page(default) -> str:
    """Its page, with the completions of `samples.md`."""
    return report_html([("imdb_frontier", default)], samples=4)
