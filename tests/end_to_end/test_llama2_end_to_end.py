"""RLHF in Llama 2's order on made-up dialogues, as a user starts it: the whole folder; a second start makes nothing."""

import re
from pathlib import Path

import pandas as pd
import pytest
from doors import through_doors

from suite.report.folder import redraw

pytestmark = pytest.mark.slow  # two minutes; its stages, rewards, methods and page have tests of their own
SCRIPT = Path(__file__).parents[2] / "experiments" / "run_llama2_rlhf.py"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("llama2")


@pytest.fixture(scope="module")
def started(place):
    words = [SCRIPT, "--no-gatt", "--runs", place / "runs", "--out", place / "out", "--device", "cpu", "--precision", "float32"]
    return through_doors("run", [words, words])


def test_every_arm_is_in_the_folder_and_nothing_is_made_twice(started, place):
    for code, _, complaint in started:
        assert code == 0, complaint[-2000:]
    plans = re.findall(r"^\d+ runs: .*$", started[1][1], re.MULTILINE)
    assert len(plans) == 2
    assert all(plan.endswith("cached (" + str(place / "runs") + ")") for plan in plans), plans
    found = pd.read_csv(place / "out" / "trade_off.csv", keep_default_na=False)
    arms = {(row["arm"], row["method"]) for row in found.to_dict("records")}
    assert arms == {
        ("two models", "PPO"), ("two models", "Rejection sampling"), ("two models", "Rejection sampling, then PPO"),
        ("one model of all pairs", "PPO"), ("", "DPO"), ("", "Preferred-FT"),
    }  # fmt: skip
    reference = found[found["method"] == "Preferred-FT"].iloc[0]
    assert abs(reference["kl"]) < 1e-3
    assert found["helpfulness"].between(0, 4).all()
    assert 1 <= found["best"].sum() < len(found)


def test_both_kinds_of_pairs_are_learned_from_in_equal_shares(started, place):
    page = (place / "out" / "summary.md").read_text()
    of_safety, of_helpfulness = re.search(r"\((\d+) from safety, (\d+) from helpfulness\)", page).groups()
    assert int(of_safety) - int(of_helpfulness) in (0, 1)
    assert int(of_helpfulness) >= 12
    for model in ("two models, seed 0, helpfulness", "two models, seed 0, safety", "one model of all pairs, seed 0"):
        assert f"### {model}\n" in page
    assert "so nothing here is a verdict on methods" in page
    assert "one seed: these policies" in page
    rows = pd.read_json(next((place / "runs" / "made_up").glob("*/helpfulness.jsonl")), lines=True)
    assert (rows["score_chosen"] > rows["score_rejected"]).all()
    assert set(rows["rating"]) <= {0, 1, 2, 3}


def test_the_figure_is_drawn_again_from_the_table(started, place):
    before = (place / "out" / "trade_off.svg").read_text()
    assert all(name in before for name in ("DPO", "Preferred-FT", "PPO, one model of all pairs", "trade-off frontier"))
    figure, page = redraw(place / "out", place / "again")
    assert figure.read_text() == before
    assert page.read_text() == (place / "out" / "report.html").read_text()


def test_both_arms_are_on_one_page_and_can_be_watched(started, place, tmp_path, monkeypatch):
    from suite.analysis.records import read_results
    from suite.report.html.data import data_of
    from suite.report.html.live import Sweep
    from suite.study.plan_file import enter_studies

    data = data_of(read_results(place / "out"), "out")
    assert data["kind"] == "plane"
    assert {method["name"] for method in data["methods"]} == {
        "PPO", "PPO (one model of all pairs)", "Rejection sampling", "Rejection sampling, then PPO", "DPO", "Preferred-FT",
    }  # fmt: skip
    table = pd.read_csv(place / "out" / "trade_off.csv", keep_default_na=False)
    at = data["policies"]["method"].index([method["name"] for method in data["methods"]].index("DPO"))
    ours = table[(table["method"] == "DPO") & (table["step"] == data["policies"]["step"][at])].iloc[0]
    value, low, high, n = data["points"]["test"]["safety"]
    assert (value[at], low[at], high[at]) == pytest.approx((ours["safety"], ours["safety_low"], ours["safety_high"]), rel=1e-4)
    assert n == ours["n"]
    monkeypatch.chdir(tmp_path)  # reading a plan changes the folder
    seen = Sweep(*enter_studies(Path(re.search(r"suite watch (\S+)", started[1][1])[1]))).look()
    assert [study["name"] for study in seen["studies"]] == ["two models", "one model of all pairs"]
    assert all(study["training"]["runs"] for study in seen["studies"])
