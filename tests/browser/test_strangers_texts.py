"""Texts and names of strangers are shown, and do nothing."""

from dataclasses import replace

from suite.report.html.write import report_html

HOSTILE = {
    "image": '<img src=x onerror="window.hacked = 1">',
    "script": "</script><script>window.hacked = 1</script><!--",
    "override": "right \u202eto left\u202c and \u2066isolated",
    "long": "word " * 10_000,
    "markup": "<b>bold</b> &amp; `code` [link](javascript:alert(1)) {{ 7 * 7 }}",
}


def hostile(results):
    """The study with hostile texts, and with a hostile method, setting, alarm and command."""
    kinds = list(HOSTILE.values())
    samples = results.samples.assign(
        text=[kinds[k % len(kinds)] for k in range(len(results.samples))], shown=kinds[0], answer=kinds[1]
    )
    name, setting = "<img src=x onerror=alert(1)>", "</script><script>alert(2)</script>"
    tables = {}
    for table in ("records", "measurements", "health", "training"):
        old = getattr(results, table)
        theirs = old["method"] == "PPO"
        tables[table] = old.assign(method=old["method"].mask(theirs, name), setting=old["setting"].mask(theirs, setting))
    tables["health"] = tables["health"].assign(alarms=HOSTILE["image"])
    about = {**results.about, "command": HOSTILE["script"], "title": HOSTILE["image"], "lines": list(HOSTILE.values())}
    samples = samples.assign(
        method=samples["method"].replace("PPO", name), setting=samples["setting"].mask(samples["method"] == "PPO", setting)
    )
    return replace(results, about=about, samples=samples, **tables)


def test_nothing_of_it_runs_and_all_of_it_is_seen(open_page, default):
    page = open_page(report_html([("<i>folder</i>", hostile(default))], samples=4))
    assert page.evaluate("window.hacked") is None
    assert page.locator("img, b, i, iframe, object").count() == 0
    assert page.locator("script").count() == 2
    for node in page.locator("details > summary").all():
        if node.is_visible():
            node.click()
    beside = page.locator("[data-part=beside]")
    seen = ""
    for policy in beside.locator("select").first.evaluate(
        "e => [...e.options].map((o) => o.value).filter((v) => Number(v) >= 0)"
    )[:12]:
        beside.locator("select").first.select_option(policy)
        page.get_by_label("Show", exact=False).last.select_option("texts")
        seen += beside.locator("tbody").inner_text()
    assert HOSTILE["image"] in seen
    assert "</script><script>" in seen
    assert "\\u202eto left" in seen
    text = page.locator("body").inner_text()
    assert HOSTILE["image"] in text
    assert "\\u202eto left" in text
    assert page.evaluate("window.hacked") is None


def test_a_very_long_text_opens_on_demand(open_page, default):
    texts = default.samples.assign(text=HOSTILE["long"])
    page = open_page(report_html([("long", replace(default, samples=texts))], samples=4))
    beside = page.locator("[data-part=beside]")
    before = len(beside.inner_text())
    assert before < 20_000
    beside.get_by_role("button", name="all 50,000 characters").first.click()
    assert len(beside.inner_text()) > before + 40_000
    assert page.evaluate("document.documentElement.scrollWidth") <= 1200
