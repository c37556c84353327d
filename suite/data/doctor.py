"""What is wrong with a preference data set, before anything is trained on it: findings with counts, rows and advice."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from suite.data.preference_tables import TextPair
from suite.maths.statistics import Interval, clustered_share_interval

Level = Literal["error", "warning", "note"]
FEW_PROMPTS = 5
"""With fewer, nothing can be held out."""


@dataclass(frozen=True)
class Finding:
    """One kind of trouble.

    Attributes:
        level: An error spoils training or evaluation, a warning may, a note is worth knowing.
        what: In words.
        advice: What to do.
        rows: "split:row" of every row concerned; None if it is about the data set as a whole.
    """

    level: Level
    what: str
    advice: str
    rows: tuple[str, ...] | None


@dataclass(frozen=True)
class Report:
    """What `examine` found, and the numbers of the data set."""

    rows: dict[str, int]
    """Split → rows."""
    findings: list[Finding]
    tokens: dict[str, float]
    """Median and largest number of tokens of prompts and completions."""
    chosen_longer: Interval | None
    """Share of pairs whose chosen completion has more tokens, ties ½; 95 % over prompts."""

    @property
    def ok(self) -> bool:
        return not any(finding.level == "error" for finding in self.findings)


def lines_of(report: Report, *, shown: int = 5) -> list[str]:
    """A report as lines for people: tokens, length, then every finding with its first rows and what to do."""
    total = sum(report.rows.values())
    lines = ["tokens: " + ", ".join(f"{name} {value:,.0f}" for name, value in report.tokens.items())]
    if report.chosen_longer:
        share, low, high, prompts = report.chosen_longer
        lines.append(f"chosen is longer in {share:.1%} of pairs [{low:.1%}, {high:.1%}], {prompts:,} prompts")
    for finding in report.findings:
        where = finding.rows or ()
        count = f"{len(where):,} of {total:,} rows: " if where else ""
        examples = f" ({', '.join(where[:shown])}{', …' if len(where) > shown else ''})" if where else ""
        lines += [f"{finding.level:<8} {count}{finding.what}{examples}", f"         → {finding.advice}"]
    return [*lines, "no errors" if report.ok else "errors found"]


def examine(pairs: Sequence[TextPair], tokenizer: Any, *, max_prompt_tokens: int, max_new_tokens: int) -> Report:
    """Every check on every row.

    Args:
        pairs: See `suite.data.text_parts.text_pairs`.
        tokenizer: Of the model to be trained.
        max_prompt_tokens: Longer prompts are left out.
        max_new_tokens: Longer answers, EOS included, are cut.
    """
    usable = [pair for pair in pairs if not pair.fault]
    ids = _Tokens(usable, tokenizer)
    findings = [
        *_faults(pairs), *_texts(usable), *_prompts(usable), *_duplicates(usable), *_leaks(usable), *_scores(usable),
        *_tokens(usable, ids, max_prompt_tokens, max_new_tokens), *_eos(usable, tokenizer.eos_token),
    ]  # fmt: skip
    longer = None
    if usable:
        difference = np.array(ids.chosen) - np.array(ids.rejected)
        share = np.where(difference == 0, 0.5, difference > 0)
        longer = clustered_share_interval(share, [pair.prompt for pair in usable])
        if longer.low > 0.5 or longer.high < 0.5:
            side = "longer" if longer.mean > 0.5 else "shorter"
            what = (
                f"length bias: the chosen completion is the {side} one in {max(longer.mean, 1 - longer.mean):.0%} of pairs "
                f"({difference.mean():+.1f} tokens on average)"
            )
            findings.append(Finding("warning", what, "report win rates controlled for length, or balance the pairs", None))
    sizes = {"prompt": ids.prompt, "chosen": ids.chosen, "rejected": ids.rejected}
    tokens = {f"{k} {name}": float(f(v)) for k, v in sizes.items() if v for name, f in (("median", np.median), ("max", np.max))}
    found = sorted((f for f in findings if f.rows != ()), key=lambda finding: get_args(Level).index(finding.level))
    return Report(dict(Counter(pair.split for pair in pairs)), found, tokens, longer)


class _Tokens:
    """Token counts of each part, and whether prompt and completion merge at their boundary."""

    def __init__(self, pairs: Sequence[TextPair], tokenizer: Any) -> None:
        def encode(texts: list[str]) -> list[list[int]]:
            return tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []

        prompts = encode([pair.prompt for pair in pairs])
        self.prompt = [len(ids) for ids in prompts]
        self.merged = [False] * len(pairs)
        self.chosen: list[int] = []
        self.rejected: list[int] = []
        for side, counts in (("chosen", self.chosen), ("rejected", self.rejected)):
            wholes = encode([pair.prompt + getattr(pair, side) for pair in pairs])
            for k, (prompt, whole) in enumerate(zip(prompts, wholes, strict=True)):
                counts.append(max(0, len(whole) - len(prompt)))
                self.merged[k] |= whole[: len(prompt)] != prompt


def _where(pairs: Sequence[TextPair], bad: Callable[[TextPair], bool]) -> tuple[str, ...]:
    return tuple(name(pair) for pair in pairs if bad(pair))


def name(pair: TextPair) -> str:
    """split:row."""
    return f"{pair.split}:{pair.row}"


def _faults(pairs: Sequence[TextPair]) -> list[Finding]:
    by_fault: dict[str, list[str]] = defaultdict(list)
    for pair in pairs:
        if pair.fault:
            by_fault[pair.fault].append(name(pair))
    return [Finding("error", fault, "mend or drop these rows", tuple(rows)) for fault, rows in by_fault.items()]


def _texts(pairs: Sequence[TextPair]) -> list[Finding]:
    return [
        Finding(
            "error", "chosen and rejected are identical", "drop them: they teach nothing",
            _where(pairs, lambda p: p.chosen == p.rejected),
        ),
        Finding(
            "error", "an empty completion", "drop them, or mend the split between prompt and completion",
            _where(pairs, lambda p: not p.chosen.strip() or not p.rejected.strip()),
        ),
        Finding(
            "warning", "an empty prompt", "expected if the data are whole texts; else chosen and rejected share no beginning",
            _where(pairs, lambda p: not p.prompt.strip()),
        ),
    ]  # fmt: skip


def _prompts(pairs: Sequence[TextPair]) -> list[Finding]:
    """Whether prompts can be told apart, and answers from them."""
    different, continued = {pair.prompt for pair in pairs}, _continued(pairs)
    found = [
        Finding(
            "warning", "both completions repeat the prompt", "give what follows it only, or it is trained on as an answer",
            _where(pairs, lambda p: bool(p.prompt.strip()) and all(t.startswith(p.prompt) for t in (p.chosen, p.rejected))),
        ),
        Finding(
            "warning", "the prompt, found as what two texts share, begins with another row's whole prompt",
            "several pairs of one prompt, with the first words of the answers in it? Then one prompt is in training and test: "
            "give a column prompt", _where(pairs, lambda p: p.guessed and p.prompt in continued),
        ),
    ]  # fmt: skip
    if len(pairs) >= FEW_PROMPTS * 4 and len(different) < FEW_PROMPTS:
        what = f"only {len(different)} different prompts among {len(pairs):,} pairs: none can be held out"
        found.append(Finding("error", what, "mend the split between prompt and completion, or collect more prompts", None))
    return found


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


def _duplicates(pairs: Sequence[TextPair]) -> list[Finding]:
    first: dict[tuple[str, ...], str] = {}
    again, turned = [], []
    for pair in pairs:
        key = (pair.split, pair.prompt, pair.chosen, pair.rejected)
        if pair.chosen != pair.rejected and (pair.split, pair.prompt, pair.rejected, pair.chosen) in first:
            turned.append(name(pair))
        if key in first:
            again.append(name(pair))
        first.setdefault(key, name(pair))
    return [
        Finding("warning", "the same pair again in its split", "drop the copies, or they count twice", tuple(again)),
        Finding("error", "the same two completions preferred both ways in one split", "decide, or drop both", tuple(turned)),
    ]


def _leaks(pairs: Sequence[TextPair]) -> list[Finding]:
    splits: dict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        if pair.prompt.strip():
            splits[pair.prompt].add(pair.split)
    leaked = _where(pairs, lambda p: p.split != "train" and len(splits.get(p.prompt, ())) > 1)
    return [
        Finding("error", "a prompt that another split has too", "drop it from one of them: test prompts must be new", leaked)
    ]


def _scores(pairs: Sequence[TextPair]) -> list[Finding]:
    scored = [pair for pair in pairs if pair.scores is not None]
    return [
        Finding(
            "warning", "a tie: both scores are equal", "drop them: the label is arbitrary",
            _where(scored, lambda p: p.scores is not None and p.scores[0] == p.scores[1]),
        ),
        Finding(
            "error", "the rejected completion has the higher score", "the label contradicts the scores: mend or drop",
            _where(scored, lambda p: p.scores is not None and p.scores[0] < p.scores[1]),
        ),
    ]  # fmt: skip


def _tokens(pairs: Sequence[TextPair], ids: _Tokens, max_prompt_tokens: int, max_new_tokens: int) -> list[Finding]:
    names = [name(pair) for pair in pairs]

    def rows(bad: Sequence[bool]) -> tuple[str, ...]:
        return tuple(n for n, b in zip(names, bad, strict=True) if b)

    return [
        Finding(
            "warning", "prompt and completion merge into one token where they meet",
            "trainers that tokenise the joined text score a part of the prompt: end the prompt, or begin the completion, at a "
            "blank or a special token; this suite joins token ids and is not concerned", rows(ids.merged),
        ),
        Finding(
            "warning", f"the prompt has more than {max_prompt_tokens} tokens: left out",
            "raise --max-prompt-tokens, or shorten it", rows([p > max_prompt_tokens for p in ids.prompt]),
        ),
        Finding(
            "warning", f"an answer with its EOS has more than {max_new_tokens} tokens: cut, and its end is not learned",
            "raise --max-new-tokens, or drop long answers",
            rows([max(c, r) >= max_new_tokens for c, r in zip(ids.chosen, ids.rejected, strict=True)]),
        ),
    ]  # fmt: skip


def _eos(pairs: Sequence[TextPair], eos: str | None) -> list[Finding]:
    """EOS written as text: trainers append one themselves."""
    if not eos:
        return []

    def ends(pair: TextPair) -> list[bool]:
        return [text.rstrip().endswith(eos) for text in (pair.chosen, pair.rejected)]

    with_end = [pair for pair in pairs if any(ends(pair))]
    inside = _where(pairs, lambda p: any(eos in text.rstrip().removesuffix(eos) for text in (p.chosen, p.rejected)))
    advice = "cut there: what follows is never generated"
    findings = [Finding("error", f"EOS {eos!r} in the middle of a completion", advice, inside)]
    if with_end and all(all(ends(pair)) for pair in pairs):
        advice = "fine if your trainer appends none, doubled if it does"
        findings.append(Finding("warning", f"every completion ends with {eos!r} as text", advice, None))
    elif with_end:
        what, advice = f"some completions end with {eos!r} as text and these do not", "end all of them or none with it"
        findings.append(Finding("error", what, advice, _where(pairs, lambda p: not all(ends(p)))))
    return findings
