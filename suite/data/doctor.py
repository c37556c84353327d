"""What is wrong with a preference data set, before anything is trained on it: findings with counts, rows and advice."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from suite.data.ratings import RATINGS
from suite.maths.statistics import Interval, clustered_share_interval

Level = Literal["error", "warning"]
"""An error spoils training or evaluation, a warning may."""
FEW_PROMPTS = 5
"""With fewer, nothing can be held out."""
Check = tuple[Level, str, str, Iterable[bool]]
"""Level, what and advice of a finding, and which of the pairs it concerns."""


@dataclass(frozen=True, slots=True)
class TextPair:
    """One row: the text a policy continues, and what was preferred to what."""

    row: int  # number in its split, from 0
    split: str
    prompt: str  # shared text, with the chat template applied if it was a conversation
    chosen: str  # what follows it
    rejected: str
    fault: str = ""  # why the row cannot be used, and then the texts are empty; empty if it can
    scores: tuple[float, float] | None = None  # (chosen, rejected) where the data give them; NaN for what is no number
    guessed: bool = False  # there is no prompt column, and the prompt is what two texts have in common
    how: str = ""  # which columns these are, in words
    rating: float | None = None  # how much better, 0 to 3 (`suite.data.ratings`); NaN for what is no rating
    domain: str = ""  # what kind of preference it is


@dataclass(frozen=True)
class Finding:
    """One kind of trouble, in words, and what to do."""

    level: Level
    what: str
    advice: str
    rows: tuple[str, ...] | None  # every row concerned, as split:row; None if it is about the data set as a whole


@dataclass(frozen=True)
class Report:
    """What `examine` found, and the numbers of the data set."""

    rows: dict[str, int]  # split → rows
    findings: list[Finding]
    tokens: dict[str, float]  # median and largest number of tokens of prompts and completions
    how: str  # which columns the first usable row was read from
    chosen_longer: Interval | None  # share of pairs whose chosen completion has more tokens, ties ½; 95 % over prompts
    ratings: dict[str, int] = field(default_factory=dict)  # how many usable rows have each rating

    @property
    def ok(self) -> bool:
        return not any(finding.level == "error" for finding in self.findings)


def lines_of(report: Report, *, shown: int = 5) -> list[str]:
    """A report as lines for people: tokens, length, then every finding with its first rows and what to do."""
    total = sum(report.rows.values())
    lines = [f"first row: {report.how}"] if report.how else []
    lines += ["tokens: " + ", ".join(f"{name} {value:,.0f}" for name, value in report.tokens.items())]
    if report.chosen_longer:
        share, low, high, prompts = report.chosen_longer
        lines.append(f"chosen is longer in {share:.1%} of pairs [{low:.1%}, {high:.1%}], {prompts:,} prompts")
    if report.ratings:
        lines.append("ratings: " + ", ".join(f"{name} {report.ratings.get(name, 0):,}" for name in RATINGS[::-1]))
    for finding in report.findings:
        where = finding.rows or ()
        count = f"{len(where):,} of {total:,} rows: " if where else ""
        examples = f" ({', '.join(where[:shown])}{', …' if len(where) > shown else ''})" if where else ""
        lines += [f"{finding.level:<8} {count}{finding.what}{examples}", f"         → {finding.advice}"]
    return [*lines, "no errors" if report.ok else "errors found"]


def examine(pairs: Sequence[TextPair], tokenizer: Any, *, max_prompt_tokens: int, max_new_tokens: int) -> Report:
    """Every check on every row.

    Args:
        pairs: See `suite.tasks.splits.text_pairs`.
        tokenizer: Of the model to be trained.
        max_prompt_tokens: Longer prompts are left out.
        max_new_tokens: Longer answers, EOS included, are cut.
    """
    usable = [pair for pair in pairs if not pair.fault]
    rated = any(pair.rating is not None and math.isfinite(pair.rating) for pair in usable)
    sizes, merged = _token_counts(usable, tokenizer)
    longest = np.maximum(sizes["chosen"], sizes["rejected"])
    rows: dict[tuple[Level, str, str], list[str]] = defaultdict(list)
    for pair in pairs:
        if pair.fault:
            rows["error", pair.fault, "mend or drop these rows"].append(f"{pair.split}:{pair.row}")
    checks: list[Check] = [
        *_text_checks(usable), *_repetition_checks(usable),
        ("warning", "prompt and completion merge into one token where they meet",
         "trainers that tokenise the joined text score a part of the prompt: end the prompt, or begin the completion, at a "
         "blank or a special token; this suite joins token ids and is not concerned", merged),
        ("warning", f"the prompt has more than {max_prompt_tokens} tokens: left out",
         "raise --max-prompt-tokens, or shorten it", sizes["prompt"] > max_prompt_tokens),
        ("warning", f"an answer with its EOS has more than {max_new_tokens} tokens: cut, and its end is not learned",
         "raise --max-new-tokens, or drop long answers", longest >= max_new_tokens),
        ("warning", "no rating, or one that is neither 0 to 3 nor one of the four names, where other rows have one",
         f"mend it ({', '.join(RATINGS)}): margins need a rating in every row",
         [rated and (pair.rating is None or math.isnan(pair.rating)) for pair in usable]),
        *_eos_checks(usable, tokenizer.eos_token),
    ]  # fmt: skip
    for level, what, advice, concerned in checks:
        rows[level, what, advice] += [f"{p.split}:{p.row}" for p, is_bad in zip(usable, concerned, strict=True) if is_bad]
    findings = [Finding(*kind, tuple(names)) for kind, names in rows.items() if names]
    longer = None
    if usable:
        difference = sizes["chosen"] - sizes["rejected"]
        longer = clustered_share_interval(np.where(difference == 0, 0.5, difference > 0), [pair.prompt for pair in usable])
        findings += _of_all(usable, tokenizer.eos_token, longer, difference.mean())
    findings.sort(key=lambda finding: get_args(Level).index(finding.level))
    tokens = {
        f"{part} {name}": float(f(size))
        for part, size in sizes.items() if usable
        for name, f in (("median", np.median), ("max", np.max))
    }  # fmt: skip
    how = usable[0].how if usable else ""
    kinds = Counter(RATINGS[int(pair.rating)] for pair in usable if pair.rating is not None and math.isfinite(pair.rating))
    return Report(dict(Counter(pair.split for pair in pairs)), findings, tokens, how, longer, dict(kinds))


def _token_counts(pairs: Sequence[TextPair], tokenizer: Any) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Part of a pair → its number of tokens in each pair, and whether prompt and completion merge where they meet."""

    def encode(texts: list[str]) -> list[list[int]]:
        return tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []

    prompts = encode([pair.prompt for pair in pairs])
    sizes, merged = {"prompt": np.array([len(ids) for ids in prompts], dtype=int)}, np.zeros(len(pairs), dtype=bool)
    for side in ("chosen", "rejected"):
        wholes = encode([pair.prompt + getattr(pair, side) for pair in pairs])
        sizes[side] = np.maximum(0, np.array([len(ids) for ids in wholes], dtype=int) - sizes["prompt"])
        merged |= np.array([whole[: len(prompt)] != prompt for prompt, whole in zip(prompts, wholes, strict=True)], dtype=bool)
    return sizes, merged


def _text_checks(pairs: Sequence[TextPair]) -> list[Check]:
    """What is wrong with a row by itself."""
    return [
        ("error", "chosen and rejected are identical", "drop them: they teach nothing",
         [p.chosen == p.rejected for p in pairs]),
        ("error", "an empty completion", "drop them, or mend the split between prompt and completion",
         [not p.chosen.strip() or not p.rejected.strip() for p in pairs]),
        ("warning", "an empty prompt", "expected if the data are whole texts; else chosen and rejected share no beginning",
         [not p.prompt.strip() for p in pairs]),
        ("warning", "both completions repeat the prompt", "give what follows it only, or it is trained on as an answer",
         [bool(p.prompt.strip()) and p.chosen.startswith(p.prompt) and p.rejected.startswith(p.prompt) for p in pairs]),
        ("error", "a score that is no finite number", "mend or drop: nothing can be said of the label",
         [p.scores is not None and not all(map(math.isfinite, p.scores)) for p in pairs]),
        ("warning", "a tie: both scores are equal", "drop them: the label is arbitrary",
         [p.scores is not None and p.scores[0] == p.scores[1] for p in pairs]),
        ("error", "the rejected completion has the higher score", "the label contradicts the scores: mend or drop",
         [p.scores is not None and p.scores[0] < p.scores[1] for p in pairs]),
    ]  # fmt: skip


def _repetition_checks(pairs: Sequence[TextPair]) -> list[Check]:
    """What is wrong with a row beside other rows."""
    keys = [(pair.split, pair.prompt, pair.chosen, pair.rejected) for pair in pairs]
    first = {key: number for number, key in reversed(list(enumerate(keys)))}
    turned = [first.get((split, prompt, rejected, chosen), len(keys)) for split, prompt, chosen, rejected in keys]
    splits_with = Counter(prompt for prompt, _ in {(pair.prompt, pair.split) for pair in pairs})
    continued = _continued(pairs)
    return [
        ("warning", "the prompt, found as what two texts share, begins with another row's whole prompt",
         "several pairs of one prompt, with the first words of the answers in it? Then one prompt is in training and test: "
         "give a column prompt", [p.guessed and p.prompt in continued for p in pairs]),
        ("warning", "the same pair again in its split", "drop the copies, or they count twice",
         [first[key] < number for number, key in enumerate(keys)]),
        ("error", "the same two completions preferred both ways in one split", "decide, or drop both",
         [turned[number] < number and p.chosen != p.rejected for number, p in enumerate(pairs)]),
        ("error", "a prompt that another split has too", "drop it from one of them: test prompts must be new",
         [bool(p.prompt.strip()) and p.split != "train" and splits_with[p.prompt] > 1 for p in pairs]),
    ]  # fmt: skip


def _continued(pairs: Sequence[TextPair]) -> set[str]:
    """Guessed prompts that begin with another one of three words or more."""
    found: set[str] = set()
    base = None
    for prompt in sorted({pair.prompt for pair in pairs if pair.guessed and len(pair.prompt.split()) >= 3}):
        if base is not None and prompt.startswith(base):
            found.add(prompt)
        else:
            base = prompt
    return found


def _ends(pairs: Sequence[TextPair], eos: str) -> list[list[bool]]:
    return [[text.rstrip().endswith(eos) for text in (pair.chosen, pair.rejected)] for pair in pairs]


def _eos_checks(pairs: Sequence[TextPair], eos: str | None) -> list[Check]:
    """EOS written as text: trainers append one themselves."""
    if not eos:
        return []
    ends = _ends(pairs, eos)
    some = any(map(any, ends))
    return [
        ("error", f"EOS {eos!r} in the middle of a completion", "cut there: what follows is never generated",
         [any(eos in text.rstrip().removesuffix(eos) for text in (pair.chosen, pair.rejected)) for pair in pairs]),
        ("error", f"some completions end with {eos!r} as text and these do not", "end all of them or none with it",
         [some and not all(both) for both in ends]),
    ]  # fmt: skip


def _of_all(pairs: Sequence[TextPair], eos: str | None, longer: Interval, difference: float) -> list[Finding]:
    """What is wrong with the data set as a whole; `difference`: tokens of chosen less rejected, on average."""
    found, prompts = [], len({pair.prompt for pair in pairs})
    if len(pairs) >= FEW_PROMPTS * 4 and prompts < FEW_PROMPTS:
        what = f"only {prompts} different prompts among {len(pairs):,} pairs: none can be held out"
        advice = "mend the split between prompt and completion, or collect more prompts"
        found.append(Finding("error", what, advice, None))
    if eos and all(map(all, _ends(pairs, eos))):
        advice = "fine if your trainer appends none, doubled if it does"
        found.append(Finding("warning", f"every completion ends with {eos!r} as text", advice, None))
    if longer.low > 0.5 or longer.high < 0.5:
        side = "longer" if longer.mean > 0.5 else "shorter"
        what = (
            f"length bias: the chosen completion is the {side} one in {max(longer.mean, 1 - longer.mean):.0%} of pairs "
            f"({difference:+.1f} tokens on average)"
        )
        found.append(Finding("warning", what, "report win rates controlled for length, or balance the pairs", None))
    return found
