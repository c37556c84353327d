"""The gold reward: by hand, its file, and what it says of praise, blame and real reviews."""

import math
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from suite.common.errors import UserError
from suite.data.preference_data import Completion, Prompt
from suite.evaluation.reward_kl import score
from suite.rewards.ngram_reward import WEIGHTS, NgramReward, ngrams_of
from suite.study.profiles import ASSETS

REVIEWS = Path(__file__).parents[3] / "shared" / "data" / "imdb" / "test.parquet"
PROMPTS = ["This film", "I", "The plot of the movie"]
GOOD = [" is wonderful, a joy from start to finish.", " loved every minute of it, superb.", " was brilliant and moving."]
BAD = [" is terrible, a waste of time.", " hated every minute of it, awful.", " was boring, stupid and the worst ever."]


def by_hand():
    """good +1, not good -3, ! +0.5; bias 0.25."""
    weights = {"good": 1.0, "not good": -3.0, "!": 0.5}
    return NgramReward(np.array([crc32(w.encode()) for w in weights], np.uint32), np.array(list(weights.values())), 0.25)


@pytest.fixture(scope="module")
def gold():
    return NgramReward.load(ASSETS / "imdb-sentiment")


def test_every_ngram_counts_once_in_lower_case():
    assert ngrams_of("Good, GOOD film!") == {
        crc32(n.encode()) for n in ("good", "film", "!", "good good", "good film", "film !", "good good film", "good film !")
    }
    reward = by_hand()
    texts = ["Good", "good good good", "not GOOD!", "nothing known"]
    assert reward.log_odds([""] * 4, texts) == pytest.approx([1.25, 1.25, -1.25, 0.25])
    assert reward([""], ["Good"]) == pytest.approx([1 / (1 + math.exp(-1.25))])


def test_prompt_and_completion_are_one_text():
    reward = by_hand()
    assert reward.log_odds(["It is not"], [" good"])[0] == pytest.approx(-1.75)
    assert reward.log_odds(["It is not go"], ["od"])[0] == pytest.approx(-1.75)  # a completion may begin inside a word


def test_praise_scores_above_blame(gold):
    good, bad = gold(PROMPTS, GOOD), gold(PROMPTS, BAD)
    assert min(good) > 0.65
    assert max(bad) < 0.3


def test_saved_and_loaded_again(gold, tmp_path):
    gold.save(tmp_path)
    again = NgramReward.load(tmp_path)
    assert again.log_odds(PROMPTS, GOOD).tolist() == gold.log_odds(PROMPTS, GOOD).tolist()
    assert (tmp_path / WEIGHTS).read_bytes() == (ASSETS / "imdb-sentiment" / WEIGHTS).read_bytes()


def test_a_damaged_file_is_refused_in_one_line(gold, tmp_path):
    with pytest.raises(UserError, match="cannot be read as the weights"):
        NgramReward.load(tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"no tables")
    with pytest.raises(UserError, match="cannot be read as the weights") as error:
        NgramReward.load(tmp_path)
    assert "\n" not in str(error.value)
    NgramReward(gold.ngrams, np.full_like(gold.weights, np.nan), 0.0).save(tmp_path)
    with pytest.raises(UserError, match="is damaged"):
        NgramReward.load(tmp_path)


def test_its_log_odds_stand_beside_the_reward():
    completion = Completion(Prompt("p", (1,), "It is"), (2,), " not good", truncated=False)
    values, odds = score(by_hand(), [completion])
    assert odds.tolist() == pytest.approx([-1.75])
    assert values.tolist() == pytest.approx([1 / (1 + math.exp(1.75))])


@pytest.mark.skipif(not REVIEWS.exists(), reason="the IMDb reviews of ../shared/data are not here")
def test_on_real_reviews_it_is_as_good_as_its_card_says(gold):
    import pandas as pd

    rows = pd.read_parquet(REVIEWS).sample(1500, random_state=0)
    positive = np.array(gold([""] * len(rows), rows["text"].tolist()))
    assert ((positive > 0.5) == rows["label"]).mean() > 0.87  # 0.889 of the first 255 tokens, on the card
