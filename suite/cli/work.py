"""Work on a plan that others may work on too: the command that any scheduler starts, as often as there is room."""

import signal
from collections import Counter
from typing import Annotated

import tyro
from tabulate import tabulate

from suite.cli.ranges import Count, CountOrNone, File
from suite.common.errors import UserError
from suite.common.machine import available_cores, check_gpus, quiet_libraries, usable_device
from suite.engine.engines import Means
from suite.engine.making import closure
from suite.engine.manifest import done
from suite.engine.plan_file import enter_plan
from suite.engine.pull_workers import OneOfMany
from suite.engine.rank_runs import launched
from suite.engine.sweep import run_sweep, what_lacks
from suite.engine.tracking import Tracker


def work(
    plan: Annotated[File, tyro.conf.Positional], threads: CountOrNone = 0, gpus: Count = 1, tracker: Tracker = "none"
) -> int:
    """Make runs of a plan that nobody makes yet, one at a time, until nothing is left. Exit code 1 if any failed.

    The plan is a file that a command with --engine workers writes and names. Workers may be started, stopped and added at any
    time, on any machine that sees the folder of runs and has the same code; what a killed one was making another goes on with.
    They end when every run of the plan is made.

    Examples:
      python experiments/run_imdb_frontier.py --engine workers           writes the plan, waits, and writes the page
      suite work results/runs/plans/1f0c59b0a1b2c3d4.json                in as many terminals, jobs or machines as you like
      srun --ntasks 16 suite work results/runs/plans/1f0c59b0a1b2c3d4.json

    Args:
        plan: File in the folder plans of a folder of runs.
        threads: Of this process; 0: one for each core that it may use.
        gpus: Of each run that trains; the plan's own number is not in it.
        tracker: Also send training metrics there.
    """
    import torch

    plan, gpus = plan.absolute(), gpus if gpus > 1 else launched()
    root, targets = enter_plan(plan)
    todo = [spec for spec in closure(targets) if not done(spec.directory(root))]
    for device in {spec.where.get("device", "cpu") for spec in todo}:
        usable_device(device)
        check_gpus(gpus, 1, device)
    if problem := what_lacks(root, todo, Means(gpus=gpus)):
        raise UserError(problem)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's word to stop: what is held is given back
    quiet_libraries()
    torch.set_num_threads(threads or available_cores())
    outcomes = list(run_sweep(root, targets, tracker=tracker, engine=OneOfMany(root, plan, tracker, gpus)))
    counts = Counter(outcome.status for outcome in outcomes)
    print(f"{plan.name}: " + ", ".join(f"{count} {status}" for status, count in counts.items()))
    failed = [(o.spec.title, o.status, o.error) for o in outcomes if o.status in ("failed", "skipped")]
    if failed:
        print(tabulate(failed, headers=["run", "status", "why"]))
    return 1 if failed else 0
