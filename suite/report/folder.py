"""A results folder, whatever study wrote it: its figures and `report.html` made again from its tables alone. No torch."""

from pathlib import Path

from suite.analysis.records import whole, write_text
from suite.common.files import check_writable
from suite.report import consistency, curves, exact_world, frontier, judge_simulation, label_noise, llama2_rlhf, two_rewards
from suite.report.html.write import FILE, report_html
from suite.report.study_folder import studies_in

OF_ONE_TABLE = {
    "kl_estimators.csv": exact_world.draw, "judges.csv": judge_simulation.draw, label_noise.TABLE: label_noise.draw,
    consistency.TABLE: consistency.draw, two_rewards.TABLE: two_rewards.draw, llama2_rlhf.TABLE: llama2_rlhf.draw,
}  # fmt: skip
"""Table → what draws it, where the figure is not that of a study."""


def redraw(folder: Path, out: Path | None = None) -> list[Path]:
    """Every figure of a results folder, and the page of its studies, into `out` or the folder itself; returns what was written.

    Raises:
        UserError: It holds nothing that could be drawn, is of an older layout or damaged, or `out` cannot be written.
    """
    out = out or folder
    check_writable(out)
    with whole(folder):
        table = next((table for table in OF_ONE_TABLE if (folder / table).exists()), None)
        drawn = OF_ONE_TABLE[table](folder, out) if table else []
        if table and not any(folder.glob("**/study.json")):
            return drawn
        studies = studies_in(folder)
        if table is None and len(studies) == 1:
            results = studies[0][1]
            drawn = frontier.draw(results, out) if set(results.records["panel"]) == {"frontier"} else curves.draw(results, out)
        write_text(out / FILE, report_html(studies))
        return [*drawn, out / FILE]
