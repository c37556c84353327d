"""What a plan will take on GPUs that are not here."""

from pathlib import Path
from typing import Annotated

import tyro

from suite.cli.ranges import File
from suite.common.machine import quiet_libraries
from suite.engine.forecast import told
from suite.engine.plan_file import enter_plan
from suite.engine.store import RunSpec


def forecast(plans: Annotated[tuple[File, ...], tyro.conf.Positional]) -> int:
    """Memory and hours of plans on one and on eight GPUs of 80 GB, by formula, with the arithmetic. Nothing is run.

    What several plans have in common is counted once. The models' configurations are read, not their weights.

    Examples:
      python experiments/run_imdb_frontier.py --profile paper --engine workers --dry-run      writes the plan and names it
      suite forecast results/runs/plans/1f0c59b0a1b2c3d4.json

    Args:
        plans: Files in the folder plans of a folder of runs.
    """
    quiet_libraries()
    print(told(targets_of(plans)))
    return 0


def targets_of(plans: tuple[Path, ...]) -> list[RunSpec]:
    """The targets of all of them."""
    return [spec for plan in [path.absolute() for path in plans] for spec in enter_plan(plan)[1]]
