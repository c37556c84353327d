"""Figures of training."""

import pandas as pd
import pytest
from matplotlib.figure import Figure

from suite.report.figures import method_in, over_training


@pytest.mark.parametrize(
    ("name", "method"),
    [("IPO (sum) beta = 0.1", "IPO (sum)"), ("DPO", "DPO"), ("DPO (TRL) beta = 1.0", "DPO (TRL)"), ("DPOP x = 1", "DPOP")],
)
def test_a_setting_has_the_style_of_its_method(name, method):
    assert method_in(name) == method


def test_seeds_whose_runs_differ_by_a_step_are_averaged_snapshot_by_snapshot():
    rows = [
        {"method": "DPO", "setting": "beta = 0.1", "seed": seed, "step": step, "reward": reward, "kl": 10 * reward}
        for seed, steps in ((1, (18, 36, 72)), (2, (18, 36, 71)))
        for step, reward in zip(steps, (0.5 + 0.1 * seed, 0.6 + 0.1 * seed, 0.7 + 0.1 * seed), strict=True)
    ]
    reference = {"method": "reference", "setting": "", "seed": 0, "step": 0, "reward": 0.5, "kl": 0.0}
    axes = Figure().subplots(2)
    over_training(pd.DataFrame([reference, *rows]), axes)
    (line,) = axes[0].get_lines()
    assert line.get_ydata() == pytest.approx([0.65, 0.75, 0.85])
    assert line.get_xdata() == pytest.approx([(18 / 72 + 18 / 71) / 2, (36 / 72 + 36 / 71) / 2, 1.0])
    assert axes[1].get_lines()[0].get_ydata() == pytest.approx([6.5, 7.5, 8.5])
