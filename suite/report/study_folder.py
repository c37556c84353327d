"""The results folder of a study: tables, figures and pages, whichever kind of study it is."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from suite.analysis.records import Results, read_results, write_results, write_table, write_text
from suite.report.html.write import FILE, report_html
from suite.report.page import Section, Verdict, page


def studies_in(folder: Path) -> list[tuple[str, Results]]:
    """Name and results of the study in a folder, or of those in its subfolders. Raises UserError if there is none."""
    inside = sorted(path.parent for path in folder.glob("*/study.json"))
    own = (folder / "study.json").exists() or not inside
    return [(one.resolve().name, read_results(one)) for one in ([folder] if own else inside)]


def write_folder(
    out: Path, results: Results, comparison: pd.DataFrame, sections: Iterable[Section], *, draw: Callable[[Results, Path], Any],
    verdict: Verdict | None, samples: int = 0,
) -> str:  # fmt: skip
    """Write tables, figures, `report.html` (with the texts of `samples` test prompts), `summary.md`, and `verdict.md` where
    there is a verdict; returns the page to be read first.
    """
    results.about["page_samples"] = samples
    write_results(out, results)
    write_table(out / "comparisons.csv", comparison)
    stored = read_results(out)  # as all will be drawn again
    draw(stored, out)
    write_text(out / FILE, report_html([(out.name, stored)]))
    found = verdict(results, comparison) if verdict else ""
    lead = f"[Interactive page]({FILE})" + (" · [Verdict](verdict.md)" if found else "")
    text = page(results.about["title"], [("", lead), *sections])
    write_text(out / "summary.md", text)
    if found:
        write_text(out / "verdict.md", found)
    return found or text
