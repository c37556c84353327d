"""Who won, in words: signs, intervals and names the right way round."""

import math

import numpy as np
import pandas as pd
import pytest

from suite.analysis.curves import compare_curves
from suite.analysis.equal_kl import compare
from suite.analysis.records import Results
from suite.analysis.verdict import MARGIN, SAME, TURNED, WORDS, verdict_of, word_of
from suite.maths.frontier import Frontier
from suite.report import curves
from suite.report.verdict import verdict

RNG = np.random.default_rng(0)
START = RNG.uniform(0.3, 0.5, 60)


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.001, 0.5, "better"), (-0.5, -0.001, "worse"), (-0.02, 0.02, "equivalent"), (0.0, 0.0, "not resolved"),
        (-0.021, 0.01, "not resolved"), (-0.01, 0.021, "not resolved"), (-0.5, 0.5, "not resolved"),
        (0.001, 0.019, "better"), (-0.019, -0.001, "worse"),  # a small difference is one
        (math.nan, math.nan, "not resolved"), (math.nan, 0.01, "not resolved"), (-0.01, math.nan, "not resolved"),
    ],
)  # fmt: skip
def test_the_one_rule(low, high, word):
    assert verdict_of(low, high) == word
    assert verdict_of(-high, -low) == TURNED[word]
    assert word in WORDS


def test_the_margin_is_two_hundredths_unless_another_is_given():
    assert MARGIN == 0.02
    assert verdict_of(-0.05, 0.05) == "not resolved"
    assert verdict_of(-0.05, 0.05, margin=0.05) == "equivalent"


def frontier(gain, seeds=3):
    """From the reference to policies at 6 and 12 nats that gain a half of `gain` and all of it, more or less."""
    reward = [np.stack([START, *(START + part * gain + RNG.normal(0, 0.01, 60) for part in (0.5, 1.0))]) for _ in range(seeds)]
    return Frontier(range(seeds), reward, [np.stack([np.full(60, kl) for kl in (0.0, 6.0, 12.0)])] * seeds)


def test_the_better_method_is_called_better_whichever_is_asked_about():
    found = {"Mine": frontier(0.4), "DPO": frontier(0.2), "Twin": frontier(0.4)}
    mine, dpo = (verdict(compare(found, against=name), name) for name in ("Mine", "DPO"))
    assert "**Mine is better than DPO and equivalent to Twin**" in mine
    assert "**DPO is worse than Mine and worse than Twin**" in dpo
    assert "60 prompts, 3 training seeds, paired, intervals simultaneous for 6 comparisons" in mine
    row = next(line for line in mine.splitlines() if line.startswith("| DPO"))
    at_ten = row.split("|")[5].split()  # the gap at 10 of 12 nats: five sixths of 0.2
    assert abs(float(at_ten[0]) - 0.2 * 10 / 12) < 0.01
    assert float(at_ten[1].strip("[,")) < float(at_ten[0]) < float(at_ten[2].strip("],"))
    assert at_ten[3] == "better"
    assert row.split("|")[2].strip() == "no policy there"  # at 1 nat
    assert "by their KL in nats: Mine 6.0 to 12.0, DPO 6.0 to 12.0, Twin" in mine
    assert "these policies" not in mine


def test_one_seed_speaks_of_policies_and_says_no_word_of_methods():
    text = verdict(compare({"Mine": frontier(0.4, 1), "DPO": frontier(0.2, 1)}, against="Mine"), "Mine")
    assert text.startswith("**These policies, not these methods**: Mine has +0.1")
    assert "] beside DPO" in text
    for word in ("better", "worse", "equivalent"):
        assert word not in text
    assert "A verdict on methods takes 3 seeds or more." in text


def test_methods_without_a_common_kl_are_not_compared():
    late = frontier(0.4)
    late = Frontier(late.seeds, late.reward, [kl * 3 for kl in late.kl])
    text = verdict(compare({"Mine": frontier(0.4), "Late": late}, against="Mine"), "Mine")
    assert "**Mine is not compared with Late (no policy there)**" in text


def test_a_method_without_a_policy_and_one_without_rivals():
    found = {"Mine": frontier(0.4)}
    assert "nothing to compare" in verdict(compare(found, against="Gone"), "Gone")
    assert "compared with nothing" in verdict(compare(found, against="Mine"), "Mine")


def answers(method, score, t=1.0):
    columns = {"method": method, "setting": "", "seed": 0, "step": 1, "panel": "temperature", "x": t, "temperature": t}
    prompts = [f"p{k}" for k in range(40)]
    return pd.DataFrame({**columns, "split": "test", "prompt_id": prompts, "sample": 0, "metric": "win", "value": score})


def win_rate(method, rate, low, high, n=40, t=1.0):
    return {"method": method, "setting": "", "seed": 0, "step": 1, "panel": "temperature", "x": t, "temperature": t,
            "split": "test", "metric": "win_rate", "value": rate, "ci_low": low, "ci_high": high, "n": n}  # fmt: skip


def words(measurements, records, against="DPO"):
    results = Results({"against": against}, measurements, pd.DataFrame(records), pd.DataFrame(), pd.DataFrame())
    return curves.verdict_words(results, compare_curves(measurements, against))


def test_win_rates_have_their_signs_too():
    numbers = pd.concat([answers("DPO", [1.0] * 30 + [0.0] * 10), answers("PPO", [1.0] * 10 + [0.0] * 30)])
    table = [win_rate("DPO", 0.75, 0.6, 0.9), win_rate("PPO", 0.25, 0.1, 0.4), win_rate("Few", 1.0, np.nan, np.nan, 2)]
    text = words(numbers, table)
    assert "**DPO** beats the chosen answers: win rate 0.75 [0.60, 0.90]" in text
    assert "**PPO** loses to the chosen answers" in text
    assert "**Few** is not resolved from the chosen answers" in text  # no interval, no claim
    assert "**DPO is better than PPO**: +0.500" in text
    assert "**PPO is worse than DPO**: -0.500" in words(numbers, table, "PPO")
    assert "T = " not in text


def test_several_temperatures_are_named():
    numbers = pd.concat([
        answers(method, score, t)
        for t in (0.0, 1.0) for method, score in (("DPO", [1.0] * 30 + [0.0] * 10), ("PPO", [0.0] * 40))
    ])  # fmt: skip
    text = words(numbers, [win_rate("DPO", 0.75, 0.6, 0.9, t=t) for t in (0.0, 1.0)])
    for t in "01":
        assert f"**DPO, T = {t}** beats the chosen answers" in text
        assert f"**DPO is better than PPO, T = {t}**" in text


def test_a_method_that_is_another_by_construction_is_called_so_where_anything_is_said():
    assert word_of(0.0, 0.0, seeds=3, searched=True, same=True) == SAME
    assert word_of(0.0, 0.0, seeds=1, searched=True, same=True) == "one seed: these policies"
    assert word_of(0.0, 0.0, seeds=3, searched=False, same=True) == "rate not searched"
    assert word_of(0.0, 0.0, seeds=3, searched=True) == "not resolved"
