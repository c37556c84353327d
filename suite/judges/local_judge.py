"""A causal language model here as judge: which of the two choices it finds likelier."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from suite.data.preference_data import Completion, Prompt
from suite.judges.judging import Answer, ContextTooShort, Failure, Question, of_numbers
from suite.judges.templates import Template
from suite.policies.causal_lm import CausalLMPolicy


class LocalJudge:
    """The verdict is the likelier of " A" and " B" after the request and the label of the reply's last line.

    The comparison that the template asks for is not written, so one pass a choice is all it costs. Equal log-probs are a tie.

    Args:
        policy: The model.
        template: What is asked; put through the tokenizer's chat template if it has one.
        digest: Of the model's files; in every verdict's key.
        seed: Of the fences.
    """

    def __init__(self, name: str, policy: CausalLMPolicy, template: Template, *, digest: str, seed: int = 0) -> None:
        self.name, self.policy, self.template, self.seed = name, policy, template, seed
        self.identity: Mapping[str, Any] = {
            "model": digest, "template": template.name, "version": template.version, "template_digest": template.digest,
            "seed": seed,
        }  # fmt: skip

    def answer(
        self,
        questions: Sequence[Question],
        on_answer: Callable[[Question, Answer | Failure], None],
        on_start: Callable[[Question], bool],
    ) -> None:
        """See `suite.judges.judging.Judge`.

        Raises:
            ContextTooShort: A request does not fit into the model's context; names the prompt.
        """
        for question in questions:
            if on_start(question):
                on_answer(question, self._answer(question))

    def _answer(self, question: Question) -> Answer:
        tokenizer = self.policy.tokenizer
        text = self.template.fill(question.comparison.prompt, question.a, question.b, seed=self.seed)
        if tokenizer.chat_template:
            message = [{"role": "user", "content": text}]
            text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(f"{text}\n{self.template.label}:", add_special_tokens=not tokenizer.chat_template)["input_ids"]
        prompt = Prompt(question.comparison.id, tuple(ids), text)
        choices = [
            Completion(prompt, tuple(tokenizer(f" {choice}", add_special_tokens=False)["input_ids"]), choice, True)
            for choice in "AB"
        ]
        context = getattr(self.policy.model.config, "max_position_embeddings", None)
        longest = len(ids) + max(len(choice.ids) for choice in choices)
        if context and longest > context:
            raise ContextTooShort(
                f"{self.name}: prompt {question.comparison.id!r} makes a request of {longest} tokens, the model's context is "
                f"{context}; shorten or drop it"
            )
        a, b = self.policy.log_prob(choices).tolist()
        return Answer(of_numbers(a, b), f"log P(A) = {a:.4f}, log P(B) = {b:.4f}", prompt_tokens=len(ids))
