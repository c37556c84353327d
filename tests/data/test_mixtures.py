"""Examples of several domains in given shares, from the command line's weights to the examples of a part."""

import json
from dataclasses import dataclass

import pytest

from suite.cli.options import parse_weights
from suite.common.errors import UserError
from suite.data.mixtures import in_shares, quotas
from suite.data.readers import names_of
from suite.tasks.own_data import FORM
from suite.tasks.splits import read_part, read_rows
from suite.tasks.text_format import Limits


@dataclass(frozen=True)
class One:
    domain: str
    number: int


def test_whole_numbers_sum_to_the_count_by_largest_remainders():
    assert quotas({"a": 0.9, "b": 0.1}, 300) == {"a": 270, "b": 30}
    assert quotas({"a": 0.5, "b": 0.3, "c": 0.2}, 9) == {"a": 4, "b": 3, "c": 2}  # 4.5, 2.7, 1.8
    assert quotas({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, 4) == {"a": 2, "b": 1, "c": 1}
    assert quotas({"a": 0.1, "b": 0.2, "c": 0.7}, 10) == {"a": 1, "b": 2, "c": 7}


def test_the_scarcest_domain_decides_how_many_there_are():
    examples = [One("a" if k % 2 else "b", k) for k in range(40)] + [One("a", k) for k in range(40, 60)]  # 40 a, 20 b
    kept = in_shares(examples, {"a": 0.5, "b": 0.5})
    assert [sum(one.domain == name for one in kept) for name in "ab"] == [21, 20]  # 20.5 and 20.5 of 41
    assert [one.number for one in kept] == list(range(41))  # the first ones, in their order
    assert len(in_shares(examples, {"a": 0.9, "b": 0.1})) == 44  # 40 of 44 are 0.9
    with pytest.raises(UserError, match=r"nothing usable of c, whose weight is 0\.5"):
        in_shares(examples, {"a": 0.5, "c": 0.5})


def test_weights_are_one_number_for_each_source():
    assert parse_weights("0.9,0.1", "a.jsonl,b.jsonl") == (0.9, 0.1)
    assert parse_weights("3, 1", "a.jsonl,b.jsonl") == (0.75, 0.25)
    assert parse_weights("", "a.jsonl") == ()
    for text, source in (("0.9", "a,b"), ("0.9,0.1", "a"), ("0.9,x", "a,b"), ("1,0", "a,b"), ("1,nan", "a,b"), ("1,-1", "a,b")):
        with pytest.raises(UserError, match="--weights"):
            parse_weights(text, source)


def test_sources_are_called_by_their_files_unless_two_share_a_name():
    assert names_of("data/safe.jsonl.gz,helpful.csv") == ["safe", "helpful"]
    assert names_of("a/train.jsonl,b/train.jsonl") == ["a/train.jsonl", "b/train.jsonl"]


def _rows(word, count):
    return "".join(
        json.dumps({"prompt": f"{word} {k}", "chosen": f" good {k}", "rejected": f" bad {k}", "rating": k % 4}) + "\n"
        for k in range(count)
    )


def test_every_part_of_a_mixture_has_the_shares(tmp_path, gpt2):
    from suite.data.tokenizers import load_tokenizer
    from suite.study.profiles import EMBEDDED

    (tmp_path / "safe.jsonl").write_text(_rows("safe film", 200))
    (tmp_path / "helpful.jsonl").write_text(_rows("helpful film", 40))
    source, shares = f"{tmp_path / 'safe.jsonl'},{tmp_path / 'helpful.jsonl'}", {"safe": 0.75, "helpful": 0.25}
    splits, tokenizer = read_rows(FORM, source), load_tokenizer(EMBEDDED)
    for part, count in (("all", 40), ("test", 12)):
        examples, counts = read_part(FORM, splits, part, count, tokenizer, Limits(32, 32), shares=shares)
        assert (counts["from safe"], counts["from helpful"]) == (3 * count // 4, count // 4)
        assert counts["used"] == len(examples) == count
        assert all(example.prompt.text.startswith(example.domain) for example in examples)
        assert all(example.rating == int(example.prompt.text.split()[-1]) % 4 for example in examples)
    examples, counts = read_part(FORM, splits, "all", 10_000, tokenizer, Limits(32, 32), shares=shares)
    helpful = counts["from helpful"]
    assert 24 <= helpful <= 40  # all there are of that part
    assert counts["from safe"] in range(3 * helpful - 2, 3 * helpful + 3)
    assert counts["too many beside the weights"] > 0


def test_every_source_has_its_own_names_of_splits_and_a_test_part(tmp_path):
    """One file without a test split beside a folder whose splits are train_prefs and test_prefs: of both all is read."""
    (tmp_path / "alone.jsonl").write_text(_rows("alone film", 50))
    (tmp_path / "prefs").mkdir()
    (tmp_path / "prefs" / "train_prefs.jsonl").write_text(_rows("prefs film", 20))
    (tmp_path / "prefs" / "test_prefs.jsonl").write_text(_rows("prefs held", 6))
    splits = read_rows(FORM, f"{tmp_path / 'alone.jsonl'},{tmp_path / 'prefs'}")
    assert set(splits) == {"train", "test"}
    of = {name: [row["prompt"] for row in splits[name]] for name in splits}
    assert [sum("prefs" in prompt for prompt in of[name]) for name in ("train", "test")] == [20, 6]
    alone = {name: {prompt for prompt in of[name] if "alone" in prompt} for name in of}
    assert len(alone["train"]) + len(alone["test"]) == 50
    assert 3 <= len(alone["test"]) <= 18  # about a fifth
    assert not alone["train"] & alone["test"]


def test_a_share_that_would_be_lost_is_refused():
    with pytest.raises(UserError, match=r"4 examples are too few for the weight 0\.1 of b"):
        in_shares([One("a", 0), One("b", 1), One("a", 2), One("a", 3)], {"a": 0.9, "b": 0.1})
