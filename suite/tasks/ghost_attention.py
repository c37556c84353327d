"""Ghost Attention (sec. 3.3 of Touvron et al. 2023, arXiv:2307.09288): an instruction that is kept over a dialogue's turns.

Answers are sampled turn by turn with the instruction in every user turn, the policy's own answers being the history. For
fine-tuning the instruction stands in the first user turn only, and only the last answer is in the loss.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from jinja2 import TemplateError

from suite.data.instructions import Instruction
from suite.data.preference_data import Completion, Prompt
from suite.interfaces import TrainablePolicy
from suite.tasks import hh_dialogue
from suite.tasks.text_format import Messages, answer_of, has_template, prompt_ids, why

Placement = Literal["every", "first", "none"]
"""In which user turns the instruction stands."""
FORM = hh_dialogue.TASK.form
"""How a conversation becomes text: through the chat template; as Anthropic's HH, in which speakers are named, without one."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A user's turns with an instruction, and what was answered so far."""

    id: str
    instruction: Instruction
    turns: tuple[str, ...]  # of the user, without the instruction
    answers: tuple[str, ...] = ()
    cut: tuple[bool, ...] = ()  # of each answer, whether the length limit ended it

    def kept(self, turn: int) -> bool:
        """Whether the answer to a turn, counted from 0, keeps the instruction."""
        return self.instruction.kept(self.answers[turn], cut=self.cut[turn])


def instructed(instruction: str, turns: Sequence[str], placement: Placement) -> tuple[str, ...]:
    r"""User turns with the instruction before every one, before the first only, or before none:
    `instruction + "\n\n" + turn`.
    """
    joined = {"every": len(turns), "first": 1, "none": 0}[placement]
    return (*(f"{instruction}\n\n{turn}" for turn in turns[:joined]), *turns[joined:])


def messages_of(conversation: Conversation, placement: Placement) -> Messages:
    """The conversation up to the first user turn that is not answered, or to the last one."""
    asked = instructed(conversation.instruction.instruction, conversation.turns, placement)
    count = min(len(conversation.answers), len(asked) - 1)
    before = [
        message
        for turn, answer in zip(asked[:count], conversation.answers[:count], strict=True)
        for message in (("user", turn), ("assistant", answer))
    ]
    return (*before, ("user", asked[count]))


def prompt_of(conversation: Conversation, placement: Placement, tokenizer: Any) -> Prompt:
    """What a policy continues to give the next answer, or the last. The id names the dialogue and the turn, not the placement:
    the same random numbers decide an answer wherever the instruction stands.

    Raises:
        TemplateError: The chat template refuses the conversation.
    """
    messages = messages_of(conversation, placement)
    text = FORM.prompt_text(messages, tokenizer)
    by_template = has_template(messages, tokenizer)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"] if by_template else prompt_ids(text, tokenizer)
    return Prompt(f"{conversation.id}-turn{len(messages) // 2 + 1}", tuple(ids), text)


def example_of(conversation: Conversation, placement: Placement, tokenizer: Any, max_new_tokens: int) -> Completion:
    """The last answer that was given, after the whole conversation before it. Losses are over the tokens of a completion alone
    (`suite.data.batching.collate`), so no earlier turn is in one, earlier answers neither.

    An answer that the length limit had ended has no token that ends it here either.

    Raises:
        ValueError, TemplateError: The chat template does not take the answer.
    """
    *_, last = conversation.answers
    before = replace(conversation, answers=conversation.answers[:-1], cut=conversation.cut[:-1])
    prompt = prompt_of(before, placement, tokenizer)
    made = answer_of(prompt, FORM.turn(messages_of(before, placement), last, tokenizer), tokenizer, max_new_tokens)
    if conversation.cut[-1] and not made.truncated and len(made.ids) > 1:
        return replace(made, ids=made.ids[:-1], truncated=True)
    return made


def converse(
    policy: TrainablePolicy, conversations: Sequence[Conversation], placement: Placement, *, max_prompt_tokens: int,
    max_new_tokens: int, temperature: float, seed: int, on_batch: Callable[[int], Any] | None = None,
) -> tuple[list[Conversation], dict[str, int]]:  # fmt: skip
    """Let a policy answer turn by turn, its own answers being the history; all conversations at a time.

    An answer is the completion's text without blanks at its ends; of a model without a chat template, up to where it goes on as
    another speaker. A conversation whose prompt is longer than `max_prompt_tokens` at any turn is left out whole, never cut.

    Args:
        policy: Who answers.
        conversations: Without answers, all with as many user turns.
        placement: Where the instruction stands.
        max_prompt_tokens, max_new_tokens: Length limits of prompts, and of answers with the token that ends them.
        temperature, seed, on_batch: See `suite.interfaces.Policy.sample`.

    Returns:
        The conversations in which every turn is answered, in order, and counts of those left out, by reason.
    """
    talks, left = list(conversations), Counter[str]()
    for _ in range(max((len(talk.turns) for talk in talks), default=0)):
        asked: list[tuple[Conversation, Prompt]] = []
        for talk in talks:
            try:
                prompt = prompt_of(talk, placement, policy.tokenizer)
            except TemplateError as error:
                left[why(error)] += 1
                continue
            if len(prompt.ids) > max_prompt_tokens:
                left["prompt too long"] += 1
            else:
                asked.append((talk, prompt))
        if not asked:
            return [], dict(left)
        drawn = policy.sample(
            [prompt for _, prompt in asked], num_samples=1, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed,
            on_batch=on_batch,
        )  # fmt: skip
        talks = [_answered(talk, some[0], policy.tokenizer) for (talk, _), some in zip(asked, drawn, strict=True)]
    return talks, dict(left)


def _answered(talk: Conversation, completion: Completion, tokenizer: Any) -> Conversation:
    text = completion.text
    ends = () if getattr(tokenizer, "chat_template", None) else FORM.stop
    end = min((place for stop in ends if (place := text.find(stop)) >= 0), default=len(text))
    cut = completion.truncated and end == len(text)
    return replace(talk, answers=(*talk.answers, text[:end].strip()), cut=(*talk.cut, cut))
