"""A results folder, whatever study wrote it: its figures and `report.html` made again from its tables alone. No torch."""

from pathlib import Path

from suite.analysis.records import read_results, whole, write_text
from suite.common.files import check_writable
from suite.report import consistency, curves, exact_world, frontier, judge_simulation, label_noise, llama2_rlhf, two_rewards
from suite.report.html.write import FILE, report_html

OF_ONE_TABLE = {
    "kl_estimators.csv": exact_world.draw, "judges.csv": judge_simulation.draw, label_noise.TABLE: label_noise.draw,
    consistency.TABLE: consistency.draw, two_rewards.TABLE: two_rewards.draw, llama2_rlhf.TABLE: llama2_rlhf.draw,
}  # fmt: skip
"""Table → what draws it, of experiments that are no studies."""


def redraw(folder: Path, out: Path | None = None) -> list[Path]:
    """Every figure of a results folder, and the page of a study, into `out` or the folder itself; returns what was written.

    Raises:
        UserError: It holds nothing that could be drawn, is of an older layout or damaged, or `out` cannot be written.
    """
    out = out or folder
    check_writable(out)
    with whole(folder):
        for table, draw_table in OF_ONE_TABLE.items():
            if (folder / table).exists():
                return draw_table(folder, out)
        results = read_results(folder)
        drawn = frontier.draw(results, out) if set(results.records["panel"]) == {"frontier"} else curves.draw(results, out)
        write_text(out / FILE, report_html([(folder.resolve().name, results)]))
        return [*drawn, out / FILE]
