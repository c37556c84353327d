"""Who keeps an instruction, from hand-made answers: means, who is compared, differences, verdicts, attention."""

import math

import numpy as np
import pandas as pd
import pytest

from suite.analysis.consistency import attention_by_turn, by_turn, differences, in_all, interval_of, learned_from
from suite.common.errors import UserError


def answers(kept, *, part="test", seeds=(1,), check="capitals", attention=math.nan, unasked=None):
    """Policy → (turns, dialogues) of 0 and 1, the same for every seed; policy → `unasked` of all its answers, else 0."""
    rows = pd.DataFrame([
        {"part": part, "policy": policy, "seed": seed, "dialogue_id": f"{check}-{k}", "check": check, "turn": turn + 1,
         "kept": value, "unasked": (unasked or {}).get(policy, 0), "cut": 0, "words": 3,
         "attention": attention, "largest_layer": 2 * attention, "even": 0.2}
        for policy, table in kept.items() for seed in seeds
        for turn, row in enumerate(table) for k, value in enumerate(row)
    ])  # fmt: skip
    return rows.assign(gained=rows["kept"] - rows["unasked"])


KEPT = {
    "given model": [[1, 1, 0, 0], [0, 0, 0, 0]],
    "plain SFT": [[1, 1, 0, 0], [0, 0, 0, 1]],
    "GAtt": [[1, 1, 1, 0], [1, 1, 1, 1]],
}


def test_means_by_turn_over_all_and_for_each_check():
    rows = pd.concat([answers(KEPT), answers({policy: [[0, 0], [1, 1]] for policy in KEPT}, check="contains")])
    found = by_turn(rows).set_index(["policy", "check", "turn"])
    assert found.loc[("GAtt", "capitals", 1), "kept"] == 0.75
    assert found.loc[("GAtt", "all", 1), "kept"] == 0.5
    assert found.loc[("given model", "all", 2), "kept"] == pytest.approx(2 / 6)
    assert found.loc[("GAtt", "all", 1), "dialogues"] == 6
    assert list(found.reset_index()["check"].unique()) == ["all", "capitals", "contains"]


def test_an_interval_holds_its_mean_has_a_width_and_no_impossible_share():
    found = by_turn(answers(KEPT, seeds=(1, 2, 3)))
    assert (found["low"] <= found["kept"]).all()
    assert (found["kept"] <= found["high"]).all()
    assert (found["low"] < found["high"]).all()
    assert found["low"].min() >= 0
    assert found["high"].max() <= 1
    none = found[(found["policy"] == "given model") & (found["turn"] == 2)].iloc[0]
    assert none["high"] == pytest.approx(1 - 0.025 ** (1 / 4))  # Clopper and Pearson: 0 of 4 dialogues


def test_with_seeds_an_interval_is_over_both():
    # two seeds that differ by 0.5 in every dialogue: sd of the seeds' means 0.3536, standard error 0.25, one degree of freedom
    values = np.array([[0.25, 0.25, 0.25, 0.25], [0.75, 0.75, 0.75, 0.75]])
    mean, low, high, count = interval_of(values, None)
    assert (mean, count) == (0.5, 4)
    assert high - mean == pytest.approx(12.7062 * 0.25, rel=1e-4)
    assert interval_of(values, (0.0, 1.0))[1:3] == (0.0, 1.0)
    assert low == pytest.approx(2 * mean - high)


def test_only_dialogues_that_all_answered_with_every_seed_are_compared():
    rows = answers(KEPT, seeds=(1, 2))
    rows = rows[~((rows["policy"] == "GAtt") & (rows["seed"] == 2) & (rows["dialogue_id"] == "capitals-1"))]
    train = answers({"GAtt": [[1] * 9]}, part="train")
    left = in_all(pd.concat([rows, train]))
    assert set(left["dialogue_id"]) == {"capitals-0", "capitals-2", "capitals-3"}
    assert set(left["part"]) == {"test"}
    few = rows[rows["dialogue_id"].isin(["capitals-0", "capitals-1"])]
    with pytest.raises(UserError, match="1 test dialogues were answered by every policy"):
        in_all(few)


def test_the_difference_is_gatt_less_plain_paired_by_dialogue():
    found = differences(answers(KEPT, seeds=(1, 2, 3)))
    assert list(found["what"]) == ["kept", "kept", "gained", "gained"]
    assert list(found["turn"]) == [1, 2, 1, 2]
    assert list(found["difference"]) == [0.25, 0.75] * 2
    assert (found["low"] < found["difference"]).all()
    assert list(found["dialogues"]) == [4] * 4
    assert list(found["seeds"]) == [3] * 4
    turned = {"plain SFT": KEPT["GAtt"], "GAtt": KEPT["plain SFT"], "given model": KEPT["given model"]}
    assert list(differences(answers(turned, seeds=(1, 2, 3)))["difference"]) == [-0.25, -0.75] * 2


def test_what_is_kept_unasked_is_not_gained():
    unasked = {"given model": 0, "plain SFT": 0, "GAtt": 1}
    rows = answers(KEPT, seeds=(1, 2, 3), unasked=unasked)
    assert by_turn(rows, "unasked").query("check == 'all'").groupby("policy")["unasked"].mean().to_dict() == unasked
    gained = by_turn(rows, "gained").set_index(["policy", "check", "turn"])
    assert gained.loc[("GAtt", "all", 1), "gained"] == -0.25
    assert gained.loc[("plain SFT", "all", 1), "gained"] == 0.5
    assert gained["low"].min() >= -1
    found = differences(rows).set_index(["what", "turn"])["difference"]
    assert found.to_dict() == {("kept", 1): 0.25, ("kept", 2): 0.75, ("gained", 1): -0.75, ("gained", 2): -0.25}


def test_no_verdict_under_three_seeds_and_better_where_it_is_seen():
    many = {"given model": [[0] * 40], "plain SFT": [[0] * 36 + [1] * 4], "GAtt": [[1] * 30 + [0] * 10]}
    assert list(differences(answers(many, seeds=(1, 2)))["verdict"]) == ["2 seeds: these policies"] * 2
    assert list(differences(answers(many, seeds=(1, 2, 3)))["verdict"]) == ["better"] * 2
    habit = answers(many, seeds=(1, 2, 3), unasked={"given model": 0, "plain SFT": 0, "GAtt": 1})
    assert list(differences(habit)["verdict"]) == ["better", "worse"]


def test_where_all_are_alike_so_many_dialogues_leave_something_open():
    alike = {policy: [[0] * 8] for policy in KEPT}
    row = differences(answers(alike, seeds=(1, 2, 3))).iloc[0]
    bound = 1 - 0.025 ** (1 / 8)
    assert (row["difference"], row["low"], row["high"]) == (0.0, pytest.approx(-bound), pytest.approx(bound))
    assert row["verdict"] == "not resolved"
    always = {"given model": [[0] * 8], "plain SFT": [[0] * 8], "GAtt": [[1] * 8]}
    row = differences(answers(always, seeds=(1, 2, 3))).iloc[0]
    assert row["difference"] == 1.0
    assert row["low"] == pytest.approx(1 - 2 * bound)
    assert row["high"] == 1.0
    row = differences(answers(always, seeds=(1, 2, 3))).iloc[1]  # of gains, between -2 and 2
    assert (row["low"], row["high"]) == (pytest.approx(1 - 3 * bound), pytest.approx(1 + bound))


def test_attention_is_of_those_answers_that_have_it():
    rows = pd.concat([answers(KEPT, attention=0.1), answers(KEPT, check="contains")])
    found = attention_by_turn(rows)
    assert len(found) == 6
    assert set(found["dialogues"]) == {4}
    assert found["attention"].to_numpy() == pytest.approx(0.1)
    assert found["largest_layer"].to_numpy() == pytest.approx(0.2)
    assert attention_by_turn(answers(KEPT)).empty


def test_what_was_learned_from_is_the_last_answer_of_the_training_dialogues():
    train = answers({"plain SFT": [[1, 1], [0, 0]], "GAtt": [[0, 0], [1, 0]]}, part="train")
    found = learned_from(pd.concat([train, answers(KEPT)]))
    found = found[found["check"] == "all"].set_index("policy")["kept"]
    assert len(found) == 2
    assert found.to_dict() == {"plain SFT": 0.0, "GAtt": 0.5}
