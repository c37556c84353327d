"""The page as one file: template, style, script and data put together; the same records give the same bytes."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from suite.analysis.records import Results
from suite.report.html.data import data_of

FILE = "report.html"
SCRIPTS = ("core", "chart", "study", "verdict", "frontier", "curves", "beside", "training", "tables", "main")
"""Files of `js`, in the order in which they are read."""
PARTS = (
    ("verdict", "Who is better"), ("frontier", "Reward and KL"), ("beside", "A beside B"), ("training", "Training"),
    ("judgments", "Verdicts of the judge"), ("health", "Health and data"), ("costs", "Costs"),
    ("provenance", "Where this is from"),
)  # fmt: skip
BIBTEX = """\
@inproceedings{rafailov2023direct,
  title     = {Direct Preference Optimization: Your Language Model is Secretly a Reward Model},
  author    = {Rafailov, Rafael and Sharma, Archit and Mitchell, Eric and Ermon, Stefano and Manning, Christopher D. and
               Finn, Chelsea},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {36},
  year      = {2023},
  note      = {arXiv:2305.18290}
}

@software{rlhf_vs_dpo,
  title  = {rlhf-vs-dpo: an experiment comparison suite of RLHF and DPO},
  author = {{The rlhf-vs-dpo authors}},
  year   = {2026}
}
"""


def report_html(studies: Sequence[tuple[str, Results]], *, samples: int | None = None) -> str:
    """The page on one study, or on several side by side.

    Args:
        studies: Name of each results folder and what it holds.
        samples: Test prompts whose texts and completions are in it, of those that the folders keep; None: as many as when the
            study was written.
    """
    return page_of([
        data_of(results, name, samples=results.about.get("page_samples", 0) if samples is None else samples)
        for name, results in studies
    ])  # fmt: skip


def page_of(studies: Sequence[Mapping[str, Any]], *, more_script: str = "", connect: str = "'none'") -> str:
    """The page from its data.

    Args:
        studies: See `suite.report.html.data.data_of`.
        more_script: What a live page does beside drawing.
        connect: From where it may fetch, as in a Content-Security-Policy.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    script, style = _joined() + more_script, _text("page.css")
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; connect-src {connect}; "
        "base-uri 'none'; form-action 'none'"
    )
    loader = PackageLoader("suite.report", "html")
    template = Environment(loader=loader, autoescape=True, undefined=StrictUndefined).get_template("page.html.j2")
    return template.render(
        studies=studies, parts=PARTS, style=style, script=script, policy=policy,
        data=as_json({"studies": list(studies), "bibtex": BIBTEX}),
    )  # fmt: skip


def as_json(value: Any) -> str:
    """JSON that can stand inside a script element, whatever texts it holds."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


@cache
def _text(name: str) -> str:
    return files("suite.report.html").joinpath(name).read_text(encoding="utf-8")


@cache
def _joined() -> str:
    return "".join(_text(f"js/{name}.js") for name in SCRIPTS)


def _hash(text: str) -> str:
    """As a Content-Security-Policy names an element's content."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
