"""What runs will take on other machines: sums that can be done by hand, and runs that share cards as they will."""

from dataclasses import replace

import pytest

from suite.common.errors import UserError
from suite.engine import forecast as module
from suite.engine.forecast import CARDS, LAYER_S, SHARE, START_S, Card, cards_for, forecast, parts_of, told
from suite.engine.memory import Shape
from suite.engine.store import RunSpec
from suite.engine.workload import Workload

SHAPE = Shape(parameters=10**9, in_linear=10**6, layers=20, hidden=1000, heads=10, cached=40000, vocabulary=1000)
GOLD = Shape(parameters=10**8, in_linear=10**6, layers=2, hidden=1000, heads=10, cached=40000, vocabulary=1000)
CARD = Card("a card", memory=80e9, bfloat16=1e14, float32=1e13, bandwidth=1e12)


@pytest.fixture(autouse=True)
def shapes(monkeypatch):
    known = {"model": SHAPE, "gold": GOLD}
    monkeypatch.setattr(module, "shape_of", known.get)


def spec(name, work, *inputs, **config):
    where = {"model": "model", "gold_reward": "gold", "device": "cpu"}
    return RunSpec("policy", {"name": name, **config}, {str(k): one for k, one in enumerate(inputs)}, "", where, name, work)


def test_hours_are_operations_over_the_rate_of_the_arithmetic(monkeypatch):
    work = Workload(prompt=10, new=90, drawn=1100, scored=1000, trained=2000, rewarded=50, models=2, bfloat16=True)
    parts = parts_of(spec("a", work, sampler_dtype="bfloat16"), CARD)
    rate = SHARE * 1e14
    assert parts["start"] == START_S
    assert parts["training"] == pytest.approx(6 * 1e9 * 2000 * 100 / rate)
    assert parts["scoring"] == pytest.approx(2 * 1e9 * 1000 * 100 / rate)
    batches = 3  # of 512 rows, the last of fewer
    assert parts["sampling"] == pytest.approx(batches * 90 * max(4e9 / 1e12, 20 * LAYER_S) + 2 * 1e9 * 1100 * 100 / rate)
    assert parts["gold reward"] == pytest.approx(2 * 1e8 * 50 * 100 / (SHARE * 1e13))
    slow = parts_of(spec("a", replace(work, bfloat16=False), sampler_dtype="float32"), CARD)
    assert slow["training"] == pytest.approx(10 * parts["training"])
    assert slow["scoring"] == pytest.approx(10 * parts["scoring"])
    assert slow["sampling"] > parts["sampling"]
    assert parts_of(spec("a", replace(work, bfloat16=False), precision="bfloat16"), CARD)["scoring"] == parts["scoring"]
    assert parts_of(spec("b", Workload()), CARD) == {}
    stepwise = parts_of(spec("a", work, sampler_dtype="bfloat16", config={"samples_per_step": 128}), CARD)
    assert stepwise["sampling"] - parts["sampling"] == pytest.approx(6 * 90 * max(4e9 / 1e12, 20 * LAYER_S))
    monkeypatch.setattr(module, "shape_of", lambda folder: None)
    with pytest.raises(UserError, match="'a': the size of the model model is not known here"):
        parts_of(spec("a", work), CARD)


def test_a_run_gets_the_fewest_cards_that_hold_it(monkeypatch):
    monkeypatch.setattr(module, "memory_of", lambda spec, gpus=1: spec.config["bytes"] / gpus)
    trains = Workload(trained=1, models=1)

    def cards(work, size, gpus):
        return cards_for(spec("a", work, bytes=size), CARD, gpus)

    assert [cards(trains, size, 8) for size in (80e9, 81e9, 161e9, 640e9, 641e9)] == [1, 2, 4, 8, None]
    assert cards(trains, 81e9, 1) is None
    assert cards(Workload(drawn=1, models=1), 81e9, 8) is None  # nothing that can be split
    assert cards(replace(trains, one_process=True), 81e9, 8) is None


def test_runs_share_the_cards_and_wait_for_what_they_need(monkeypatch):
    monkeypatch.setattr(module, "memory_of", lambda spec, gpus=1: spec.config["bytes"] / gpus)
    monkeypatch.setattr(module, "seconds_of", lambda spec, card: spec.config["seconds"])
    trains = Workload(trained=1, models=1)
    first = spec("first", trains, bytes=1, seconds=3600)
    wide = spec("wide", trains, first, bytes=2 * 80e9, seconds=2 * 3600)  # an hour on two cards
    others = [spec(f"other {k}", trains, bytes=1, seconds=1800) for k in range(4)]
    on_two = forecast([wide, *others], CARD, 2)
    assert on_two.card_hours == pytest.approx(1 + 2 + 4 * 0.5)
    assert on_two.hours == pytest.approx(2.5)  # the first beside two others, the wide one on both, the other two
    assert not on_two.too_large
    on_one = forecast([wide, *others], CARD, 1)
    assert [one.title for one in on_one.too_large] == ["wide"]
    assert on_one.hours == pytest.approx(1 + 4 * 0.5)
    # what most work waits for begins first, though another could have begun before it
    a, b = spec("a", trains, bytes=1, seconds=3600), spec("b", trains, bytes=1, seconds=1800)
    short = spec("short", trains, b, bytes=1, seconds=2 * 3600)
    long = spec("long", trains, a, bytes=1, seconds=10 * 3600)
    assert forecast([short, long, spec("c", trains, bytes=1, seconds=3600)], CARD, 2).hours == pytest.approx(11.0)
    after = spec("after", trains, wide, bytes=1, seconds=3600)
    assert forecast([after, *others], CARD, 1).hours == pytest.approx(3.0)  # what needs it is not counted either
    assert forecast([after], CARD, 8).hours == pytest.approx(1 + 1 + 1)


def test_the_words_have_every_number_that_the_sum_needs(monkeypatch):
    work = Workload(prompt=10, new=90, scored=1000, trained=10**6, models=2, batch=4, bfloat16=True, state=8)
    monkeypatch.setattr(module, "memory_of", lambda spec, gpus=1: 100 * 2**30 / gpus)
    words = told([spec("large", work)])
    assert [card.name in words for card in CARDS] == [True, True]
    assert "1 × A100, 80 GB: 0.0 hours" in words
    assert "1 runs do not fit, and are not counted, nor what needs them: policy 'large' (100 GiB)" in words
    assert "1 runs need several cards each (--gpus 2)" in words
    for number in ("2 models", "1,000 million weights", "= 7.5 GiB", "(4 + 8) bytes = 11.2 GiB", "together 100.0 GiB",
                   "1,000,000 sequences trained", "10 + 90 tokens", "30% of 312"):  # fmt: skip
        assert number in words, number
