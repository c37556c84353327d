import json

import pytest
from conftest import SHARED, needs_reviews

from suite.common.errors import UserError
from suite.data.reviews import Reviews, load_reviews
from suite.policies.causal_lm import CausalLMPolicy
from suite.study.profiles import ASSETS
from suite.tasks.imdb_sentiment import (
    PROMPTS_FILE,
    prompts_from_model,
    prompts_from_reviews,
    prompts_of_model,
    review_order,
    split_of,
    texts_for_sft,
)

SIZES = {"train": 20, "validation": 5, "test": 10}


@pytest.fixture(scope="module")
def embedded():
    return CausalLMPolicy.load(ASSETS / "imdb-gpt2")


def check(prompts):
    everything = [p for some in prompts.values() for p in some]
    assert len({p.ids for p in everything}) == len({p.id for p in everything}) == 35
    assert {len(p.ids) for p in everything} <= set(range(2, 9))
    assert {split: len(some) for split, some in prompts.items()} == SIZES
    assert all(split_of(p.ids) == split for split, some in prompts.items() for p in some)


def test_prefixes_from_the_model_are_disjoint_and_reproducible(embedded):
    prompts = {split: prompts_from_model(embedded, split, size, seed=0) for split, size in SIZES.items()}
    check(prompts)
    assert prompts["train"] == prompts_from_model(embedded, "train", 20, seed=0)
    assert prompts["train"] != prompts_from_model(embedded, "train", 20, seed=1)
    assert all(embedded.tokenizer.eos_token not in p.text for some in prompts.values() for p in some)


def test_asking_for_more_keeps_the_first_ones(embedded):
    assert prompts_from_model(embedded, "train", 30, seed=0)[:20] == prompts_from_model(embedded, "train", 20, seed=0)


def test_the_embedded_model_brings_its_prompts(embedded):
    """The same on every machine: the list that lies beside the weights, prefixes as they would be drawn."""
    listed = json.loads((ASSETS / "imdb-gpt2" / PROMPTS_FILE).read_text())
    ids = [tuple(prefix) for some in listed.values() for prefix in some]
    assert len(set(ids)) == len(ids)
    assert all(split_of(tuple(prefix)) == split for split, some in listed.items() for prefix in some)
    assert all(2 <= len(prefix) <= 8 and max(prefix) < 8192 for prefix in ids)
    prompts = {split: prompts_of_model(ASSETS / "imdb-gpt2", embedded, split, size, seed=0) for split, size in SIZES.items()}
    check(prompts)
    assert [list(p.ids) for p in prompts["test"]] == listed["test"][:10]
    assert prompts["test"][3].id == "test-00003"
    assert prompts["test"][3].text == embedded.decode(listed["test"][3])


def test_every_draw_takes_training_prompts_of_its_own(embedded):
    folder = ASSETS / "imdb-gpt2"
    draws = [prompts_of_model(folder, embedded, "train", 100, seed=0, draw=draw) for draw in (0, 1)]
    both = {p.ids for p in draws[0]} & {p.ids for p in draws[1]}
    assert len(both) < 20  # 100 of 4,096, twice: two or three
    assert draws[1] == prompts_of_model(folder, embedded, "train", 100, seed=0, draw=1)
    assert prompts_of_model(folder, embedded, "train", 150, seed=0, draw=1)[:100] == draws[1]
    tests = [prompts_of_model(folder, embedded, "test", 20, seed=0, draw=draw) for draw in (0, 1)]
    assert tests[0] == tests[1]


def test_prompts_are_drawn_where_the_list_is_too_short_or_absent(embedded, tmp_path):
    drawn = prompts_from_model(embedded, "train", 5, seed=0)
    assert prompts_of_model(tmp_path, embedded, "train", 5, seed=0) == drawn
    (tmp_path / PROMPTS_FILE).write_text('{"train": [[5, 6], [7, 8]]}')
    assert prompts_of_model(tmp_path, embedded, "train", 5, seed=0) == drawn
    assert {p.ids for p in prompts_of_model(tmp_path, embedded, "train", 2, seed=0)} == {(5, 6), (7, 8)}


def test_too_few_different_prefixes_are_an_error(gpt2, monkeypatch):
    monkeypatch.setattr("suite.tasks.imdb_sentiment.MAX_DRAWS", 1)
    with pytest.raises(UserError, match="different"):
        prompts_from_model(gpt2, "test", 10**5, seed=0)


def test_reviews_for_sft_give_no_prefixes(embedded):
    texts = [f"Number {i} of the stories that I saw was fine and long enough." for i in range(60)]
    reviews = Reviews(texts, [1] * 60)
    draws = [prompts_from_reviews(reviews, embedded, "train", 10, sft_texts=40, seed=0, draw=draw) for draw in (0, 1)]
    assert draws[0] != draws[1]
    used = {texts[i] for i in review_order(reviews, 0)[:40]}
    left = [t for t in texts if t not in used]
    assert all(any(t.startswith(p.text) for t in left) for prompts in draws for p in prompts)
    for text in texts_for_sft(reviews, embedded, count=40, max_tokens=5, seed=0):
        assert text.text in used
        assert text.truncated
        assert embedded.tokenizer.eos_token_id not in text.ids
    (whole,) = texts_for_sft(reviews, embedded, count=1, max_tokens=100, seed=0)
    assert whole.ids.count(embedded.tokenizer.eos_token_id) == 1
    assert whole.ids[-1] == embedded.tokenizer.eos_token_id


@needs_reviews
def test_prefixes_of_real_reviews(embedded):
    reviews = {split: load_reviews(str(SHARED / "imdb"), split) for split in ("train", "test")}
    check(
        {
            split: prompts_from_reviews(
                reviews["train" if split == "train" else "test"], embedded, split, size, sft_texts=0, seed=0
            )
            for split, size in SIZES.items()
        }
    )
