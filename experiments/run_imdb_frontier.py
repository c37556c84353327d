"""The reward-KL frontier of the controlled sentiment experiment (Fig. 2 left of Rafailov et al. 2023).

Trains every method on preferences over its own reference's completions, measures gold reward and KL(π‖π_ref) on test
prompts, and draws the frontier. Everything is cached and resumable: the same command goes on where it was stopped, and a
finished sweep redraws in seconds.

Examples:
  python experiments/run_imdb_frontier.py                                  embedded models, no network, CPU, minutes
  python experiments/run_imdb_frontier.py --profile smoke                  the whole pipeline in about a minute
  python experiments/run_imdb_frontier.py --dry-run                        every run, cached or not
  python experiments/run_imdb_frontier.py --grid paper --seeds 0,1,2       the paper's grid, three training seeds
  python experiments/run_imdb_frontier.py --methods dpo,best_of_n          some methods
  python experiments/run_imdb_frontier.py --methods dpo,my_pkg.kto:KTO     your own method in the race
  python experiments/run_imdb_frontier.py --reviews stanfordnlp/imdb       prefixes of real reviews
  python experiments/run_imdb_frontier.py --profile paper --grid paper     gpt2-large and siebert's classifier, GPU, network
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro

from suite.errors import UserError, did_you_mean, one_line_errors
from suite.training.loop import OptimConfig

RESULTS = Path(__file__).parent.parent / "results"
Grid = Mapping[str, Sequence[Mapping[str, Any]]]

# Chosen on validation prompts by experiments/search_learning_rates.py, equal candidates for every method; its records are in
# results/learning_rates/.
LEARNING_RATES = {
    "dpo": 1e-5, "unlikelihood": 1e-5, "preferred_ft": 3e-5, "cdpo": 3e-5, "robust_dpo": 1e-5, "ipo_sum": 3e-5,
    "ipo_mean": 3e-5, "hinge": 1e-5, "pl_dpo": 3e-5, "welleck": 1e-5, "ppo": 1e-4, "ppo_gt": 1e-4,
    "trl_dpo": 1e-5, "trl_sft": 3e-5,  # those of ours, to be compared
}  # fmt: skip

BEST_OF_N = [{"n": 2**k} for k in range(1, 7)]
TARGET_KL = [{"target_kl": target} for target in (3.0, 6.0, 9.0, 12.0)]
GRIDS: dict[str, Grid] = {
    "default": {
        "dpo": [{"beta": 0.1}, {"beta": 1.0}],
        "unlikelihood": [{"alpha": 0.05}, {"alpha": 0.5}],
        "preferred_ft": [{}],
        "ppo": [{"target_kl": 6.0}],
        "ppo_gt": [{"target_kl": 6.0}],
        "best_of_n": BEST_OF_N,
        "best_of_n_gt": BEST_OF_N,
    },
    "paper": {
        "dpo": [{"beta": beta} for beta in (0.05, 0.1, 1.0, 5.0)],
        "unlikelihood": [{"alpha": alpha} for alpha in (0.05, 0.1, 0.5, 1.0)],
        "preferred_ft": [{}],
        "ppo": TARGET_KL,
        "ppo_gt": TARGET_KL,
        "ppo_gt_trl": TARGET_KL,
        "best_of_n": BEST_OF_N,
        "best_of_n_gt": BEST_OF_N,
    },
    "variants": {
        "dpo": [{"beta": 0.1}, {"beta": 1.0}],
        "cdpo": [{"beta": 0.1}, {"beta": 1.0}],
        "robust_dpo": [{"beta": 0.1}, {"beta": 1.0}],
        "ipo_sum": [{"beta": 0.1}, {"beta": 1.0}],
        "ipo_mean": [{"beta": 1.0}, {"beta": 10.0}],
        "hinge": [{"beta": 0.1}, {"beta": 1.0}],
        "pl_dpo": [{"beta": 0.1}, {"beta": 1.0}],
        "welleck": [{"alpha": 0.1}, {"alpha": 1.0}],
    },
    "trl": {
        "dpo": [{"beta": 0.1}, {"beta": 1.0}],
        "trl_dpo": [{"beta": 0.1}, {"beta": 1.0}],
        "preferred_ft": [{}],
        "trl_sft": [{}],
        "trl_kto": [{"beta": 0.1}, {"beta": 1.0}],
        "ppo": [{"target_kl": 6.0}],
        "trl_grpo": [{"beta": 0.04}],
        "trl_rloo": [{"beta": 0.05}],
    },
}


def profiles() -> dict[str, Any]:
    """Models, data and sizes; never code paths."""
    from suite.policies.causal_lm import bfloat16_is_native
    from suite.runs.study import ASSETS, Study, SupervisedSettings

    fast = "bfloat16" if bfloat16_is_native() else "float32"
    embedded = Study(
        profile="embedded", reference=str(ASSETS / "imdb-gpt2"), gold_reward=str(ASSETS / "imdb-sentiment"),
        on_policy_samples=4096, train_prompts=768, validation_prompts=64, test_prompts=192, max_new_tokens=32,
        optim=OptimConfig(batch_size=64, warmup_steps=10, num_snapshots=4, precision=fast),
        reward_model=OptimConfig(lr=3e-5, batch_size=64, num_epochs=3, warmup_steps=10, num_snapshots=6, precision=fast),
        learning_rates=LEARNING_RATES, rates_from=str(ASSETS / "imdb-gpt2"), sampler_dtype=fast,
    )  # fmt: skip
    smoke = replace(
        embedded, profile="smoke", train_prompts=24, validation_prompts=16, test_prompts=24, max_new_tokens=16,
        pool_size=64, ideal_prompts=16, ideal_samples=128, on_policy_samples=256,
        optim=replace(embedded.optim, batch_size=16, warmup_steps=2, num_snapshots=2),
        reward_model=replace(embedded.reward_model, num_epochs=1, batch_size=16, warmup_steps=2, num_snapshots=2),
    )  # fmt: skip
    paper = Study(
        profile="paper", reference="gpt2-large", gold_reward="siebert/sentiment-roberta-large-english",
        reviews="stanfordnlp/imdb", train_prompts=10_000, validation_prompts=256, test_prompts=1000, max_new_tokens=60,
        sft=SupervisedSettings(
            texts=10_000, max_tokens=512,
            optim=OptimConfig(lr=1e-5, micro_batch_size=8, warmup_steps=10, num_snapshots=1, precision="bfloat16"),
        ),
        optim=OptimConfig(micro_batch_size=32, num_snapshots=10, precision="bfloat16"),
        reward_model=OptimConfig(lr=1e-5, micro_batch_size=32, num_epochs=3, num_snapshots=10, precision="bfloat16"),
        on_policy_samples=100_000,
        settings={
            "ppo": {"samples_per_step": 1024, "minibatch_size": 128, "value_lr": 1e-5},
            "ppo_gt": {"samples_per_step": 1024, "minibatch_size": 128, "value_lr": 1e-5},
            "ppo_gt_trl": {"samples_per_step": 256},
        },
        learning_rates={"ppo": 3e-6, "ppo_gt": 3e-6, "ppo_gt_trl": 1.41e-5}, rates_from=None,
    )  # fmt: skip
    return {study.profile: study for study in (embedded, smoke, paper)}


@dataclass(frozen=True)
class Arguments:
    """Command line of the frontier experiment."""

    profile: str = "embedded"
    """Models, data and sizes: smoke, embedded or paper."""
    grid: Literal["default", "paper", "variants", "trl"] = "default"
    """default: a few settings of every method; paper: all of the paper's; variants: the DPO family; trl: TRL's trainers beside
    ours."""
    methods: str = ""
    """Comma-separated methods of the grid, or your own as module:Class (its Config's defaults); all of the grid if empty."""
    seeds: str = "0"
    """Comma-separated training seeds."""
    labels: Literal["hard", "bradley_terry"] = "hard"
    """hard: the higher gold reward wins (the paper); bradley_terry: it wins with probability σ(scale·difference)."""
    reviews: str | None = None
    """Real reviews for the prefixes: Hub name or local path with train and test splits. Default: drawn from the model."""
    reference: str | None = None
    """Another reference model: folder or Hub name."""
    gold_reward: str | None = None
    """Another sentiment classifier as gold reward: folder or Hub name."""
    sampler_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic in which training completions and the pool are drawn; evaluation is in float32."""
    out: Path | None = None
    """Where records, figures and tables go. Default: results/imdb_frontier, with the names of another grid or profile."""
    runs: Path = RESULTS / "runs"
    """Where runs are kept, to be reused and resumed."""
    micro_batch_size: int | None = None
    """Examples per forward pass of training: changes memory and not the result. Default: the profile's."""
    tracker: Literal["none", "tensorboard", "wandb"] = "none"
    """Also send training metrics there; TensorBoard reads RUNS/tensorboard, W&B stays offline without WANDB_API_KEY."""
    workers: int = 0
    """Processes that share the cores; 0: one per core up to 8, 1 on a GPU."""
    device: str = "auto"
    """cpu, cuda or auto."""
    dry_run: bool = False
    """Print the plan and stop."""


def results_folder(grid: str, profile: str) -> Path:
    """One folder for every grid and profile."""
    grid_part = "" if grid == "default" else f"_{grid}_grid"
    return RESULTS / f"imdb_frontier{'' if profile == 'embedded' else f'_{profile}'}{grid_part}"


def parse_seeds(text: str) -> list[int]:
    """Comma-separated integers ≥ 0, each once."""
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--seeds {text!r}: expected comma-separated integers, for example 0,1,2") from None
    if min(seeds) < 0 or max(seeds) >= 2**31 or len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds {text!r}: expected different integers from 0 to 2147483647")
    return seeds


def chosen_grid(arguments: Arguments) -> Grid:
    """The part of the grid that --methods names, other registered or own methods with their defaults."""
    from suite.registry import resolve

    grid = GRIDS[arguments.grid]
    if not arguments.methods:
        return grid
    names = list(dict.fromkeys(name.strip() for name in arguments.methods.split(",") if name.strip()))
    for name in names:
        resolve(name)
    known = {**GRIDS["trl"], **GRIDS["variants"], **grid}
    return {name: known.get(name, [{}]) for name in names}


def chosen_study(arguments: Arguments) -> Any:
    """The profile with what the command line replaces."""
    from suite.runs.sweep import usable_device

    known = profiles()
    if arguments.profile not in known:
        raise UserError(f"unknown profile {arguments.profile!r}; {did_you_mean(arguments.profile, known)}")
    device = usable_device(arguments.device)
    changes: dict[str, Any] = {"labels": arguments.labels, "device": device}
    for name in ("reviews", "reference", "gold_reward"):
        if (value := getattr(arguments, name)) is not None:
            changes[name] = value
    if arguments.sampler_dtype != "auto":
        changes["sampler_dtype"] = arguments.sampler_dtype
    study = replace(known[arguments.profile], **changes)
    if size := arguments.micro_batch_size:
        for name in ("optim", "reward_model"):
            study = replace(study, **{name: replace(getattr(study, name), micro_batch_size=size)})
        if study.sft:
            study = replace(study, sft=replace(study.sft, optim=replace(study.sft.optim, micro_batch_size=size)))
    return study


@one_line_errors
def main() -> int:
    arguments = tyro.cli(Arguments, description=__doc__)
    from suite.figures.report import sentiment_heading, write_deviations, write_report
    from suite.files import check_writable
    from suite.runs.plan import plan_study
    from suite.runs.sweep import closure, print_plan, run_all, workers_for

    seeds, study, grid = parse_seeds(arguments.seeds), chosen_study(arguments), chosen_grid(arguments)
    plan = plan_study(study, grid, seeds)
    workers = workers_for(arguments.workers, study.device)
    print_plan(arguments.runs, plan.targets, workers=workers)
    if arguments.dry_run:
        return 0
    out = arguments.out or results_folder(arguments.grid, study.profile)
    for folder in (arguments.runs, out):
        check_writable(folder)
    failed = {outcome.spec.key for outcome in run_all(arguments.runs, plan.targets, workers=workers, tracker=arguments.tracker)}
    plan = plan.without(failed)
    if failed & {spec.key for spec in closure(plan.targets)}:  # what everything needs
        return 1
    command = " ".join(["python experiments/run_imdb_frontier.py", *sys.argv[1:]])
    write_deviations(out, plan, grid, seeds)
    heading = sentiment_heading(arguments.runs, plan)
    print("\n" + write_report(arguments.runs, plan, out=out, workers=workers, command=command, heading=heading))
    print(f"Written to {out}: " + ", ".join(sorted(path.name for path in out.iterdir())))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
