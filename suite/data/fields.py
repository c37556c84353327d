"""What a row of preference data means: which column is the prompt, which the answers and scores, whatever they are called."""

import ast
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from suite.common.errors import listed, shown
from suite.data.ratings import rating_in

CHOSEN = ("chosen", "chosen_response", "response_chosen", "chosen_answer", "answer_chosen", "preferred", "accepted")
REJECTED = ("rejected", "rejected_response", "response_rejected", "rejected_answer", "answer_rejected", "dispreferred")
PROMPT = "prompt"
"""A text that is continued as it is, or a conversation."""
QUESTIONS = (
    "question", "instruction", "query", "user_prompt", "user_input", "input", "messages", "conversations", "conversation",
)  # fmt: skip
"""Names of what a user says, in text or as a conversation, where there is no column `prompt`."""
SYSTEM = ("system", "system_prompt", "system_message")
DOMAIN = "domain"
SCORE = re.compile(r"(\w+_)?(score|rating|reward|quality|grade)s?")
SIDE = re.compile(r"(?P<side>chosen|rejected)_(?P<what>\w+)|(?P<what_of>\w+?)_(of_)?(?P<side_of>chosen|rejected)")
ROLES = {
    "user": "user", "human": "user", "prompter": "user", "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant",
    "bot": "assistant", "model": "assistant", "ai": "assistant", "system": "system", "developer": "system",
}  # fmt: skip
TOOL_ROLES = ("tool", "function", "observation")
ABOUT = re.compile(
    r"(\w+_)?(id|ids|idx|index|uid|uuid|source|origin|dataset|url|link|model|models|lang|language|annotator|rater|worker|author|date|"
    r"time|timestamp|created|split|label|labels|ratings?|scores?|rewards?|margin|rank|tokens|length|count|hash|version|license|"
    r"status|order|category|categories|topic|domain|type|tags?|subset|difficulty|notes?|comments?|rationales?|reasons?|reasoning|"
    r"critiques?|explanations?|justification|feedback|review|why|metadata|meta|info|generations?|completions?|responses|candidates|"
    r"principles?|evaluation)(_\w+)?|(labelling|raw|original)_\w+"
)
"""Names of columns that say something about a row, whatever text is in them."""
ROLE_NAMES, CONTENT_NAMES = ("role", "from"), ("content", "value")
"""What a message calls its speaker and its text."""
ROLE_KEY, CONTENT_KEY = (re.compile(rf"[\"']({'|'.join(names)})[\"']\s*:") for names in (ROLE_NAMES, CONTENT_NAMES))
AFTERWARDS = re.compile(
    r"(\w+_)?(notes?|comments?|rationales?|reasons?|critiques?|explanations?|justification|feedback)(_\w+)?"
)
"""Of these, names of what is said of the answers; where there is no prompt column, any other may be what is asked."""
NOT_READ = {
    "tools": "tools", "functions": "tools", "image": "images", "images": "images", "video": "videos", "videos": "videos",
    "audio": "sounds", "audios": "sounds",
}  # fmt: skip
NOTHING: tuple[Any, ...] = (None, "", "[]", "null", [], {})
THOUGHTS = ("reasoning_content", "reasoning", "thinking")
FEW_WORDS = 4
Message = tuple[str, str]
"""Role (user, assistant or system) and text."""


@dataclass(frozen=True, slots=True)
class Fields:
    """A row by what its columns mean. Either `prompt` is a text, or `turns` are a conversation that ends with the user, or
    neither is there and the answers have what is to be answered in them.
    """

    prompt: str | None
    turns: tuple[Message, ...]
    chosen: str
    rejected: str | None
    how: str  # which columns these are, in words
    scores: tuple[float, float] | None = None  # (chosen, rejected); NaN where a score is no number
    rating: float | None = None  # how much better, 0 to 3 (`suite.data.ratings`); NaN for what is no rating
    domain: str = ""  # what kind of preference it is: helpfulness, safety, the file of a mixture

    @property
    def said(self) -> dict[str, Any]:
        """What is known of the row beside its texts."""
        return {"how": self.how, "scores": self.scores, "rating": self.rating, "domain": self.domain}


def fields_of(row: Mapping[str, Any]) -> Fields:
    """Read a row.

    Raises:
        ValueError: Answers are missing or in no known form, tools are used, or a column has text that would not be read.
    """
    names, values = _by_canonical_name(row)
    chosen, rejected = (next((name for name in known if name in values), None) for known in (CHOSEN, REJECTED))
    there = [name for name in (PROMPT, *QUESTIONS) if name in values]
    asked: str | None = next((name for name in there if values[name] != ""), there[0] if there else None)
    if chosen is None or (rejected is None and asked is None):
        raise ValueError(f"chosen or rejected is missing; the row has {listed(names.values()) or 'nothing'}")
    if other := next((name for name in NOT_READ if values.get(name) not in NOTHING), None):
        raise ValueError(f"column {names[other]}: {NOT_READ[other]} are not read")
    answers = [_answer(values[name], names[name]) for name in (chosen, rejected) if name]
    prompt, turns = _asked(values.get(asked) if asked else None, names.get(asked or "", ""), asked == PROMPT, answers)
    answered = prompt is not None or turns
    system = next((name for name in SYSTEM if answered and _text(values.get(name)).strip()), None)
    if system:
        prompt, turns = None, _with_system(values[system], names[system], turns or (("user", prompt or ""),))
    more = "input" if asked == "instruction" and turns and _text(values.get("input")) else None
    if more:
        turns = (*turns[:-1], ("user", f"{turns[-1][1]}\n\n{values[more]}"))
    scores, scored = _scores(values)
    rating, rated = rating_in(values)
    read = [name for name in (asked, more, system, chosen, rejected, *scored, rated, DOMAIN) if name in values]
    texts = [prompt or "", *(text for _, text in turns), *(answer.text for answer in answers)]
    about = ABOUT if asked or turns else AFTERWARDS
    _refuse_unread({name: value for name, value in values.items() if name not in read}, names, texts, about)
    columns = {"prompt": (asked, more), "system": (system,), "chosen": (chosen,), "rejected": (rejected,), "scores": scored,
               "rating": (rated,), "domain": (DOMAIN if DOMAIN in values else None,)}  # fmt: skip
    said = {role: " and ".join(f"column {names[name]}" for name in of if name) for role, of in columns.items()}
    said["prompt"] = said["prompt"] or ("the turns before" if turns else "what chosen and rejected have in common")
    for role, answer in zip(("chosen", "rejected"), answers, strict=False):
        said[role] += ", the last turn" * (answer.turns is not None)
    said["not read"] = listed([names[name] for name in values if name not in read])
    how = "; ".join(f"{role}: {shown(words or 'none')}" for role, words in said.items() if words or role == "scores")
    said_of_both = answers[0].text, answers[1].text if rejected else None
    return Fields(prompt, turns, *said_of_both, how, scores=scores, rating=rating, domain=_domain(values))


def _by_canonical_name(row: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
    """Canonical name → the name as it stands there, and → the value, of columns that hold anything."""
    names, values = dict[str, str](), dict[str, Any]()
    for name, value in row.items():
        if value is None:
            continue
        known = canonical(str(name))
        if known in values and (known in (PROMPT, *QUESTIONS, *SYSTEM, *CHOSEN, *REJECTED) or SIDE.fullmatch(known)):
            raise ValueError(f"columns {shown(names[known], 40)} and {shown(str(name), 40)} are one name; drop one")
        names[known], values[known] = str(name), value
    return names, values


def canonical(name: str) -> str:
    """A column's name in small letters with underscores."""
    return re.sub(r"[\W_]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip()).lower()).strip("_")


def conversation_in(value: Any) -> list[Message] | None:
    """Messages of a list of them, of one alone, or of either written as text (as CSV has it); None for any other text."""
    if isinstance(value, str):
        value = _unpacked(value)
    if isinstance(value, Mapping):
        value = [value]
    if isinstance(value, str) or not isinstance(value, Sequence):
        return None
    return [_message(message) for message in value]


def _text(value: Any) -> str:
    """A text; of anything else nothing."""
    return value if isinstance(value, str) else ""


def _unpacked(text: str) -> Any:
    """The messages that a text spells, as tables of texts keep them; any other text as it is, JSON too."""
    if text.lstrip()[:1] not in ("[", "{") or not all(re.search(keys, text) for keys in (ROLE_KEY, CONTENT_KEY)):
        return text
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        messages = found if isinstance(found, list) else [found]
        return found if messages and all(map(_is_message, messages)) else text
    if re.match(r"\s*\[\s*\{\s*[\"'](role|from|content|value)[\"']", text):
        raise ValueError("a conversation is written as text that cannot be read; save the table as JSON lines or parquet")
    return text


def _is_message(found: Any) -> bool:
    """Whether JSON in a text is a message, and not an answer in JSON."""
    if not isinstance(found, dict) or not found.keys() & {*CONTENT_NAMES}:
        return False
    role = next((found[name] for name in ROLE_NAMES if found.get(name)), None)
    return isinstance(role, str) and role.lower() in (*ROLES, *TOOL_ROLES)


def _message(message: Any) -> Message:
    if not isinstance(message, Mapping):
        raise ValueError(f"a message is a {type(message).__name__}, not an object with role and content")
    role = str(next((message[name] for name in ROLE_NAMES if message.get(name)), ""))
    if message.get("tool_calls") or message.get("function_call") or role in TOOL_ROLES:
        raise ValueError("tool calls are not read")
    if thoughts := [name for name in THOUGHTS if message.get(name)]:
        raise ValueError(f"thoughts beside an answer ({thoughts[0]}) are not read; put them into its text, or drop them")
    if role.lower() not in ROLES:
        raise ValueError(f"a message has the role {shown(role, 40)!r}; known: {', '.join(ROLES)}")
    content = next((message[name] for name in CONTENT_NAMES if name in message), None)
    if (
        isinstance(content, (list, tuple))
        and content
        and all(isinstance(p, Mapping) and p.get("type") == "text" for p in content)
    ):
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise ValueError("a message has no text, or more than text")
    return ROLES[role.lower()], content


@dataclass(frozen=True, slots=True)
class _Answer:
    text: str
    turns: tuple[Message, ...] | None  # that stand before it in its column; None where the column holds the answer as text


def _answer(value: Any, name: str) -> _Answer:
    talk = conversation_in(value)
    if talk is None:
        if not isinstance(value, str):
            raise _neither(value, name)
        return _Answer(value, None)
    if not talk or talk[-1][0] != "assistant":
        raise ValueError(f"column {name}: the last message is not the assistant's")
    return _Answer(talk[-1][1], tuple(talk[:-1]))


def _neither(value: Any, name: str) -> ValueError:
    return ValueError(f"column {shown(name, 40)}: expected text or messages, got {type(value).__name__} {str(value)[:40]!r}")


def _asked(value: Any, name: str, as_it_is: bool, answers: Sequence[_Answer]) -> tuple[str | None, tuple[Message, ...]]:
    """The prompt as text, or the conversation that is to be answered."""
    before = answers[0].turns
    if any(answer.turns != before for answer in answers):
        raise ValueError("chosen and rejected differ before their last message")
    given = conversation_in(value)
    if given is None and value is not None:
        if not isinstance(value, str):
            raise _neither(value, name)
        if before is None and as_it_is:
            return value, ()
        given = [("user", value)]
    if given is None and before is None:
        return None, ()
    turns = _joined(_without_blank_system(given or ()), _without_blank_system(before or ()), answers[0].text)
    if not turns or turns[-1][0] != "user":
        raise ValueError("conversation does not end with the user")
    if any(role == "system" for role, _ in turns[1:]):
        raise ValueError("a system message stands inside the conversation, or twice")
    return None, turns


def _without_blank_system(turns: Sequence[Message]) -> tuple[Message, ...]:
    return tuple(turn for turn in turns if turn[0] != "system" or turn[1].strip())


def _with_system(text: str, name: str, turns: tuple[Message, ...]) -> tuple[Message, ...]:
    """A conversation that begins with a system message, once."""
    if turns[0][0] != "system":
        return ("system", text), *turns
    if turns[0][1].strip() != text.strip():
        raise ValueError(f"column {name} and the conversation begin with different system messages")
    return turns


def _joined(given: tuple[Message, ...], before: tuple[Message, ...], answer: str) -> tuple[Message, ...]:
    """The conversation of a prompt and of what stands before the answers; the one may repeat the other, or the answer."""
    if given and given[-1] == ("assistant", answer):
        given = given[:-1]
    if not before or not given:
        return before or given
    plain = _plain(given)
    if any(_plain(before[start : start + len(given)]) == plain for start in range(len(before))):
        return before
    if given[-1][0] == before[0][0]:
        raise ValueError("the prompt and the conversations begin differently: two turns of one speaker in a row")
    return (*given, *before)


def _plain(turns: Sequence[Message]) -> list[Message]:
    return [(role, " ".join(text.split())) for role, text in turns]


def said_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row says about its preference, by whichever of the common names: `scores`, `rating` and `domain` of `Fields`."""
    values = _by_canonical_name(row)[1]
    return {"scores": _scores(values)[0], "rating": rating_in(values)[0], "domain": _domain(values)}


def _domain(values: Mapping[str, Any]) -> str:
    return _text(values.get(DOMAIN)).strip()


def _scores(values: Mapping[str, Any]) -> tuple[tuple[float, float] | None, tuple[str, ...]]:
    """The first two columns that give a score to each side, by whichever of the common names."""
    sides: dict[str, dict[str, str]] = {}
    for name in values:
        if (found := SIDE.fullmatch(name)) and SCORE.fullmatch(what := found["what"] or found["what_of"]):
            sides.setdefault(what, {})[found["side"] or found["side_of"]] = name
    for both in sides.values():
        if len(both) == 2:
            chosen, rejected = both["chosen"], both["rejected"]
            return (_number(values[chosen]), _number(values[rejected])), (chosen, rejected)
    return None, ()


def _number(value: Any) -> float:
    try:
        return float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _refuse_unread(
    unread: Mapping[str, Any], names: Mapping[str, str], texts: Sequence[str], about: re.Pattern[str]
) -> None:  # fmt: skip
    """A `ValueError` for a column whose text is neither about the row nor said by a column that is read."""
    for name, value in unread.items():
        if about.fullmatch(name):
            continue
        asks = name in SYSTEM or name in QUESTIONS
        said = [text for text in _texts_in(value) if _is_text(text) or (asks and text.strip())]
        if any(not any(text.strip() in other for other in texts) for text in said):
            raise ValueError(
                f"column {shown(names[name], 40)} has text that is not read; call it prompt, question or system, or drop it"
            )


def _texts_in(value: Any) -> Iterator[str]:
    """All texts in a value, however deep."""
    if isinstance(value, str):
        talk = None if value.lstrip()[:1] not in ("[", "{") else _messages_of(value)
        yield from (text for _, text in talk) if talk else (value,)
    elif isinstance(value, Mapping):
        inside = (of for name, of in value.items() if name not in (*ROLE_NAMES, "type"))
        yield from (text for of in inside for text in _texts_in(of))
    elif isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        yield from (text for inside in value for text in _texts_in(inside))


def _messages_of(text: str) -> list[Message] | None:
    try:
        return conversation_in(text)
    except ValueError:
        return None


def _is_text(text: str) -> bool:
    return len(text.split()) >= FEW_WORDS or sum(ord(letter) > 0x2E80 for letter in text) >= 2 * FEW_WORDS
