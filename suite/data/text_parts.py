"""Who reads what of a preference data set: its splits, and its parts for methods, judge, validation and test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from jinja2 import TemplateError

from suite.data import invented
from suite.data.preference_tables import LAST_TURN, TextPair, hub_name, is_local, load_splits, paired, unreadable
from suite.data.text_tasks import (
    AS_IT_IS,
    BAD_ROW,
    Limits,
    TextExample,
    TextTask,
    TokenisedExample,
    follows,
    load_task,
    prompt_id,
    read_example,
    tokenise,
    why,
)
from suite.errors import UserError

INVENTED = "invented"
"""The source that is made up on the spot: for trying the pipeline, never for results."""
Part = Literal["methods", "judge", "train", "validation", "all", "test"]
"""Who reads: methods and judge a half each of what is no test prompt; or methods all, or all less an eighth for validation."""
TEST_SHARE, SHARES = 2, 10  # of prompts, in tenths, where the source has no test split
VALIDATION_SHARE = 8  # one in so many
VALIDATION = ("validation", "valid", "val", "dev", "eval", "eval_prefs")


def read_rows(task: TextTask, source: str, *, rows: int | None = None) -> dict[str, Iterable[Mapping[str, Any]]]:
    """Split → rows of a Hub name, a `save_to_disk` folder, a local file or folder, or of `INVENTED`.

    Args:
        task: Whose data these are, for the message.
        source: Where.
        rows: At most so many per split; from the Hub they are streamed, and no more is fetched.

    Raises:
        UserError: Unreadable; says which data set and how to get it offline.
    """
    if source == INVENTED:
        return {"train": invented.ROWS[task.name]()}
    if rows is not None and not is_local(source) and "," not in source:
        import datasets

        try:
            streamed = datasets.load_dataset(*hub_name(source), streaming=True)
            taken = {name: datasets.Dataset.from_list(list(table.take(rows))) for name, table in streamed.items()}
            return {name: paired(table, f"{source} [{name}]") for name, table in standard_names(taken).items()}
        except UserError:
            raise
        except Exception as error:  # datasets raises many kinds: connection, missing repository
            raise UserError(f"{task.name}: {unreadable(source, error)}") from error
    try:
        splits = {name: paired(table, f"{source} [{name}]") for name, table in standard_names(load_splits(source)).items()}
    except UserError as error:
        raise UserError(f"{task.name}: {error}") from error
    return {name: table if rows is None else table.select(range(min(rows, len(table)))) for name, table in splits.items()}


def standard_names(splits: Mapping[str, Any]) -> dict[str, Any]:
    """`train_prefs` and `test_prefs` as `train` and `test` if none have these names; of several, the preferences. Where no
    split is for testing, the one for validation is.
    """
    found = dict(splits)
    for role in ("train", "test"):
        others = [name for name in found if name.startswith(f"{role}_")]
        others = [name for name in others if "pref" in name] or others
        if role not in found and len(others) == 1:
            found[role] = found.pop(others[0])
    validation = [name for name in VALIDATION if name in found]
    if "train" in found and "test" not in found and validation:
        found["test"] = found.pop(validation[0])
    return found


def used(splits: Mapping[str, Any]) -> dict[str, Any]:
    """The splits that are read: train and test; of others, all where there is no train."""
    train = {"train"} & splits.keys() or splits.keys() - {"test"}
    return {name: rows for name, rows in splits.items() if name in train or name == "test"}


def read_part(
    task: TextTask,
    splits: Mapping[str, Iterable[Mapping[str, Any]]],
    part: Part,
    count: int,
    tokenizer: Any,
    limits: Limits,
    *,
    single_turn: bool = False,
    tests: Mapping[str, Iterable[Mapping[str, Any]]] | None = None,
) -> tuple[list[TokenisedExample], dict[str, int]]:
    """The first `count` usable examples of a part, in an order that is a hash of the prompt.

    Test prompts are those of the split "test" where there is one, else a fifth by the hash; those of the split "train" (of all
    others where there is none of that name) are halved between the methods and the judge, by the hash too, or divided into
    "train" and "validation", or are "all" of one: no prompt is in two parts of one division. Of a test prompt one example is
    kept.

    Args:
        task: How rows are read.
        splits: From `read_rows`.
        part: Which.
        count: How many examples.
        tokenizer: The policy's.
        limits: See `Limits`.
        single_turn: Leave out test conversations of several turns.
        tests: The data whose test prompts are answered, if that is not `splits`; they are nobody's to learn from.

    Returns:
        The examples, and counts: `rows`, `used`, and what was left out, by reason.

    Raises:
        UserError: Nothing usable is left.
    """
    counts: Counter[str] = Counter()
    found = _of_part(task, splits, part, tests, counts)
    if single_turn and part == "test":
        single = [pair for pair in found if len(pair[1].messages) == 1]
        counts["several turns"], found = len(found) - len(single), single
    both = [pair for pair in found if pair[1].rejected is not None]
    if 0 < len(both) < len(found):  # these are pairs, not prompts with one answer each
        counts["rejected is missing"], found = len(found) - len(both), both
    kept: list[TokenisedExample] = []
    seen: set[str] = set()
    for identifier, example in sorted(found, key=lambda pair: pair[0]):
        if len(kept) == count:
            counts["not needed"] += 1
        elif part == "test" and identifier in seen:
            counts["prompt seen before"] += 1
        elif isinstance(made := tokenise(task, example, tokenizer, limits), str):
            counts[made] += 1
        else:
            seen.add(identifier)
            kept.append(made)
    if not kept:
        raise UserError(
            f"{task.name}: nothing usable for {part} ({dict(counts)}); use more rows, name the splits train and test, or raise "
            "the length limits"
        )
    return kept, {**counts, "used": len(kept)}


def _of_part(
    task: TextTask,
    splits: Mapping[str, Iterable[Mapping[str, Any]]],
    part: Part,
    tests: Mapping[str, Iterable[Mapping[str, Any]]] | None,
    counts: Counter[str],
) -> list[tuple[str, TextExample]]:
    """The examples of a part with their prompts' ids; `counts` is filled with what was read and left out."""
    answered = splits if tests is None else tests
    test_ids: set[str] | None = None
    if "test" in answered:
        test_ids = {prompt_id(task, example.messages) for example in _examples(task, answered["test"], Counter())}
    wanted = {"test"} if part == "test" and "test" in splits else used(splits).keys() - {"test"}
    found = []
    for name in sorted(wanted):
        for example in _examples(task, splits[name], counts):
            identifier = prompt_id(task, example.messages)
            is_test = is_test_prompt(identifier) if test_ids is None else identifier in test_ids
            if part in (("test",) if is_test else (half_of(identifier), validation_or_train(identifier), "all")):
                found.append((identifier, example))
            else:
                counts["of another part"] += 1
    return found


def is_test_prompt(identifier: str) -> bool:
    """Whether a prompt is a test prompt, by its id, where no split says so."""
    return int(identifier.rpartition("-")[2], 16) % SHARES < TEST_SHARE


def half_of(identifier: str) -> Part:
    """To whom a prompt that is no test prompt belongs, by its id."""
    return "methods" if int(identifier.rpartition("-")[2], 16) // SHARES % 2 else "judge"


def validation_or_train(identifier: str) -> Part:
    """As `half_of`, in the other division."""
    return "train" if int(identifier.rpartition("-")[2], 16) // SHARES % VALIDATION_SHARE else "validation"


def _examples(task: TextTask, rows: Iterable[Mapping[str, Any]], counts: Counter[str]) -> Iterator[TextExample]:
    for row in rows:
        counts["rows"] += 1
        try:
            example = read_example(task, row)
        except BAD_ROW as error:
            counts[why(error)] += 1
            continue
        if not all(content.strip() or role == AS_IT_IS for role, content in example.messages):
            counts["empty message"] += 1
        elif not example.chosen.strip() or (example.rejected is not None and not example.rejected.strip()):
            counts["empty answer"] += 1
        else:
            yield example


def text_pairs(task: TextTask, splits: Mapping[str, Iterable[Mapping[str, Any]]], tokenizer: Any) -> list[TextPair]:
    """Every row as `suite.data.doctor` reads it: the texts that a policy will see, or what is wrong with the row."""
    pairs = []
    for split, rows in splits.items():
        for index, row in enumerate(rows):
            try:
                example = read_example(task, row)
                if example.rejected is None:
                    raise ValueError("rejected is missing")
                text = task.prompt_text(example.messages, tokenizer)
            except (*BAD_ROW, TemplateError) as error:
                pairs.append(TextPair(index, split, "", "", "", why(error)))
                continue
            chosen, rejected = (follows(answer, example.messages, tokenizer) for answer in (example.chosen, example.rejected))
            guessed = row.get("prompt") is None and example.messages[0][0] == AS_IT_IS and not text.endswith(LAST_TURN)
            pairs.append(TextPair(index, split, text, chosen, rejected, "", _scores(row), guessed))
    return pairs


def pairs_of(source: str, splits: Mapping[str, Iterable[Mapping[str, Any]]], tokenizer: Any) -> list[TextPair]:
    """Anybody's preference data as `text_pairs`: the splits of `source` that are read, in any format that TRL documents.

    Raises:
        UserError: No row is usable: says what is wrong with the first.
    """
    pairs = text_pairs(load_task("own_data"), used(splits), tokenizer)
    if all(pair.fault for pair in pairs):
        raise UserError(f"{source}: no usable row of {len(pairs)}; the first: {pairs[0].fault if pairs else 'none'}")
    return pairs


def _scores(row: Mapping[str, Any]) -> tuple[float, float] | None:
    scores = row.get("score_chosen"), row.get("score_rejected")
    if not all(isinstance(score, (int, float)) for score in scores):
        return None
    return float(scores[0]), float(scores[1])  # type: ignore[arg-type]
