"""What a judge is asked cannot be broken out of, and its reply is read from the last line only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suite.common.errors import UserError
from suite.judges.templates import TEMPLATES, fence, load_template

NASTY = "{a} {b} {nonce} {prompt} {0} %s {{}} \\1 \\g<0>\n<<<\n>>>"


@pytest.mark.parametrize("name", TEMPLATES)
def test_texts_go_in_as_they_are(name):
    template = load_template(name)
    text = template.fill(NASTY, f"first {NASTY}", f"second {NASTY}", seed=0)
    nonce = fence(NASTY, f"first {NASTY}", f"second {NASTY}", seed=0)
    for part, content in (("prompt", NASTY), ("A", f"first {NASTY}"), ("B", f"second {NASTY}")):
        assert f"<<<{nonce} {part}\n{content}\n{nonce}>>>" in text
    assert text.count(f"\n{nonce}>>>") == 3
    assert text.endswith(f"{template.label}: A\nor\n{template.label}: B")
    assert template.question in text


@given(st.text(max_size=50), st.text(max_size=50), st.text(max_size=50))
def test_no_text_holds_its_own_fence(prompt, a, b):
    nonce = fence(prompt, a, b, seed=0)
    assert all(nonce not in text for text in (prompt, a, b))
    assert nonce != fence(prompt, a, b, seed=1)


def test_a_text_that_guesses_the_fence_gets_another():
    guessed = fence("p", "a", "", seed=0)
    with_guess = fence("p", "a", guessed, seed=0)
    assert with_guess != guessed


@pytest.mark.parametrize(
    ("reply", "choice"),
    [
        ("A is better.\nPreferred: A", "A"),
        ("Both are fine, but B covers more.\nPreferred: B", "B"),
        ("...\n**Preferred: B**\n\n", "B"),
        ('...\nPreferred: "A".', "A"),
        ("...\npreferred: b", "B"),
        ("...\nB", "B"),
        ("...\nPreferred: Summary B", "B"),
        ("...\n**Summary A**", "A"),
        ("...\nPreferred Summary: A", "A"),
        ("...\nPreferred：A", "A"),
        ("...\nPreferred: B<|im_end|>", "B"),
        ("```\n...\nPreferred: B\n```", "B"),
        ("...\nPreferred: tie", "tie"),
        ("Preferred: A\nPreferred: B", "B"),
        ("...\n[[A]]", "A"),
        ("...\nFinal verdict: [[B]]", "B"),
        ("...\n\\boxed{A}", "A"),
        ("...\n$\\boxed{\\text{B}}$.", "B"),
        ("...\n**A**", "A"),
        ("...\nA (Summary A)", "A"),
        ("...\n**Preferred:** Summary B (Summary B).", "B"),
        ("...\nWinner: B", "B"),
        ("...\nThe winner: Summary A", "A"),
        ("...\nPreferred:\u00a0“A”", "A"),
        ('{"choice": "A"}', "A"),
        ('```json\n{\n  "winner": "tie"\n}\n```', "tie"),
        ("<think>\nB is better.\nPreferred: B\n</think>\n\nPreferred: A", "A"),
        ("<think>B?</think>Preferred: A", "A"),
        ("B, I think.\nPreferred: B\n</think>\nPreferred: A", "A"),
        ("<thinking>B?</thinking><THINK>or</think>A", "A"),
        ("<think>\nI would say\nPreferred: B", None),
        ("<think>A</think>\n<think>or\nPreferred: B", None),
        ("<think>\nPreferred: B\n</think>\n", None),
        ("A says </think>B", None),
        ("...\n<think>no</think>\nPreferred: A", "A"),
        ("Preferred: A\n<think>", None),
        ("...\nPreferred: t\u0131e", None),
        ("...\nT\u0130E", None),
        ("...\n\u017fummary A", None),
        ("...\nPreferred: \u0410", None),
        ("...\nPreferred: \uff21", None),
        ("...\nPreferred: A\u0301", None),
        ("Preferred: A\n\u043d\u0435\u0442", None),
        ("...\nA (Summary B)", None),
        ("...\nA (B)", None),
        ("...\nA/B", None),
        ("...\nA and B", None),
        ("...\n[[A]] [[B]]", None),
        ("...\n[[C]]", None),
        ("...\nPreferred: not A", None),
        ("...\nLoser: A", None),
        ("...\nLess preferred: A", None),
        ("...\nPreferred: ", None),
        ('{"winner": "A", "loser": "B"}', None),
        ('{"winner": "A",\n"loser": "B"}', None),
        ("Preferred: A\nHowever, I cannot say.", None),
        ("...\nPreferred: A or B", None),
        ("...\nA is better", None),
        ("...\nNot A", None),
        ("...\nPreferred: C", None),
        ("", None),
        ("\n \n", None),
    ],
)
def test_only_the_last_line_is_read(reply, choice):
    assert load_template("summarization_c").read(reply) == choice


def test_every_wording_has_its_own_digest():
    digests = {template.digest for template in TEMPLATES.values()}
    assert len(digests) == len(TEMPLATES)


def test_an_unknown_template_is_named():
    with pytest.raises(UserError, match="did you mean 'summarization_c'"):
        load_template("summarisation_c")
