"""Who reads what of a preference data set: its splits, and its parts for methods, judge, validation and test."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jinja2 import TemplateError

from suite.common.errors import UserError
from suite.data.doctor import TextPair
from suite.data.local_files import SPLITS
from suite.data.mixtures import in_shares, quotas
from suite.data.readers import load_splits, names_of, paired, sources_of
from suite.interfaces import Example, Split
from suite.tasks import made_up
from suite.tasks.text_format import AS_IT_IS, BAD_ROW, Limits, TextExample, TextFormat, tokenise, why

Rows = Iterable[Mapping[str, Any]]
MADE_UP = "invented"
"""The source that is made up on the spot: for trying the pipeline, never for results."""
TEST_SHARE, SHARES = 2, 10  # of prompts, in tenths, where the source has no test split
VALIDATION_SHARE = 8  # one in so many
HELD_OUT = {word for role in ("test", "validation") for word in SPLITS[role]}
"""First words of the names of splits that are never trained on."""
VALIDATION = ("validation", "valid", "val", "dev", "eval", "eval_prefs")


def read_rows(form: TextFormat, source: str, *, rows: int | None = None) -> dict[str, Rows]:
    """Split → rows of a Hub name, a `save_to_disk` folder, a local file or folder, or of `MADE_UP`.

    Several sources, with commas between, are put together split by split, and what each is called (`names_of`) becomes the
    `domain` of its rows. Where one has a test split and another has none, a fifth of the other is for testing, by the hash of
    the prompt. With `rows` at most so many per split and source, see `load_splits`.

    Raises:
        UserError: Unreadable; says which data set and how to get it offline.
    """
    if source == MADE_UP:
        return {"train": made_up.ROWS[form.name]()}
    try:
        parts = {name: _read(part, rows) for name, part in zip(names_of(source), sources_of(source), strict=True)}
    except UserError as error:
        raise UserError(f"{form.name}: {error}") from error
    if len(parts) == 1:
        return next(iter(parts.values()))
    if any("test" in splits for splits in parts.values()):
        parts = {name: splits if "test" in splits else _with_test(form, splits) for name, splits in parts.items()}
    names = dict.fromkeys(split for splits in parts.values() for split in splits)
    return {
        split: [{**row, "domain": name} for name, splits in parts.items() for row in splits.get(split, ())] for split in names
    }


def _read(source: str, rows: int | None) -> dict[str, Rows]:
    loaded = standard_names(load_splits(source, rows=rows))
    return {name: paired(table, f"{source} [{name}]") for name, table in loaded.items()}


def _with_test(form: TextFormat, splits: Mapping[str, Rows]) -> dict[str, Rows]:
    """The rows that are read, with those of a fifth of the prompts as the split "test"."""
    found: dict[str, list[Mapping[str, Any]]] = {"train": [], "test": []}
    for rows in used(splits).values():
        for row in rows:
            try:
                part = parts_of(form.group_of(form.read(row).messages))
            except BAD_ROW:
                part = ("all",)
            found["test" if part == ("test",) else "train"].append(row)
    return dict(found)


def standard_names(splits: Mapping[str, Any]) -> dict[str, Any]:
    """`train_prefs` and `test_prefs` as `train` and `test` if none have these names; of several, the preferences, or all. Where
    no split is for testing, the one for validation is.
    """
    found = dict(splits)
    for role in ("train", "test", "validation"):
        others = [name for name in found if name.startswith(f"{role}_")]
        others = [name for name in others if "pref" in name] or others
        if role not in found and others:
            parts = [found.pop(name) for name in others]
            found[role] = parts[0] if len(parts) == 1 else [row for part in parts for row in part]
    validation = [name for name in VALIDATION if name in found]
    if "train" in found and "test" not in found and validation:
        found["test"] = found.pop(validation[0])
    return found


def used(splits: Mapping[str, Any]) -> dict[str, Any]:
    """The splits that are read: train and test; of others, all where there is no train."""
    train = {"train"} & splits.keys() or {name for name in splits if name.partition("_")[0].lower() not in HELD_OUT}
    return {name: rows for name, rows in splits.items() if name in train or name == "test"}


def read_part(
    form: TextFormat, splits: Mapping[str, Rows], part: Split, count: int, tokenizer: Any, limits: Limits, *,
    single_turn: bool = False, tests: Mapping[str, Rows] | None = None, shares: Mapping[str, float] | None = None,
) -> tuple[list[Example], dict[str, int]]:  # fmt: skip
    """The first `count` usable examples of a part, in an order that is a hash of the prompt.

    Test prompts are those of the split "test" where there is one, else a fifth by the hash; those of the split "train" (of all
    others where there is none of that name) are halved between the methods and the judge, by the hash too, or divided into
    "train" and "validation", or are "all" of one: no prompt is in two parts of one division. Of a test prompt one example is
    kept, with `single_turn` none of several turns. With `tests` the test prompts are those of these other data. With `shares`
    (domain → share, together 1) every domain has its share of the examples, of `count` or of as many as the scarcest allows.

    Returns:
        The examples, and counts: `rows`, `used`, what was left out, by reason, and with `shares` those `from` each domain.

    Raises:
        UserError: Nothing usable is left.
    """
    counts: Counter[str] = Counter()
    answered = (splits if tests is None else tests).get("test")
    tests_of: set[str] | None = None
    if answered is not None:
        tests_of = {form.group_of(example.messages) for example in _examples(form, answered, Counter())}
    wanted = {"test"} if part == "test" and "test" in splits else used(splits).keys() - {"test"}
    found: list[tuple[str, TextExample]] = []
    for name in sorted(wanted):
        for example in _examples(form, splits[name], counts):
            group = form.group_of(example.messages)
            if part in parts_of(group, is_test=None if tests_of is None else group in tests_of):
                found.append((form.prompt_id(example.messages), example))
            else:
                counts["of another part"] += 1
    if single_turn and part == "test":
        single = [pair for pair in found if len(pair[1].messages) == 1]
        counts["several turns"], found = len(found) - len(single), single
    both = [pair for pair in found if pair[1].rejected is not None]
    if 0 < len(both) < len(found):  # these are pairs, not prompts with one answer each
        counts["rejected is missing"], found = len(found) - len(both), both
    kept: list[Example] = []
    room = Counter(quotas(shares, count) if shares else {})
    for identifier, example in sorted(found, key=lambda pair: pair[0]):
        if len(kept) == count or (shares and not room[example.domain]):
            counts["not needed"] += 1
        elif part == "test" and kept and kept[-1].prompt.id == identifier:
            counts["prompt seen before"] += 1
        elif isinstance(made := tokenise(form, example, tokenizer, limits), str):
            counts[made] += 1
        else:
            kept.append(made)
            room[example.domain] -= 1
    if shares:
        whole, kept = len(kept), in_shares(kept, shares)
        counts["too many beside the weights"] = whole - len(kept)
        counts.update({f"from {name}": sum(example.domain == name for example in kept) for name in shares})
    if not kept:
        raise UserError(
            f"{form.name}: nothing usable for {part} ({dict(counts)}); use more rows, name the splits train and test, or raise "
            "the length limits"
        )
    return kept, {**counts, "used": len(kept)}


def parts_of(identifier: str, *, is_test: bool | None = None) -> tuple[Split, ...]:
    """The parts that a prompt is in, by the hash in its id: the test (unless `is_test` says so), or one of each division."""
    number, tenth = divmod(int(identifier.rpartition("-")[2], 16), SHARES)
    if tenth < TEST_SHARE if is_test is None else is_test:
        return ("test",)
    return ("methods" if number % 2 else "judge", "train" if number % VALIDATION_SHARE else "validation", "all")


def _examples(form: TextFormat, rows: Rows, counts: Counter[str]) -> Iterator[TextExample]:
    for row in rows:
        counts["rows"] += 1
        try:
            example = form.read(row)
        except BAD_ROW as error:
            counts[why(error)] += 1
            continue
        if not all(content.strip() or role == AS_IT_IS for role, content in example.messages):
            counts["empty message"] += 1
        elif not example.chosen.strip() or (example.rejected is not None and not example.rejected.strip()):
            counts["empty answer"] += 1
        else:
            yield example


def text_pairs(form: TextFormat, splits: Mapping[str, Rows], tokenizer: Any) -> list[TextPair]:
    """Every row as `suite.data.doctor` reads it: the texts that a policy will see, or what is wrong with the row."""
    pairs = []
    for split, rows in splits.items():
        for index, row in enumerate(rows):
            try:
                example = form.read(row)
                if example.rejected is None:
                    raise ValueError("rejected is missing")
                chosen, rejected = (
                    form.turn(example.messages, answer, tokenizer) for answer in (example.chosen, example.rejected)
                )
            except (*BAD_ROW, TemplateError) as error:
                pairs.append(TextPair(index, split, "", "", "", why(error)))
                continue
            about = {name: getattr(example, name) for name in ("scores", "guessed", "how", "rating", "domain")}
            pairs.append(TextPair(index, split, chosen.prompt, chosen.text, rejected.text, **about))
    return pairs


def talks(form: TextFormat, splits: Mapping[str, Rows]) -> bool:
    """Whether a row is a conversation, and not a text that is continued."""
    read = (example for rows in used(splits).values() for example in _examples(form, rows, Counter()))
    return any(example.messages[0][0] != AS_IT_IS for example in read)


def pairs_of(form: TextFormat, source: str, splits: Mapping[str, Rows], tokenizer: Any) -> list[TextPair]:
    """Preference data as `text_pairs`: the splits of `source` that are read. A `UserError` if no row of them is usable."""
    pairs = text_pairs(form, used(splits), tokenizer)
    if all(pair.fault for pair in pairs):
        raise UserError(f"{source}: no usable row of {len(pairs)}; the first: {pairs[0].fault if pairs else 'none'}")
    return pairs
