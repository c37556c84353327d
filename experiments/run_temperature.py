"""Gold reward against sampling temperature, for the last policy of every run of a grid (after Fig. 2 right of the paper).

Policies are trained at temperature 1 and sampled at others. Trains what `run_imdb_frontier.py` has not trained yet, and draws
on the same test prompts.

Examples:
  python experiments/run_temperature.py                              the default grid, embedded models
  python experiments/run_temperature.py --profile smoke --methods dpo
  python experiments/run_temperature.py --temperatures 0,0.5,1 --dry-run
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import tyro
from answers import parse_numbers
from run_imdb_frontier import RESULTS, chosen_grid, chosen_study
from run_imdb_frontier import Arguments as Frontier

from suite.errors import one_line_errors


@dataclass(frozen=True)
class Arguments:
    """Command line of the temperature sweep."""

    profile: str = "embedded"
    """smoke, embedded or paper."""
    methods: str = ""
    """Comma-separated methods of the default grid; all that are trained if empty."""
    temperatures: str = "0,0.25,0.5,0.75,1"
    """Comma-separated; 0 is greedy."""
    seed: int = 0
    """Training seed."""
    out: Path | None = None
    """Default: results/temperature, with the profile's name if it is another."""
    runs: Path = RESULTS / "runs"
    """Where runs are kept, to be reused and resumed."""
    micro_batch_size: int | None = None
    """As given to run_imdb_frontier.py."""
    device: str = "auto"
    """cpu, cuda or auto."""
    workers: int = 0
    """Processes that share the cores; 0: one per core up to 8, 1 on a GPU."""
    dry_run: bool = False
    """Print the plan and stop."""


@one_line_errors
def main() -> int:
    arguments = tyro.cli(Arguments, description=__doc__)
    from suite.figures.temperature import draw_all
    from suite.files import check_writable, write_atomically
    from suite.runs.plan import plan_study
    from suite.runs.sweep import print_plan, run_all, workers_for

    temperatures = parse_numbers(arguments.temperatures, "--temperatures")
    common = {name: getattr(arguments, name) for name in ("profile", "methods", "device", "micro_batch_size")}
    frontier = Frontier(**common)
    study = chosen_study(frontier)
    plan = plan_study(study, chosen_grid(frontier), [arguments.seed])
    policies = {("SFT (reference)", ""): plan.reference_evaluation}
    policies |= {(run.method, run.label): run.evaluations[-1] for run in plan.trained}
    specs = {(*policy, t): at_temperature(spec, t) for policy, spec in policies.items() for t in temperatures}
    workers = workers_for(arguments.workers, study.device)
    print_plan(arguments.runs, list(specs.values()), workers=workers)
    if arguments.dry_run:
        return 0
    out = arguments.out or RESULTS / f"temperature{'' if arguments.profile == 'embedded' else f'_{arguments.profile}'}"
    for folder in (arguments.runs, out):
        check_writable(folder)
    if run_all(arguments.runs, list(specs.values()), workers=workers):
        return 1
    samples = {point: pd.read_parquet(spec.directory(arguments.runs) / "samples.parquet") for point, spec in specs.items()}
    table = pd.DataFrame([describe(*point, frame) for point, frame in samples.items()])
    write_atomically(out / "temperature.csv", lambda path: table.to_csv(path, index=False, float_format="%.6g"))
    draw_all(out)
    page = report(table, samples)
    write_atomically(out / "summary.md", lambda path: path.write_text(page))
    print(f"{page}\nWritten to {out}: " + ", ".join(sorted(path.name for path in out.iterdir())))
    return 0


def at_temperature(spec: Any, temperature: float) -> Any:
    """An evaluation on test prompts, drawn at another temperature."""
    inputs = {name: run for name, run in spec.inputs.items() if name != "validation"}
    config = {**spec.config, "temperature": temperature}
    return replace(spec, config=config, inputs=inputs, title=f"{spec.title}, temperature {temperature:g}")


def describe(method: str, setting: str, temperature: float, frame: pd.DataFrame) -> dict[str, Any]:
    """Reward with its interval over prompts, and health of the completions."""
    from suite.evaluation.generation_health import generation_health
    from suite.maths.statistics import mean_interval

    reward = mean_interval(frame.groupby("prompt_id")["reward"].mean())
    return {
        "method": method, "setting": setting, "temperature": temperature, "reward": reward.mean, "reward_low": reward.low,
        "reward_high": reward.high, "n": reward.n, **generation_health(frame),
    }  # fmt: skip


def report(table: pd.DataFrame, samples: dict[tuple[str, str, float], pd.DataFrame]) -> str:
    """The page: reward by policy and temperature, and whether the coldest differs from the hottest on the same prompts."""
    from suite.maths.statistics import paired_difference

    cold, hot = table["temperature"].min(), table["temperature"].max()
    rows = []
    for (method, setting), points in table.groupby(["method", "setting"], sort=False):
        row = {"policy": f"{method} {setting}".strip()}
        for point in points.itertuples():
            row[f"T = {point.temperature:g}"] = f"{point.reward:.3f} [{point.reward_low:.3f}, {point.reward_high:.3f}]"
        if cold < hot:
            ends = [samples[method, setting, t].groupby("prompt_id")["reward"].mean() for t in (cold, hot)]
            gap = paired_difference(*ends)
            tied = " statistically tied" if gap.low <= 0 <= gap.high else ""
            row[f"T = {cold:g} minus T = {hot:g}"] = f"{gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]{tied}"
        rows.append(row)
    return (
        f"# Reward against temperature\n\n`{' '.join(['python experiments/run_temperature.py', *sys.argv[1:]])}`  \n"
        f"{date.today()}\n\nGold reward of each run's last policy, {table['n'].iloc[0]} test prompts, one completion each, one "
        f"training seed; 95 % over prompts, not corrected for the number of rows.\n\n"
        f"{pd.DataFrame(rows).to_markdown(index=False)}\n\n![reward against temperature](temperature.png)\n"
    )


if __name__ == "__main__":
    sys.exit(main())
