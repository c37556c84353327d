"""Ratings of preferences: what is read as one, and what stays beside a pair through every table."""

import math

import pandas as pd
import pytest

from suite.data.doctor import TextPair, examine, lines_of
from suite.data.fields import fields_of
from suite.data.parquet import pair_row, pairs_from_table
from suite.data.preference_data import Completion, PreferencePair, Prompt
from suite.data.ratings import rating_of
from suite.data.trl_formats import from_trl, to_trl

TEXTS = {"prompt": "It is", "chosen": " wet.", "rejected": " dry."}


@pytest.mark.parametrize(
    ("value", "rating"),
    [
        ("significantly better", 3), ("Better", 2), ("slightly_better", 1), ("negligibly better / unsure", 0), ("unsure", 0),
        ("Negligibly Better or Unsure", 0), (3, 3), (0, 0), ("2", 2), (1.0, 1), (-3, 3), (-1, 1),
    ],
)  # fmt: skip
def test_four_names_and_four_numbers_are_ratings(value, rating):
    assert rating_of(value) == rating


@pytest.mark.parametrize("value", [4, 2.5, "best", True, None, [1], math.nan, math.inf, ""])
def test_nothing_else_is(value):
    assert math.isnan(rating_of(value))


def test_a_row_is_read_with_its_rating_and_domain():
    found = fields_of({**TEXTS, "rating": "better", "domain": "safety"})
    assert (found.rating, found.domain) == (2.0, "safety")
    assert "rating: column rating" in found.how
    helpsteer = fields_of({**TEXTS, "preference_strength": -2})
    assert (helpsteer.rating, helpsteer.domain) == (2.0, "")
    assert fields_of(TEXTS).rating is None


def test_stars_are_no_rating_and_are_told_as_not_read():
    found = fields_of({**TEXTS, "rating": 4.5})
    assert math.isnan(found.rating)
    assert "rating: column" not in found.how
    assert "not read: rating" in found.how


def _pair(rating, domain=""):
    prompt = Prompt("p", (1, 2), "It is")
    sides = (Completion(prompt, ids, text, truncated=False) for ids, text in (((3, 0), " wet."), ((4, 0), " dry.")))
    return PreferencePair(*sides, 1.0, 0.0, -1.5, -2.5, rating=rating, domain=domain)


@pytest.mark.parametrize("pair", [_pair(3, "safety"), _pair(0), _pair(None, "helpfulness")])
def test_they_stay_beside_the_pair_in_tables_and_files_of_trl(pair, tokenizer):
    row = pair_row("p", pair.chosen, pair.rejected, rating=pair.rating, domain=pair.domain)
    frame = pd.DataFrame([row, pair_row("p", pair.chosen, pair.rejected)])
    found = pairs_from_table(frame, [pair.prompt])
    assert [(p.rating, p.domain) for p in found] == [(pair.rating, pair.domain), (None, "")]
    (again,) = from_trl(to_trl([pair]), tokenizer)
    assert again == pair


def test_the_doctor_counts_ratings_and_names_rows_without(tokenizer):
    def row(number, rating):
        return TextPair(number, "train", f"good film {number}", " plot", " bad", rating=rating)

    report = examine(
        [row(0, 3.0), row(1, 3.0), row(2, None), row(3, math.nan)], tokenizer, max_prompt_tokens=9, max_new_tokens=9
    )
    assert any("ratings: significantly better 2, better 0" in line for line in lines_of(report))
    (found,) = [finding for finding in report.findings if "rating" in finding.what]
    assert found.rows == ("train:2", "train:3")
    quiet = examine([row(0, None), row(1, math.nan)], tokenizer, max_prompt_tokens=9, max_new_tokens=9)
    assert not [finding for finding in quiet.findings if "rating" in finding.what]
    assert not [line for line in lines_of(quiet) if line.startswith("ratings")]
