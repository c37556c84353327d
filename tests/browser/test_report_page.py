"""`report.html` in a real browser: what it shows is what the records say."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from suite.analysis.records import read_results
from suite.report.html.write import report_html

RESULTS = Path(__file__).parents[2] / "results"
NUMBER = re.compile(r"[+−-]?\d+\.\d+")
DPO = ("DPO", "beta = 0.1", 0, 288)
SCREENSHOT = Path(__file__).parents[2] / "build" / "report.png"


def place_of(page, method, setting, seed, step):
    """Number of a policy on the page."""
    return page.evaluate(
        """([method, setting, seed, step]) => {
            const { studies } = JSON.parse(document.getElementById("data").textContent);
            const { methods, policies } = studies[0];
            return policies.step.findIndex((own, k) => own === step && policies.seed[k] === seed
                && policies.setting[k] === setting && methods[policies.method[k]].name === method);
        }""",
        [method, setting, seed, step],
    )


def scrolled(page, down=0):
    """Scroll, and wait until the browser has said so, in its next frame: a tooltip at the pointer goes with that."""
    frames = "new Promise((seen) => requestAnimationFrame(() => requestAnimationFrame(seen)))"
    page.evaluate(f"down => {{ scrollBy(0, down); return {frames}; }}", down)


def in_view(locator):
    locator.scroll_into_view_if_needed()
    scrolled(locator.page)
    return locator


def mark_of(page, point):
    mark = page.locator(f"[data-part=frontier] .point[data-policy='{place_of(page, *point)}'] path.mark")
    box = in_view(mark).bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def record(results, point, metric, split="test"):
    rows = results.records
    same = (rows[["method", "setting", "seed", "step"]] == list(point)).all(axis=1)
    return rows[same & (rows["metric"] == metric) & (rows["split"] == split)].iloc[0]


def rewards(results, point):
    rows = results.measurements
    same = (rows[["method", "setting", "seed", "step"]] == list(point)).all(axis=1)
    return rows[same & (rows["metric"] == "reward") & (rows["split"] == "test")].set_index("prompt_id")["value"]


def last(results, method):
    """A policy with texts on the page, and on its method's hull or not."""
    rows = results.samples[results.samples["method"] == method]
    method, setting, seed, step = rows[["method", "setting", "seed", "step"]].iloc[0]
    return method, setting, int(seed), int(step)


def number(text):
    return float(NUMBER.search(text)[0].replace("−", "-"))


def test_hovering_shows_the_value_of_the_records(open_page, default, default_page):
    page = open_page(default_page)
    page.mouse.move(*mark_of(page, DPO))
    text = page.locator(".tooltip.shown").inner_text()
    for metric, digits in (("reward", 4), ("kl", 3)):
        row = record(default, DPO, metric)
        assert f"{row['value']:.{digits}f} [{row['ci_low']:.{digits}f}, {row['ci_high']:.{digits}f}]" in text
    assert text.startswith("DPO beta = 0.1, seed 0, step 288")
    assert f"run {record(default, DPO, 'reward')['run_key']}" in text
    page.mouse.move(5, 5)
    assert page.locator(".tooltip.shown").count() == 0


def test_other_prompts_and_another_metric(open_page, default, default_page):
    page = open_page(default_page)
    page.get_by_text("validation", exact=True).click()
    page.get_by_text("log-odds", exact=True).click()
    page.get_by_text("logarithmic", exact=True).click()
    page.mouse.move(*mark_of(page, DPO))
    assert f"{record(default, DPO, 'reward', 'validation')['value']:.4f}" in page.locator(".tooltip.shown").inner_text()
    beyond = page.locator("[data-part=frontier] .point").count()
    page.get_by_text("linear", exact=True).click()
    assert page.locator("[data-part=frontier] .point").count() < beyond
    assert "lie beyond the axis" in page.locator("[data-part=frontier]").inner_text()


def test_two_chosen_policies_stand_beside_each_other(open_page, default, default_page):
    page = open_page(default_page)
    ppo = last(default, "PPO")
    page.mouse.click(*mark_of(page, DPO))
    page.keyboard.down("Shift")
    page.mouse.click(*mark_of(page, ppo))
    page.keyboard.up("Shift")
    beside = page.locator("[data-part=beside]")
    assert (
        beside.locator("select").nth(0).evaluate("e => e.selectedOptions[0].textContent") == "DPO beta = 0.1, seed 0, step 288"
    )
    assert beside.locator("select").nth(1).evaluate("e => e.selectedOptions[0].textContent").startswith("PPO beta")
    gaps = rewards(default, DPO) - rewards(default, ppo)
    half = stats.t.ppf(0.975, len(gaps) - 1) * gaps.std() / np.sqrt(len(gaps))
    said = [float(text.replace("−", "-")) for text in NUMBER.findall(beside.locator(".summary").inner_text())[:3]]
    assert said == pytest.approx([gaps.mean(), gaps.mean() - half, gaps.mean() + half], abs=6e-4)
    assert f"A is better on {(gaps > 0).sum()} prompts, B on {(gaps < 0).sum()}." in beside.locator(".summary").inner_text()
    row = beside.locator("tr[data-prompt='test-00002']")
    texts = default.samples.set_index(["prompt_id", "method", "setting"])["text"]
    shown = " ".join(row.inner_text().split())
    for method, setting, *_ in (DPO, ppo):
        assert " ".join(texts["test-00002", method, setting].split()) in shown
    assert number(row.locator("td").last.inner_text()) == pytest.approx(gaps["test-00002"], abs=6e-4)


def test_rows_are_sorted_filtered_and_searched(open_page, default, default_page):
    page = open_page(default_page)
    ppo = last(default, "PPO")
    gaps = (rewards(default, DPO) - rewards(default, ppo)).sort_values()
    beside = page.locator("[data-part=beside]")
    for which, point in ((0, DPO), (1, ppo)):
        beside.locator("select").nth(which).select_option(str(place_of(page, *point)))
    prompts = beside.locator("tbody tr")

    def order():
        return prompts.evaluate_all("rows => rows.map((row) => row.dataset.prompt)")

    page.get_by_label("Sort by").select_option("largest")
    assert order()[:5] == list(gaps.index[::-1][:5])
    page.get_by_label("Sort by").select_option("smallest")
    assert order()[:5] == list(gaps.index[:5])
    page.get_by_label("Show", exact=False).last.select_option("b")
    assert f"{(gaps < 0).sum()} of {len(gaps)} prompts" in beside.inner_text()
    page.get_by_label("Show", exact=False).last.select_option("texts")
    assert prompts.count() == 4
    page.get_by_label("Search").fill("ghost story")
    assert order() == ["test-00002"]
    page.get_by_label("Search").fill("")
    page.get_by_role("button", name="Swap").click()
    swapped = beside.locator("tr[data-prompt='test-00002'] td").last.inner_text()
    assert number(swapped) == pytest.approx(-gaps["test-00002"], abs=6e-4)


def test_a_dot_leads_to_its_prompt(open_page, default_page):
    page = open_page(default_page)
    beside = page.locator("[data-part=beside]")
    dot = beside.locator("circle.dot").nth(7)
    in_view(dot).hover(force=True)
    name = page.locator(".tooltip.shown strong").inner_text()
    dot.click(force=True)
    assert beside.locator("tbody tr").evaluate_all("rows => rows.map((row) => row.dataset.prompt)") == [name]
    page.get_by_label("Sort by").select_option("largest")  # what is asked for next is not of that prompt alone
    assert beside.locator("tbody tr").count() > 1


def test_it_begins_with_two_policies_that_have_gone_about_as_far(open_page, default, default_page):
    page = open_page(default_page)
    a, b = page.locator("[data-part=beside] select").evaluate_all(
        "all => all.slice(0, 2).map((e) => e.selectedOptions[0].textContent)"
    )
    numbers = default.records[default.records["split"] == "validation"]
    kl = numbers[numbers["metric"] == "kl"].set_index(["method", "setting", "step"])["value"]
    of = {f"{m} {s}, seed {default.about['seeds'][0]}, step {t}": v for (m, s, t), v in kl.items()}
    known = page.locator("[data-part=beside] select").first.evaluate("e => [...e.options].map((o) => o.textContent)")
    rivals = {name: abs(v - of[a]) for name, v in of.items() if name.startswith("PPO beta") and name in known and v <= 10}
    assert a.startswith("DPO ")
    assert b == min(rivals, key=rivals.get)
    assert len(rivals) > 1


def test_the_keyboard_walks_and_chooses(open_page, default_page):
    page = open_page(default_page)
    chart = page.locator("[data-part=frontier] svg.chart")
    chart.focus()
    for _ in range(9):
        page.keyboard.press("ArrowRight")
    first = page.locator(".tooltip.shown strong").inner_text()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowUp")
    second = page.locator(".tooltip.shown strong").inner_text()
    page.keyboard.press("Shift+Enter")
    assert first != second
    assert first.split(",")[0].split(" ")[0] == second.split(",")[0].split(" ")[0]  # up and down stay with a method
    chosen = page.locator("[data-part=beside] select").evaluate_all(
        "all => all.slice(0, 2).map((e) => e.selectedOptions[0].textContent)"
    )
    assert chosen == [first, second]
    page.keyboard.press("Escape")
    assert page.locator(".tooltip.shown").count() == 0


def test_what_the_keyboard_shows_outlives_the_scroll_of_its_own_focus(open_page, default_page):
    page = open_page(default_page)
    chart = page.locator("[data-part=frontier] svg.chart")
    chart.focus()
    page.keyboard.press("ArrowRight")
    scrolled(page)
    tooltip = page.locator(".tooltip.shown")
    name, before = tooltip.locator("strong").inner_text(), tooltip.bounding_box()
    scrolled(page, 40)
    assert tooltip.locator("strong").inner_text() == name
    assert tooltip.bounding_box()["y"] == pytest.approx(before["y"] - 40, abs=1)  # it goes with its point
    page.mouse.move(*mark_of(page, DPO))
    pointed = tooltip.locator("strong").inner_text()
    assert pointed != name
    scrolled(page, 40)
    assert pointed not in tooltip.locator("strong").all_inner_texts()  # what the pointer showed does not stay


def test_a_touch_screen_has_no_shift_key(open_page, default_page):
    assert not open_page(default_page).get_by_text("A touch chooses").is_visible()
    page = open_page(default_page, width=390, touch=True)
    rival = page.locator("[data-part=frontier] .point:not(.bare):not(.reference)").last.get_attribute("data-policy")
    wanted = [rival, str(place_of(page, *DPO))]
    for which, place in zip("AB", wanted, strict=True):
        page.get_by_role("group", name="A touch chooses").get_by_label(which, exact=True).tap()
        box = in_view(page.locator(f"[data-part=frontier] .point[data-policy='{place}'] path.mark")).bounding_box()
        page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    chosen = page.locator("[data-part=beside] select").evaluate_all("all => all.slice(0, 2).map((e) => e.value)")
    assert chosen == wanted


def test_every_budget_has_the_numbers_of_its_table(open_page, default_page):
    import pandas as pd

    comparisons = pd.read_csv(RESULTS / "imdb_frontier" / "comparisons.csv")
    page = open_page(default_page)
    select = page.get_by_label("Compared at")
    for budget in ("shared", "1", "3"):
        select.select_option(f"kl-{budget}")
        rows = comparisons[(comparisons["kl_budget"].astype(str) == budget) & comparisons["difference"].notna()]
        text = page.locator("[data-part=verdict]").inner_text()
        assert len(rows)
        for row in rows.rename(columns={"from": "from_"}).itertuples():
            said = f"DPO minus {row.method}: {-row.difference:+.3f} [{-row.difference_high:+.3f}, {-row.difference_low:+.3f}]"
            said += f" (from {row.from_:.1f} to {row.to:.1f} nats)." if budget == "shared" else "."
            assert said.replace("-", "−") in text.replace("-", "−")
    compute = select.evaluate("e => [...e.options].map((o) => o.value).filter((v) => v.startsWith('compute'))")
    assert len(compute) == 4
    select.select_option(compute[-1])
    assert "million forward tokens" in page.locator("[data-part=verdict]").inner_text()


def test_a_method_is_hidden_in_every_chart(open_page, default_page):
    page = open_page(default_page)
    points, runs = page.locator("[data-part=frontier] .point"), page.locator("[data-part=training] .run")
    before = points.count(), runs.count()
    button = page.locator("[data-part=frontier] .legend").get_by_role("button", name="DPO", exact=True)
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert points.count() < before[0]
    assert runs.count() < before[1]
    button.click()
    assert (points.count(), runs.count()) == before


def test_a_run_is_seen_in_all_panels(open_page, default_page):
    page = open_page(default_page)
    chart = page.locator("[data-part=training] svg.chart").first
    box = in_view(chart).bounding_box()
    for down in np.linspace(0.1, 0.8, 40):
        page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + down * box["height"])
        if page.locator("[data-part=training] .run.near").count():
            break
    assert page.locator("[data-part=training] .run.near").count() > 1
    page.mouse.down()
    page.mouse.up()
    name = page.locator(".tooltip.shown strong").inner_text()
    ticks = page.locator("[data-part=training] .ticks")
    assert ticks.inner_text().startswith(name)
    ticks.get_by_role("button").first.click()
    step = ticks.get_by_role("button").first.inner_text()
    chosen = page.locator("[data-part=beside] select").first.evaluate("e => e.selectedOptions[0].textContent")
    assert f"step {step}" in chosen or "not on a hull" in chosen
    marks = page.locator("[data-part=training] svg.chart").first.locator(".run .mark")
    assert marks.count() == page.locator("[data-part=training] svg.chart").first.locator(".run").count() > 1
    assert len(set(marks.evaluate_all("marks => marks.map((mark) => mark.getAttribute('d'))"))) > 1
    page.locator("[data-part=training]").get_by_text("step", exact=True).click()
    ends = page.locator("[data-part=training] svg.chart").first.locator(".axes text").all_text_contents()
    assert max(float(end.replace("−", "-")) for end in ends if end) > 10
    assert page.locator("[data-part=training] .run.near").count() > 1


def test_the_records_leave_as_a_file(open_page, default, default_page, tmp_path):
    import pandas as pd

    page = open_page(default_page)
    with page.expect_download() as found:
        page.get_by_role("button", name="Records as CSV").click()
    found.value.save_as(tmp_path / "records.csv")
    table = pd.read_csv(tmp_path / "records.csv", keep_default_na=False, na_values=[""])
    keys = ["method", "setting", "seed", "step", "split", "metric"]
    ours = default.records.fillna({"setting": ""}).set_index(keys)["value"]
    theirs = table.fillna({"setting": ""}).set_index(keys)["value"]
    assert set(theirs.index) <= set(ours.index)
    assert {"reward", "kl", "log_odds"} <= set(table["metric"])
    assert np.allclose(theirs, ours[~ours.index.duplicated()].reindex(theirs.index), rtol=2e-6, atol=1e-9)


CONTRAST = """() => {
    const parse = (text) => text.match(/[\\d.]+/g).map(Number);
    const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
    const found = [];
    for (const node of document.querySelectorAll("body *")) {
        const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
        if (!own || !node.getClientRects().length || node.closest("script, noscript, .skip")) continue;
        const style = getComputedStyle(node);
        if (style.visibility === "hidden") continue;
        let ground = null;
        for (let up = node; up && !ground; up = up.parentElement) {
            const colour = parse(getComputedStyle(up).backgroundColor);
            if (colour.length < 4 || colour[3] === 1) ground = colour;
        }
        const front = parse(node instanceof SVGElement ? style.fill : style.color);
        const [a, b] = [light(front), light(ground)];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) found.push([node.tagName, node.textContent.slice(0, 40), ratio.toFixed(2)]);
    }
    return found;
}"""


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1600, "light")])
def test_it_fits_and_can_be_read(open_page, default_page, width, scheme):
    page = open_page(default_page, width=width, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CONTRAST) == []
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Light or dark").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != ground
    assert page.evaluate(CONTRAST) == []


def test_it_prints(open_page, default_page):
    page = open_page(default_page)
    printed = page.pdf()
    assert printed.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type /Page\b", printed)) <= 30


def test_the_tables_are_there_for_who_sees_no_chart(open_page, default, default_page):
    page = open_page(default_page)
    for chart in page.locator("svg.chart").all():
        assert chart.get_attribute("aria-label")
    assert page.evaluate(
        "[...document.querySelectorAll('select, input')].every((e) => e.labels.length || e.getAttribute('aria-label'))"
    )
    page.get_by_text("Every policy").click()
    policies = default.records[["method", "setting", "seed", "step"]].drop_duplicates()
    assert page.locator("[data-part=points] tbody tr").count() == len(policies)
    SCREENSHOT.parent.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOT, full_page=True)
    assert SCREENSHOT.stat().st_size > 50_000


def test_curves_have_points_to_hover_and_to_choose(open_page):
    results = read_results(RESULTS / "temperature")
    page = open_page(report_html([("temperature", results)]))
    points = page.locator("[data-part=frontier] .point")
    assert points.count() == len(results.records[["method", "setting", "step", "temperature"]].drop_duplicates())
    in_view(points.nth(3)).hover()
    name = page.locator(".tooltip.shown strong").inner_text()
    points.nth(3).click()
    assert page.locator("[data-part=beside] select").first.evaluate("e => e.selectedOptions[0].textContent") == name


def test_win_rates_have_the_verdicts_of_the_judge(open_page):
    results = read_results(RESULTS / "hh_dialogue_local")
    page = open_page(report_html([("hh_dialogue_local", results)]))
    judgments = page.locator("[data-part=judgments]")
    assert judgments.locator("tbody tr").count() == 50
    assert f"50 of {len(results.verdicts)}" in judgments.inner_text()
    raw = page.locator("[data-part=frontier] .point path.mark").first.get_attribute("transform")
    page.get_by_text("length-controlled", exact=True).click()
    assert page.locator("[data-part=frontier] .point path.mark").first.get_attribute("transform") != raw


OPEN = "where => { for (const node of document.querySelectorAll(`${where} details`)) node.open = true; }"
STUDIES = ["imdb_frontier", "temperature", "hh_dialogue_local", "best_of_n_imdb", "label_noise/noise-0.4"]


@pytest.mark.parametrize("name", STUDIES)
def test_nothing_is_undefined(open_page, name):
    """Every budget, every table that folds out, and what hovering says."""
    page = open_page(report_html([(name, read_results(RESULTS / name))], samples=4))
    texts = [page.locator("main").inner_text()]
    for select in page.locator("[data-part=verdict] select").all():
        for value in select.evaluate("e => [...e.options].map((o) => o.value)"):
            select.select_option(value)
            page.evaluate(OPEN, "[data-part=verdict]")
            texts.append(page.locator("[data-part=verdict]").inner_text())
    for _ in range(3):  # some stand in others
        page.evaluate(OPEN, "main")
        page.wait_for_timeout(50)
    chart = page.locator("[data-part=frontier] svg.chart").first
    (chart if chart.get_attribute("tabindex") else chart.locator(".point").first).focus()
    page.keyboard.press("ArrowRight")
    texts.append(page.locator("body").inner_text())
    for text in texts:
        assert not re.findall(r".*(?:undefined|NaN|null|Infinity|\[object).*", text)


def test_two_rewards_are_a_plane_with_the_policies_that_no_other_beats(open_page, plane):
    page = open_page(report_html([("plane", plane)]))
    frontier = page.locator("[data-part=frontier]")
    assert frontier.locator(".point").count() == 5
    steps = frontier.locator("path.ideal.dashed").get_attribute("d")
    marks = frontier.locator(".point .mark").evaluate_all("marks => marks.map((mark) => mark.getAttribute('transform'))")
    at = [tuple(float(number) for number in re.findall(r"[\d.]+", place)) for place in marks]
    best = sorted((x, y) for x, y in at if not any(u >= x and v <= y and (u, v) != (x, y) for u, v in at))  # y points downwards
    assert [(float(x), float(y)) for y, x in re.findall(r"V([\d.]+)H([\d.]+)", steps)] == best
    assert len(best) == 2  # PPO of two models in safety, of one in helpfulness
    assert "safety, logits" in frontier.locator("svg.chart").get_attribute("aria-label")
    frontier.locator("svg.chart").focus()
    page.keyboard.press("ArrowRight")
    told = page.locator(".tooltip.shown").inner_text()
    assert re.search(r"safety \d", told)
    assert re.search(r"helpfulness \d", told)
    frontier.get_by_text("helpfulness against KL", exact=True).click()
    assert "helpfulness" in frontier.locator("svg.chart").get_attribute("aria-label")
    assert frontier.locator("path.ideal").count() == 0
    page.get_by_label("Compared at").select_option("safety")
    assert page.get_by_text("DPO minus PPO (one model of all pairs): +1.500").count() == 1


def test_two_studies_stand_side_by_side(open_page, default):
    other = read_results(RESULTS / "temperature")
    page = open_page(report_html([("one", default), ("other", other)]), width=1600)
    left, right = (box.bounding_box() for box in page.locator("article.study").all())
    assert left["x"] + left["width"] <= right["x"]
    assert left["y"] == right["y"]
    links = page.locator("nav a")
    assert links.evaluate_all("links => links.map((link) => link.hash)") == ["#study-0", "#study-1"]
    assert page.locator("#study-1 h1").inner_text() == links.last.inner_text()
    assert page.get_by_label("same axes and settings").count() == 0  # curves against temperature are nothing like a frontier


def test_studies_of_one_reward_share_axes_and_settings_until_they_are_parted(open_page, default):
    page = open_page(report_html([("one", default), ("other", read_results(RESULTS / "imdb_frontier_paper_grid"))]), width=1600)
    both = [page.locator(f"#study-{study}") for study in range(2)]

    def axes():
        ticks = "texts => texts.map((text) => `${text.textContent} ${text.getAttribute('x')} ${text.getAttribute('y')}`)"
        return [study.locator("[data-part=frontier] svg.chart .axes text").evaluate_all(ticks) for study in both]

    def pressed(method):
        return [
            study.locator(".legend button", has_text=re.compile(f"^ {method}$")).get_attribute("aria-pressed") for study in both
        ]

    def is_log():
        return [study.get_by_label("logarithmic").is_checked() for study in both]

    at_first, right = axes()
    assert at_first == right
    both[0].get_by_text("logarithmic", exact=True).click()
    assert is_log() == [True, True]
    for other in ("log-odds", "validation"):  # each draws what the others have, as they are set by now
        both[1].get_by_text(other, exact=True).click()
        left, right = axes()
        assert left == right
    assert left != at_first
    both[1].locator(".legend button", has_text=re.compile("^ Unlikelihood$")).click()
    assert pressed("Unlikelihood") == ["false", "false"]
    left, right = axes()
    assert left == right
    both[1].get_by_label("Compared at").select_option(label="3 nats")
    assert both[0].get_by_label("Compared at").evaluate("e => e.selectedOptions[0].textContent") == "3 nats"

    both[0].get_by_label("same axes and settings").click()
    assert not both[1].get_by_label("same axes and settings").is_checked()
    both[1].get_by_text("linear", exact=True).click()
    both[1].locator(".legend button", has_text=re.compile("^ Unlikelihood$")).click()
    assert is_log() == [True, False]
    assert pressed("Unlikelihood") == ["false", "true"]
    left, right = axes()
    assert left != right
    both[1].get_by_label("same axes and settings").click()  # the others are set as the one in which it was asked
    assert is_log() == [False, False]
    assert pressed("Unlikelihood") == ["true", "true"]
    left, right = axes()
    assert left == right
