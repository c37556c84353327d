"""`suite report`: the page of results folders, from their records alone."""

from pathlib import Path
from typing import Annotated

import tyro

from suite.analysis.records import whole, write_text
from suite.cli.ranges import CountOrNone, Folder, Place
from suite.common.errors import UserError
from suite.report.html.write import FILE, report_html
from suite.report.study_folder import studies_in


def report(
    folders: Annotated[tuple[Folder, ...], tyro.conf.Positional],
    out: Place | None = None,
    page_samples: CountOrNone | None = None,
) -> int:
    """Write report.html, one self-contained page on a study's results folder, or on several side by side.

    Examples:
      suite report results/imdb_frontier                                     into that folder
      suite report results/imdb_frontier --page-samples 0                    without completions
      suite report results/imdb_frontier_core_grid results/imdb_frontier_longer --out both.html

    Args:
        folders: Results folders of studies; of one that holds several in subfolders all of them.
        out: File to write. Default: report.html in the folder, of several here.
        page_samples: Put the completions of the first so many test prompts into it, of those that samples.parquet keeps: texts,
            maybe not yours to publish. Default: as many as when the study was written.
    """
    if not folders:
        raise UserError("suite report: give one results folder or more, for example results/imdb_frontier")
    path = out or ((folders[0] if len(folders) == 1 else Path()) / FILE)
    studies = [study for folder in folders for study in studies_in(folder)]
    with whole(folders[0] if len(folders) == 1 else Path(", ".join(map(str, folders)))):
        text = report_html(studies, samples=page_samples)
    write_text(path, text)
    print(f"{path}: {len(text.encode()) / 1e6:.2f} MB, {len(studies)} stud{'y' if len(studies) == 1 else 'ies'}")
    return 0
