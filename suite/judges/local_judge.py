"""A causal language model here as judge: which of the two choices it finds likelier."""

from collections.abc import Mapping, Sequence
from typing import Any

from suite.data.chat_template import render
from suite.data.comparisons import Answer, Failure, Question
from suite.data.preference_data import Completion, Prompt
from suite.judges.judging import OnAnswer, OnStart, of_numbers, shown
from suite.judges.templates import Template
from suite.policies.causal_lm import CausalLMPolicy
from suite.policies.model_config import context_of


class LocalJudge:
    """The verdict is the likelier of " A" and " B" after the request and the label of the reply's last line.

    The comparison that the template asks for is not written, so one pass a choice is all it costs. Equal log-probs are a tie.
    The request is put through the tokenizer's chat template if it has one.

    Args:
        policy, digest: The model, and the hash of its files, which is in every verdict's key.
        template: What is asked.
        seed: Of the fences.
    """

    def __init__(self, name: str, policy: CausalLMPolicy, template: Template, *, digest: str, seed: int = 0) -> None:
        self.name, self.policy, self.template, self.seed = name, policy, template, seed
        self.identity: Mapping[str, Any] = {"model": digest, **template.identity, "seed": seed}

    def answer(self, questions: Sequence[Question], on_answer: OnAnswer, on_start: OnStart) -> None:
        """See `suite.interfaces.Judge`; a question that does not fit into the model's context fails by name."""
        for question in questions:
            if on_start(question):
                on_answer(question, self._answer(question))

    def _answer(self, question: Question) -> Answer | Failure:
        tokenizer = self.policy.tokenizer
        text = self.template.fill(question.comparison.prompt, question.a, question.b, seed=self.seed)
        if tokenizer.chat_template:
            text = render(tokenizer, [{"role": "user", "content": text}], to_be_answered=True)
        ids = tokenizer(f"{text}\n{self.template.label}:", add_special_tokens=not tokenizer.chat_template)["input_ids"]
        prompt = Prompt(question.comparison.id, tuple(ids), text)
        choices = [
            Completion(prompt, tuple(tokenizer(f" {choice}", add_special_tokens=False)["input_ids"]), choice, True)
            for choice in "AB"
        ]
        context = context_of(self.policy.model.config)
        longest = len(ids) + max(len(choice.ids) for choice in choices)
        if context and longest > context:
            name = shown(question.comparison.id, 60)
            return Failure(
                f"prompt {name!r} makes a request of {longest} tokens, the model's context is {context}; shorten or drop it"
            )
        a, b = self.policy.log_prob(choices).tolist()
        return Answer(of_numbers(a, b), f"log P(A) = {a:.4f}, log P(B) = {b:.4f}", prompt_tokens=len(ids))
