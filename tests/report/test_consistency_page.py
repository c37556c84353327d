"""The page of Ghost Attention from hand-made answers: numbers without texts, figures from the table alone, plain words."""

import math

import pandas as pd
import pytest

from suite.analysis.consistency import NUMBERS, Consistency
from suite.report.consistency import write_consistency
from suite.report.folder import redraw

POLICIES = ("given model", "plain SFT", "GAtt")
COUNTS = {"user turns": {"rows": 9, "begins as another": 2, "used": 7}}


def study(*, gatt, seeds=(1, 2, 3), attention=0.1, first=1, habit=0):
    """40 dialogues of two turns; the given model keeps `first`, then nothing; GAtt keeps `gatt` of the last answers, `habit` of
    them unasked.
    """
    rows = []
    for policy in POLICIES:
        for seed in seeds:
            for k in range(40):
                for turn in (1, 2):
                    kept = (first if turn == 1 else 0) if policy != "GAtt" else (first if turn == 1 else int(k < gatt))
                    unasked = int(policy == "GAtt" and turn == 2 and k < habit)
                    seen = (attention, 2 * attention, 0.25)
                    rows.append(("test", policy, seed, f"d{k}", "contains", turn, kept, unasked, 0, 5, *seen))
    for policy in POLICIES[1:]:
        learned = ("contains", 2, 1, math.nan, 0, 5, *[math.nan] * 3)
        rows += [("train", policy, seed, f"t{k}", *learned) for seed in seeds for k in range(4)]
    return Consistency(pd.DataFrame(rows, columns=NUMBERS), COUNTS)


def test_everything_is_written_and_drawn_again_from_the_table(tmp_path):
    words = write_consistency(study(gatt=20), tmp_path)
    names = {"consistency.csv", "consistency_by_turn.csv", "consistency.svg", "attention.svg"}
    assert {path.name for path in tmp_path.iterdir()} == names
    for figure in ("consistency.svg", "attention.svg"):
        assert f"({figure})" in words
        assert f"({tmp_path.name}/{figure})" in write_consistency(study(gatt=20), tmp_path, seen_from=tmp_path.parent)
    before = {name: (tmp_path / name).read_bytes() for name in names}
    (tmp_path / "attention.svg").unlink()
    redraw(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in names} == before


def test_the_last_turn_has_the_verdict_and_the_tables_have_the_numbers(tmp_path):
    words = write_consistency(study(gatt=20), tmp_path)
    assert "**At turn 2 GAtt is better than plain SFT** (+0.500 [" in words
    assert "| 2      | 0.000 [" in words
    assert "begins as another: 2" in words
    by_turn = pd.read_csv(tmp_path / "consistency_by_turn.csv").set_index(["what", "policy", "check", "turn"])
    assert by_turn.loc[("kept", "GAtt", "all", 2), "value"] == 0.5
    assert by_turn.loc[("kept, difference", "GAtt - plain SFT", "all", 2), "value"] == 0.5
    assert by_turn.loc[("kept, difference", "GAtt - plain SFT", "all", 2), "verdict"] == "better"
    assert by_turn.loc[("attention, largest layer", "GAtt", "all", 2), "value"] == 0.2
    assert by_turn.loc[("attention, all tokens alike", "GAtt", "all", 2), "value"] == 0.25


def test_what_is_kept_from_habit_is_told_from_what_the_instruction_does(tmp_path):
    words = write_consistency(study(gatt=20, habit=20), tmp_path)
    assert "**At turn 2 GAtt is better than plain SFT** (+0.500 [" in words
    assert "In what is gained by asking it is not resolved from plain SFT (+0.000 [" in words
    by_turn = pd.read_csv(tmp_path / "consistency_by_turn.csv").set_index(["what", "policy", "check", "turn"])
    assert by_turn.loc[("unasked", "GAtt", "all", 2), "value"] == 0.5
    assert by_turn.loc[("gained", "GAtt", "all", 2), "value"] == 0.0
    assert by_turn.loc[("gained, difference", "GAtt - plain SFT", "all", 2), "value"] == 0.0
    assert "In what is gained by asking it is better than plain SFT (+0.500 [" in write_consistency(study(gatt=20), tmp_path)


def test_two_seeds_have_no_verdict(tmp_path):
    words = write_consistency(study(gatt=20, seeds=(1, 2)), tmp_path)
    assert "of these policies; a verdict takes 3 seeds" in words
    assert "better than plain SFT" not in words


@pytest.mark.parametrize(("first", "said"), [(0, True), (1, False)])
def test_what_the_given_model_cannot_do_is_said(tmp_path, first, said):
    assert ("contains in fewer than 5 %" in write_consistency(study(gatt=0, first=first), tmp_path)) is said


def test_without_attention_there_is_no_figure_of_it_not_even_an_old_one(tmp_path):
    write_consistency(study(gatt=20), tmp_path)
    words = write_consistency(study(gatt=20, attention=math.nan), tmp_path)
    assert not (tmp_path / "attention.svg").exists()
    assert "Attention to the instruction" not in words
