"""Prompting: examples before the prompt, answers cut where they end, nothing trained."""

import pytest

from baselines.prompting import PromptedPolicy, chosen_examples
from suite.data.preference_data import Completion, PreferencePair, Prompt
from suite.interfaces import LogProbUnavailable
from suite.policies.causal_lm import CausalLMPolicy
from suite.study.profiles import ASSETS


@pytest.fixture(scope="module")
def base():
    return CausalLMPolicy.load(ASSETS / "imdb-gpt2")


class Scripted:
    """Answers with fixed text."""

    def __init__(self, base, text):
        self.tokenizer, self.model, self.decode, self.text, self.seen = base.tokenizer, base.model, base.decode, text, []

    def sample(self, prompts, *, num_samples, **keywords):
        self.seen += prompts
        ids = tuple(self.tokenizer(self.text)["input_ids"])
        return [[Completion(p, ids, self.text, True)] * num_samples for p in prompts]


def ask(policy, prompts, **keywords):
    return policy.sample(prompts, **{"num_samples": 1, "max_new_tokens": 12, "seed": 0, **keywords})


def test_an_answer_ends_before_the_first_stop(base):
    prompt = Prompt("a", (5, 6), "x")
    policy = PromptedPolicy(Scripted(base, " In Italy.\n\nHuman: And Oslo?\n"), (), ("\n\nAssistant:", "\n\nHuman:"))
    (made,) = ask(policy, [prompt])[0]
    assert made.text == " In Italy."
    assert base.decode(made.ids[:-1]) == " In Italy."
    assert made.ids[-1] == base.tokenizer.eos_token_id
    assert not made.truncated
    assert made.prompt is prompt
    (whole,) = ask(PromptedPolicy(Scripted(base, " In Italy."), (), ("\n\nHuman:",)), [prompt])[0]
    assert whole.truncated
    assert whole.text == " In Italy."
    (empty,) = ask(PromptedPolicy(Scripted(base, "\nmore"), (), ("\n",)), [prompt])[0]
    assert (empty.text, empty.ids) == ("", (base.tokenizer.eos_token_id,))


def test_examples_stand_before_every_prompt_and_give_way_to_long_ones(base):
    scripted = Scripted(base, "x")
    policy = PromptedPolicy(scripted, ((1, 2), (3,) * 100), ())
    ask(policy, [Prompt("short", (9,) * 10, "s"), Prompt("long", (9,) * 143, "l"), Prompt("longest", (9,) * 240, "ll")])
    assert scripted.seen[0].ids == (1, 2, *(3,) * 100, *(9,) * 10)
    assert scripted.seen[1].ids == (*(3,) * 100, *(9,) * 143)
    assert scripted.seen[2].ids == (9,) * 240


def test_examples_are_a_seeded_choice_of_whole_chosen_answers(base):
    def pair(k, truncated=False):
        prompt = Prompt(str(k), tuple(base.tokenizer(f"POST: number {k}")["input_ids"]), f"POST: number {k}")
        answers = [Completion(prompt, (*base.tokenizer(f" {word} {k}")["input_ids"], 0), f" {word} {k}", truncated)
                   for word in ("good", "bad")]  # fmt: skip
        return PreferencePair(*answers, 1.0, 0.0, float("nan"), float("nan"))

    pairs = [pair(k) for k in range(8)]
    texts = [base.decode(ids) for ids in chosen_examples(pairs, base, 2, seed=0)]
    assert len(texts) == 2
    assert all(text.startswith("POST: number") and " good " in text and text.endswith("\n\n") for text in texts)
    assert chosen_examples(pairs, base, 2, seed=0) == chosen_examples(pairs, base, 2, seed=0)
    assert len({tuple(chosen_examples(pairs, base, 2, seed=seed)) for seed in range(8)}) > 1
    assert chosen_examples(pairs, base, 0, seed=0) == []
    with pytest.raises(ValueError, match="shots"):
        chosen_examples([pair(0, truncated=True)], base, 1, seed=0)


def test_saved_without_a_copy_of_the_model(base, tmp_path):
    policy = PromptedPolicy(base, ((1, 2),), ("\n",))
    policy.save(tmp_path / "p")
    assert [path.name for path in (tmp_path / "p").iterdir()] == ["prompting.json"]
    loaded = PromptedPolicy.load(tmp_path / "p")
    prompts = [Prompt("a", (5, 6, 7), "x")]
    ids = [[[c.ids for c in some] for some in ask(p, prompts)] for p in (policy, loaded, policy.copy())]
    assert ids[0] == ids[1] == ids[2]
    with pytest.raises(LogProbUnavailable):
        policy.log_prob([])
