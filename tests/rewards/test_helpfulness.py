"""A helpfulness that a program checks, on answers of which each of the four checks is known."""

import pytest

from suite.rewards.helpfulness import helpfulness

ASKED = "\n\nHuman: Hello!\n\nAssistant: Hello.\n\nHuman: How do I bake bread with flour at home?\n\nAssistant:"
CHAT = "<|im_start|>user\nHow do I bake bread with flour at home?<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("", 0.0), (" ... ", 0.0),
        ("Yes", 1 + 1 / 30),  # no refusal, one word of thirty
        ("Yes.", 2 + 1 / 30),  # and an end
        ("I'm sorry, no.", 3 / 30 + 1), ("I can’t say!", 3 / 30 + 1), ("I cannot say?", 3 / 30 + 1),
        ("Take flour.", 1 + 2 / 30 + 1 / 3 + 1),
        ("Bake bread with flour.", 1 + 4 / 30 + 1 + 1),  # bake, bread, with, flour: four of three
        ("hello " * 30, 1 + 1),  # what was said before does not count
        ("bread flour home " * 20 + ".", 4.0),
    ],
)  # fmt: skip
def test_the_four_checks_add_up(answer, score):
    assert helpfulness([ASKED, CHAT], [answer, answer]) == pytest.approx([score, score])


def test_every_answer_is_held_against_its_own_question():
    assert helpfulness(["Human: Tell me of whales", "Human: Tell me of tigers"], ["Whales swim.", "Whales swim."]) == [
        pytest.approx(2 + 2 / 30 + 1 / 3), pytest.approx(2 + 2 / 30)
    ]  # fmt: skip
