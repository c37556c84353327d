"""The noise experiment's figure and page from its table."""

import pandas as pd

from suite.report.label_noise import TABLE, draw, noise_page


def rows():
    made = []
    for noise in (0.0, 0.2):
        for method, reward, reach in (("DPO beta = 0.1", 0.7 - noise, 5.0), ("cDPO label_smoothing = 0.2", 0.7, 2.0)):
            for budget in ("1", "3", "shared"):
                row = {
                    "noise": noise,
                    "method": method,
                    "kl_budget": budget,
                    "nearest": 0.5,
                    "reach": reach,
                    "verdict": "",
                    "seeds": 3,
                }
                known = budget != "shared"
                row |= {"reward": reward, "low": reward - 0.02, "high": reward + 0.03} if known else {}
                if known and method != "DPO beta = 0.1":
                    row |= {"difference": noise, "difference_low": noise - 0.03, "difference_high": noise + 0.03,
                            "verdict": "better" if noise else "not resolved"}  # fmt: skip
                made.append(row)
    return pd.DataFrame(made)


def test_the_page_has_every_level_and_its_intervals():
    text = noise_page(rows(), command="c", seeds=[0, 1, 2], prompts=192)
    assert "| 0.2 " in text
    assert "0.700 [0.680, 0.730]" in text
    assert "+0.200 [+0.170, +0.230]" in text
    assert "Training seeds 0, 1, 2, 192 test prompts" in text


def test_the_figure_has_a_panel_for_each_kl(tmp_path):
    rows().to_csv(tmp_path / TABLE, index=False)
    (written,) = draw(tmp_path, tmp_path)
    svg = written.read_text()
    assert "at 1 nats" in svg
    assert "at 3 nats" in svg
    assert "test prompts and 3 training seeds" in svg
    without = rows()[lambda table: table["method"] == "DPO beta = 0.1"]
    without.to_csv(tmp_path / TABLE, index=False)
    alone = draw(tmp_path, tmp_path)[0].read_text()
    marks = svg.count("<use ") - alone.count("<use ")  # of cDPO: at 1 nat two levels of noise with their bars, and the legend
    assert marks > 0
