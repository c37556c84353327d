"""A helpfulness that a program can check: a stand-in for people's judgement, for studies that have none.

It knows nothing of whether an answer is right. It asks whether the answer engages with what was asked, and nothing else.
"""

import re
from collections.abc import Sequence

SPEAKERS = re.compile(
    r"(?:\n\nHuman:|<\|im_start\|>user\n|\[INST\]|<\|user\|>|<\|start_header_id\|>user<\|end_header_id\|>|<start_of_turn>user\n)"
)
"""Where the user's last turn begins, in plain dialogues and in the commonest chat templates."""
ENDS = re.compile(
    r"(?:\n\nAssistant:|<\|im_end\|>|\[/INST\]|<\|assistant\|>|<\|end\|>|</s>|<\|eot_id\|>|<end_of_turn>).*", re.DOTALL
)
"""Where it ends."""
REFUSALS = re.compile(
    r"\b(i'?m sorry|i am sorry|i apologi[sz]e|i can(?:'|no)t|i can not|i won'?t|i will not|i'?m (?:not able|unable)|"
    r"as an ai|no idea|look it up|not sure what you)\b"
)
WORD = re.compile(r"[a-z']+")
SHORTEST, ENOUGH_WORDS, ENOUGH_SHARED = 4, 30, 3
"""Letters of a word that counts as content; words of an answer, and content words shared with the question, for full marks."""


def helpfulness(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    """From 0 to 4, the sum of four checks of an answer to the user's last turn.

    1 if it does not refuse or brush off; up to 1 for its length, full at 30 words; up to 1 for content words (of four letters
    or more) that the question has too, full at three; 1 if it ends as a sentence does. An answer without a word gets 0.
    """
    return [_score(last_turn(prompt), completion) for prompt, completion in zip(prompts, completions, strict=True)]


def last_turn(prompt: str) -> str:
    """What the user says last, of a prompt as a policy continues it; the whole prompt where no speaker is named."""
    return ENDS.sub("", SPEAKERS.split(prompt)[-1])


def _score(asked: str, answer: str) -> float:
    answer = answer.lower().replace("’", "'")
    words = WORD.findall(answer)
    if not words:
        return 0.0
    content = {word for word in words if len(word) >= SHORTEST} & set(WORD.findall(asked.lower()))
    return (
        (not REFUSALS.search(answer)) + min(1.0, len(words) / ENOUGH_WORDS)
        + min(1.0, len(content) / ENOUGH_SHARED) + answer.rstrip().endswith((".", "!", "?"))
    )  # fmt: skip
