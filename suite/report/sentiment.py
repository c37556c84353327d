"""What pages of the controlled sentiment experiment say beside the numbers."""

import json
from pathlib import Path

from suite.report.page import code
from suite.study.plan import Plan


def data_lines(runs: Path, plan: Plan) -> list[str]:
    """Models and data."""
    study = plan.study
    counts = json.loads((plan.source.pairs.directory(runs) / "counts.json").read_text())
    return [
        f"profile **{study.profile}**: reference {code(Path(study.model).name)}, gold reward "
        f"{code(Path(str(study.gold_reward)).name)}, {study.reward_name}",
        f"{study.train_size} training prefixes × {study.completions_per_prompt} completions: {counts['pairs']} pairs "
        f"({study.labels} labels), {counts['dropped_identical']} identical and {counts['dropped_tied']} tied dropped",
    ]
