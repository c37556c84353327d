"""Figures as files: names are drawn as they are, whatever they hold."""

import re

import pandas as pd
import pytest

from suite.report.curves import draw_panel
from suite.report.files import captioned, figure_file

NAMES = ["mo$del_$x", "$z_$", "$", r"\$5 and $6", "$\\unknown{$", "two $a_$\nlines"]


def written(path):
    """Texts of an SVG: the writer leaves each in a comment before its outlines."""
    return [text.strip() for text in re.findall(r"<!-- (.*?) -->", path.read_text(), re.DOTALL)]


@pytest.mark.parametrize("name", NAMES)
def test_a_dollar_in_a_name_is_a_dollar(tmp_path, name):
    with figure_file(tmp_path / "figure", (4, 3), png=True) as (figure, ax, files):
        ax.plot([0, 1], [1, 10], label=name)
        ax.set_yscale("log")
        ax.set_title(f"title {name}")
        ax.set_ylabel(f"label {name}")
        ax.legend()
        figure.legend(*ax.get_legend_handles_labels())
        captioned(figure, name, [f"caption {name}"])
    assert [path.suffix for path in files] == [".svg", ".png"]
    texts = written(tmp_path / "figure.svg")
    for line in (f"title {name}", f"label {name}", *([name] * 3), f"caption {' '.join(name.split())}"):
        for part in line.splitlines():
            assert part in texts
    assert r"$\mathdefault{10^{1}}$" in texts  # of the axis, which is a formula


def test_a_dollar_in_a_policys_name_at_one_temperature(tmp_path):
    rows = [
        {"method": name, "setting": "", "temperature": 1.0, "x": 1.0, "privileged": False, "win_rate": 0.5,
         "win_rate_low": 0.4, "win_rate_high": 0.6}
        for name in NAMES[:2]
    ]  # fmt: skip
    with figure_file(tmp_path / "figure", (4, 3)) as (_, ax, _):
        draw_panel(pd.DataFrame(rows), ax, "temperature", "win_rate", dict.fromkeys(NAMES, ("red", "o")))
    assert set(NAMES[:2]) <= set(written(tmp_path / "figure.svg"))
