"""Zero-shot and few-shot prompting: the model before any fine-tuning, asked well (sec. 6 of Rafailov et al. 2023)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from suite.data.preference_data import Completion, PreferencePair, Prompt
from suite.interfaces import LogProbUnavailable, Policy, Promise, Run, TrainablePolicy, TrainingData
from suite.policies.causal_lm import CausalLMPolicy
from suite.policies.model_config import context_of

FILE = "prompting.json"


@dataclass(frozen=True)
class PromptingConfig:
    """Settings of prompting."""

    shots: int = 0
    """Examples before the prompt, from the preference pairs: a prompt with its chosen answer each."""
    stop: tuple[str, ...] = ()
    """An answer ends before the first of these; a model that was not trained on the task would go on."""


class PromptedPolicy:
    """`base` with the same examples before every prompt, its answers cut at `stop`.

    Where a prompt leaves too little of the model's context, the first examples are left out. What is sampled is cut text, so
    there is no log-probability of it.
    """

    has_log_prob = False
    has_next_token_log_probs = False

    def __init__(self, base: TrainablePolicy, examples: Sequence[Sequence[int]], stop: Sequence[str]) -> None:
        self.base, self.examples, self.stop = base, tuple(map(tuple, examples)), tuple(stop)

    def sample(self, prompts: Sequence[Prompt], *, max_new_tokens: int, **drawing: Any) -> list[list[Completion]]:
        """As `Policy.sample`; `drawing` is what the base is told besides."""
        longer = [Prompt(p.id, (*self._before(len(p.ids) + max_new_tokens), *p.ids), p.text) for p in prompts]
        drawn = self.base.sample(longer, max_new_tokens=max_new_tokens, **drawing)
        return [[self._cut(prompt, c) for c in some] for prompt, some in zip(prompts, drawn, strict=True)]

    def _before(self, needed: int) -> tuple[int, ...]:
        """The examples, or the last of them, that fit into the context beside `needed` tokens."""
        context = context_of(self.base.model.config) or 10**9
        before: tuple[int, ...] = ()
        for example in reversed(self.examples):
            if len(example) + len(before) + needed > context:
                break
            before = (*example, *before)
        return before

    def _cut(self, prompt: Prompt, completion: Completion) -> Completion:
        """The completion of `prompt` up to the first stop, as if EOS stood there."""
        ends = [at for at in (completion.text.find(text) for text in self.stop) if at >= 0]
        if not ends:
            return replace(completion, prompt=prompt)
        text = completion.text[: min(ends)]
        count = next(k for k in range(len(completion.ids) + 1) if len(self.base.decode(completion.ids[:k])) >= len(text))
        return Completion(prompt, (*completion.ids[:count], self.base.tokenizer.eos_token_id), text, truncated=False)

    def log_prob(self, completions: Sequence[Completion]) -> Tensor:
        raise LogProbUnavailable("answers are cut at a stop text: their log-probability is not known")

    def next_token_log_probs(self, completions: Sequence[Completion]) -> Tensor:
        raise LogProbUnavailable("answers are cut at a stop text: their next-token distribution is not known")

    def copy(self) -> Self:
        return type(self)(self.base.copy(), self.examples, self.stop)

    def save(self, directory: Path) -> None:
        """Write the tokens, and the folder that the base came from; a base from nowhere is written too."""
        origin = Path(self.base.model.name_or_path or "nowhere")
        if not origin.is_dir():
            origin = Path("base")
            self.base.save(directory / origin)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / FILE).write_text(json.dumps({"examples": self.examples, "stop": self.stop, "base": str(origin)}))

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote."""
        stored = json.loads((directory / FILE).read_text())
        return cls(CausalLMPolicy.load(directory / stored["base"]), stored["examples"], stored["stop"])


class ZeroShot:
    """The untouched model, given the prompt."""

    name: ClassVar[str] = "Zero-shot"
    Config: ClassVar[type] = PromptingConfig
    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})
    promise: ClassVar[Promise] = "none"
    evaluated_from_pool: ClassVar[bool] = False
    trained: ClassVar[bool] = False

    def train(self, data: TrainingData, reference: TrainablePolicy, config: PromptingConfig, run: Run) -> Policy:
        examples = chosen_examples(data.pairs, reference, config.shots, run.seed)
        policy = PromptedPolicy(reference, examples, config.stop)
        run.snapshot(policy, 0)
        return policy


@dataclass(frozen=True)
class FewShotConfig(PromptingConfig):
    """Settings of few-shot prompting; two examples as in the paper's dialogues."""

    shots: int = 2


class FewShot(ZeroShot):
    """The untouched model, given some answered prompts before the prompt."""

    name: ClassVar[str] = "Few-shot"
    Config: ClassVar[type] = FewShotConfig


def chosen_examples(
    pairs: Sequence[PreferencePair], reference: TrainablePolicy, shots: int, seed: int
) -> list[tuple[int, ...]]:
    """Tokens of `shots` prompts with their chosen answers; a seeded choice from the shorter half.

    A blank line stands between them, or what ends a turn of a chat model.

    Raises:
        ValueError: Fewer whole answers than shots.
    """
    whole = [pair.chosen for pair in pairs if not pair.chosen.truncated]
    whole = sorted(whole, key=lambda c: len(c.prompt.ids) + len(c.ids))[: max(shots, len(whole) // 2)]
    if len(whole) < shots:
        raise ValueError(f"shots: {shots} examples were asked for, {len(whole)} pairs have a whole chosen answer")
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed)).tolist()
    blank = tuple(reference.tokenizer("\n\n", add_special_tokens=False)["input_ids"])
    chosen = [whole[index] for index in order[:shots]]
    if getattr(reference.tokenizer, "chat_template", None):  # EOS ends a turn there
        return [(*c.prompt.ids, *c.ids) for c in chosen]
    gaps = [() if c.prompt.text.startswith("\n") else blank for c in chosen]
    return [(*c.prompt.ids, *c.ids[:-1], *gap) for c, gap in zip(chosen, gaps, strict=True)]
