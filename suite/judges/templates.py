"""What a judge is asked, and how its reply is read. Texts are untrusted: they are fenced, and filled in one pass."""

import re
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from itertools import count
from typing import Any

from suite.common.errors import UserError, did_you_mean
from suite.data.comparisons import Verdict
from suite.judges.judging import text_hash

WORDINGS = tomllib.loads(files("suite.judges").joinpath("templates.toml").read_text(encoding="utf-8"))
FORM: str = WORDINGS["form"]
CHOICES: dict[str, Verdict] = {"a": "A", "b": "B", "tie": "tie"}
"""What a reply or a sheet says, in small letters → the verdict."""
FLAGS = re.IGNORECASE | re.ASCII  # small letters of ASCII alone: ı is no i
THOUGHT, THOUGHT_ENDS = r"<think(?:ing)?>", r"</think(?:ing)?>"
LABELS = ("winner", "verdict", "final verdict", "choice", "my choice", "final choice", "answer", "final answer", "preference")
"""What models put before their choice, beside the label that they are asked for."""


@dataclass(frozen=True)
class Template:
    """One question to a judge: its name on the command line, and the wording that `templates.toml` gives and explains."""

    name: str
    version: int
    task: str
    prompt_name: str
    candidate_name: str
    question: str
    label: str

    @property
    def digest(self) -> str:
        """Hash of the whole wording."""
        wording = (FORM, self.task, self.prompt_name, self.candidate_name, self.question, self.label, str(self.version))
        return text_hash(*wording)[:16]

    @property
    def identity(self) -> dict[str, Any]:
        """Its part of a judge's identity, which is in the key of every verdict."""
        return {"template": self.name, "version": self.version, "template_digest": self.digest}

    def fill(self, prompt: str, a: str, b: str, *, seed: int) -> str:
        """The request. Braces in the texts stay as they are; no text can know the nonce that closes its fence."""
        fields = {**vars(self), "prompt": prompt, "a": a, "b": b, "nonce": fence(prompt, a, b, seed=seed)}
        return re.sub(r"\{(\w+)\}", lambda found: str(fields[found[1]]), FORM)

    def read(self, reply: str) -> Verdict | None:
        r"""The choice on the reply's last line; None if that line is anything but a choice, or the reply ends in thoughts.

        Read are A, B and tie, in quotes, brackets, Markdown or `\boxed{}`, after a label with a colon (the template's or one of
        `LABELS`), with the candidate's name before it or repeated ("Summary A", "A (Summary A)"), or as JSON of that one field.
        Thoughts at the beginning (`<think>…</think>`) are left out.
        """
        spoken = re.sub(rf"\A\s*(?:{THOUGHT}.*?{THOUGHT_ENDS}\s*)+", "", reply, flags=FLAGS | re.DOTALL)
        if re.search(THOUGHT, re.split(THOUGHT_ENDS, spoken, flags=FLAGS)[-1], FLAGS):
            return None
        lines = [line for line in re.sub(r"<\|[^|>]*\|>", "", spoken).splitlines() if re.search(r"\w", line)]
        last = " ".join(re.sub(r"[*_`#>]", "", lines[-1]).split()) if lines else ""  # without Markdown
        name, labels = re.escape(self.candidate_name), "|".join(map(re.escape, (self.label, *LABELS)))
        label = rf"[\"'{{]*(?:the )?(?:{labels})(?: {name})?[\"']? ?[:：] ?"
        choice = rf"(?:{name} )?[\"'(\[{{$“]*(?:\\boxed\{{)?(?:\\text\{{)?(?:{name} )?(A|B|tie)[\"')\]}}$”.]*"
        found = re.fullmatch(rf"(?:{label})?{choice}(?: \({name} \1\)\.?)?", last, FLAGS)
        return CHOICES.get(found[1].lower()) if found else None


TEMPLATES = {name: Template(name, **wording) for name, wording in WORDINGS["templates"].items()}


def fence(prompt: str, a: str, b: str, *, seed: int) -> str:
    """Twelve hexadecimal digits that depend on all texts and the seed and occur in none of them."""
    texts = (prompt, a, b)
    nonces = (text_hash(str(seed), str(tries), *texts)[:12] for tries in count())
    return next(nonce for nonce in nonces if not any(nonce in text for text in texts))


def load_template(name: str) -> Template:
    """The template of that name; raises UserError if there is none."""
    if name not in TEMPLATES:
        raise UserError(f"template {name!r} is unknown; {did_you_mean(name, TEMPLATES)}")
    return TEMPLATES[name]
