"""The one builder of Markdown pages: a title, where the numbers come from, then sections."""

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import pandas as pd

from suite.analysis.records import Results
from suite.common.errors import shown

Section = tuple[str, str]
"""Heading (empty: none) and body in Markdown; a section without a body is left out."""


def page(title: str, sections: Iterable[Section]) -> str:
    """The whole page."""
    written = [f"## {heading}\n\n{body}" if heading else body for heading, body in sections if body.strip()]
    parts = [f"# {inert(title)}", *written]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


Verdict = Callable[[Results, pd.DataFrame], str]
"""Writes the page `verdict.md` from results and comparison."""


@cache
def said_in(file: str) -> dict[str, Any]:
    """Texts and numbers in a file beside this one: "paper" (what Rafailov et al. 2023 have), "words" or "styles"."""
    return tomllib.loads(files("suite.report").joinpath(f"{file}.toml").read_text(encoding="utf-8"))


def origin(about: Mapping[str, Any]) -> str:
    """Command, date and machine of a study (`study.json`)."""
    return (
        f"{code(about['command'])}  \n{about['date']}, {about['machine']}, {about['workers']} workers, device "
        f"{about['device']}; {about['worker_minutes']:.1f} worker-minutes in all runs together"
    )


def inert(text: str) -> str:
    """A stranger's text as Markdown that shows what it says, in one line: no HTML, link, image or mark of it works."""
    marks = r"[\\`*<>|\[\]&~$]|(?<![^\W_])_|_(?![^\W_])"  # between letters a line is a line
    dead = re.sub(marks, r"\\\g<0>", shown(text.strip(), keep="\t"))
    dead = re.sub(r"^(\d*)([-+#=.)])(?=[-#=]*(?:\s|$))", r"\1\\\2", dead)  # a list or a heading
    return re.sub(r"(?i)\b(?:https?|ftp|mailto|xmpp)(?=:)|\bwww(?=\.)|\w(?=@)", r"\g<0>\\", dead)  # links without a mark


def plain(name: str) -> str:
    """A name for pages and figures alike: what would be HTML, a link, code or a column in Markdown is a question mark."""
    return re.sub(r"[<>\[\]`|\\]", "?", shown(name, 80))


def code(text: str) -> str:
    """A text as code in Markdown, whatever it holds."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence, blank = "`" * (longest + 1), " " * bool(longest)
    return f"{fence}{blank}{shown(text)}{blank}{fence}"


def bullets(lines: Iterable[str]) -> str:
    """A list, one line each."""
    return "\n".join(f"- {line}" for line in lines)


def table(rows: pd.DataFrame | Sequence[Mapping[str, Any]], **keywords: Any) -> str:
    """A table as Markdown, absent cells empty; nothing where there are no rows."""
    frame = pd.DataFrame(rows)
    if frame.empty:
        return ""
    return frame.astype(object).where(frame.notna(), "").to_markdown(index=False, **{"disable_numparse": True, **keywords})


def interval(mean: float, low: float, high: float, form: str = ".3f") -> str:
    """`0.812 [0.790, 0.833]`; the bare number where the interval has no width, a dash where there is no number."""
    if pd.isna(mean):
        return "–"
    if pd.isna(low):
        return f"{mean:{form}}, no interval"
    return f"{mean:{form}}" if low == high else f"{mean:{form}} [{low:{form}}, {high:{form}}]"
