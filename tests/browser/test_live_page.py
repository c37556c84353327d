"""The page of `suite watch` follows what the runs leave, and keeps what was chosen."""

import threading
from dataclasses import replace

from suite.cli.watch import server
from suite.report.html.data import data_of


class Growing:
    """A sweep that has measured some methods, and later more."""

    def __init__(self, results):
        self.results, self.methods = results, {"SFT (reference)", "DPO"}

    def look(self):
        own = {
            name: table[table["method"].isin(self.methods)]
            for name, table in vars(self.results).items()
            if name in ("records", "measurements", "health")
        }
        data = data_of(replace(self.results, **own), "growing")
        progress = {"runs": 9, "done": len(self.methods), "now": ["PPO <b>beta</b>"], "failed": []}
        return {"version": str(len(self.methods)), "progress": progress, "studies": [data]}


def test_it_grows_and_keeps_what_was_chosen(browser, default):
    sweep, complaints = Growing(default), []
    with server(sweep, 0) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        try:
            page.set_default_timeout(30_000)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("console", lambda message: complaints.append(message.text))
            page.goto(f"http://127.0.0.1:{serving.server_port}/")
            page.get_by_text("2 of 9 runs done; at work: PPO <b>beta</b>").wait_for()
            points = page.locator("[data-part=frontier] .point")
            before = points.count()
            page.get_by_text("logarithmic", exact=True).click()
            first = page.locator("[data-part=beside] select").first
            first.select_option(index=2)
            chosen = first.evaluate("e => e.selectedOptions[0].textContent")
            page.get_by_label("Search texts and prompts").type("film")
            sweep.methods = {*sweep.methods, "PPO", "Unlikelihood"}
            page.get_by_text("4 of 9 runs done").wait_for()
            assert points.count() > before
            assert first.evaluate("e => e.selectedOptions[0].textContent") == chosen
            assert page.get_by_label("logarithmic").is_checked()
            page.keyboard.type("s")  # the focus is where it was
            assert page.get_by_label("Search texts and prompts").input_value() == "films"
            page.locator("[data-part=frontier] svg.chart").focus()
            page.keyboard.press("ArrowRight")
            ring = page.locator(".ring.focus").get_attribute("cx")
            sweep.methods = {*sweep.methods, "Preferred-FT"}
            page.get_by_text("5 of 9 runs done").wait_for()
            assert page.locator(".ring.focus").get_attribute("cx") == ring
        finally:
            serving.shutdown()
            thread.join()
    page.get_by_text("No answer: suite watch has ended").wait_for()
    page.close()
    assert [words for words in complaints if "net::ERR" not in words] == []
