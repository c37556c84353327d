"""Who won, in words: signs, intervals and names the right way round."""

import numpy as np
import pandas as pd

from suite.comparisons import compare
from suite.figures import win_rates_page
from suite.figures.verdict import verdict
from suite.maths.frontier import Frontier

RNG = np.random.default_rng(0)
START = RNG.uniform(0.3, 0.5, 60)


def frontier(gain):
    """From the reference to one policy at 12 nats that gains `gain` on every prompt, more or less."""
    reward = np.stack([START, START + gain + RNG.normal(0, 0.01, 60)])[None]
    return Frontier(reward, np.stack([np.zeros(60), np.full(60, 12.0)])[None])


def test_the_better_method_is_called_better_whichever_is_asked_about():
    found = {"Mine": frontier(0.4), "DPO": frontier(0.2), "Twin": frontier(0.4)}
    mine, dpo = (verdict(compare(found, against=name), name) for name in ("Mine", "DPO"))
    assert "**Mine is better than DPO and statistically tied with Twin**" in mine
    assert "**DPO is worse than Mine and worse than Twin**" in dpo
    assert "60 prompts and 1 training seed, Holm over 10 comparisons" in mine
    row = next(line for line in mine.splitlines() if line.startswith("| DPO"))
    at_ten = row.split("|")[5].split()  # the gap at 10 of 12 nats: five sixths of 0.2
    assert abs(float(at_ten[0]) - 0.2 * 10 / 12) < 0.01
    assert float(at_ten[1].strip("[,")) < float(at_ten[0]) < float(at_ten[2].strip("],"))
    assert at_ten[3] == "better"
    assert "by their KL in nats: Mine 12.0 to 12.0, DPO 12.0 to 12.0, Twin" in mine
    assert "One training seed" in mine


def test_a_method_without_a_policy_and_one_without_rivals():
    found = {"Mine": frontier(0.4)}
    assert "nothing to compare" in verdict(compare(found, against="Gone"), "Gone")
    assert "compared with nothing" in verdict(compare(found, against="Mine"), "Mine")


def answers(method, score):
    columns = {"x": 1.0, "temperature": 1.0, "method": method, "setting": "", "panel": "temperature"}
    return pd.DataFrame({**columns, "prompt_id": [f"p{k}" for k in range(40)], "score": score})


def test_win_rates_have_their_signs_too():
    numbers = pd.concat([answers("DPO", [1.0] * 30 + [0.0] * 10), answers("PPO", [1.0] * 10 + [0.0] * 30)])
    table = pd.DataFrame(
        [
            {"method": "DPO", "setting": "", "win_rate": 0.75, "win_rate_low": 0.6, "win_rate_high": 0.9, "n": 40},
            {"method": "PPO", "setting": "", "win_rate": 0.25, "win_rate_low": 0.1, "win_rate_high": 0.4, "n": 40},
            {"method": "Few", "setting": "", "win_rate": 1.0, "win_rate_low": np.nan, "win_rate_high": np.nan, "n": 2},
        ]
    ).assign(temperature=1.0)
    text = win_rates_page.verdict(table, numbers)
    assert "**DPO** beats the chosen answers: win rate 0.75 [0.60, 0.90]" in text
    assert "**PPO** loses to the chosen answers" in text
    assert "**Few** ties with the chosen answers" in text  # no interval, no claim
    assert "**DPO is better than PPO**: +0.500" in text
    assert "**PPO is worse than DPO**: -0.500" in win_rates_page.verdict(table, numbers, "PPO")
    assert "T = " not in text


def test_several_temperatures_are_named():
    numbers = pd.concat([
        answers(method, score).assign(x=t, temperature=t)
        for t in (0.0, 1.0) for method, score in (("DPO", [1.0] * 30 + [0.0] * 10), ("PPO", [0.0] * 40))
    ])  # fmt: skip
    columns = {"method": "DPO", "setting": "", "win_rate": 0.75, "win_rate_low": 0.6, "win_rate_high": 0.9, "n": 40}
    text = win_rates_page.verdict(pd.DataFrame([{**columns, "temperature": t} for t in (0.0, 1.0)]), numbers)
    for t in "01":
        assert f"**DPO, T = {t}** beats the chosen answers" in text
        assert f"**DPO is better than PPO, T = {t}**" in text
