"""What a study does otherwise than the DPO paper: a table written by the machine from the settings it ran with."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from suite.analysis.records import write_text
from suite.common.registry import describe
from suite.interfaces import Task
from suite.report.page import page, plain, said_in, table
from suite.study.plan import Grid
from suite.study.study import Study, is_searched, method_config, rate_of, rates_note
from suite.tasks.imdb_sentiment import MAX_PREFIX, MIN_PREFIX

UNSPECIFIED = "not specified"
Item = tuple[str, str, str]
"""What it is, in the paper, and here."""


def deviations(study: Study, grid: Grid, seeds: Sequence[int]) -> list[Item]:
    """The items of the paper's IMDb protocol (sec. 6, App. B, C.1 of arXiv:2305.18290)."""
    methods = {name: describe(name) for name in grid}
    swept: dict[str, str] = defaultdict(lambda: "not run")
    ppo: dict[str, str] = defaultdict(lambda: "not run")
    for name, settings in grid.items():
        for key in {key for setting in settings for key in setting}:
            swept[f"{name}.{key}"] = ", ".join(str(setting[key]) for setting in settings if key in setting)
    on_policy = {name: info for name, info in methods.items() if "samples_per_step" in info.fields}
    configs = {name: method_config(study, info, {}) for name, info in on_policy.items()}
    for key in {key for config in configs.values() for key in config}:
        unit = " of the run's samples" if key == "horizon" else ""
        penalised = (name for name, config in configs.items() if key in config and "beta" in config)  # not rejection sampling
        ppo[key] = "; ".join(f"{name} {configs[name][key]}{unit}" for name in penalised) or "not run"
    offline = {
        name: [method_config(study, info, setting)["optim"] for setting in grid[name]]
        for name, info in methods.items()
        if "optim" in info.fields and name not in on_policy
    }
    rates = {name: f"{rate_of(study, info):g}" for name, info in methods.items() if info.searched}
    own = [name for name, info in methods.items() if info.searched and not is_searched(study, info)]
    choice = rates_note(study) or (
        "equal-size search on validation prompts by the area under the hull"
        + (f"; not for {', '.join(own)}, which have their own default" if own else "")
    )
    ties = "identical completions and equal rewards dropped and counted"
    if study.labels == "bradley_terry":
        ties = "identical completions dropped and counted, equal rewards labelled by a coin"
    model, gold_reward = (plain(Path(s).name if Path(s).exists() else s) for s in (study.model, str(study.gold_reward)))
    return _filled(
        "imdb", study=study, model=model, gold_reward=gold_reward, swept=swept, ppo=ppo, choice=choice, ties=ties,
        tuned=f"{study.sft.texts} reviews" if study.sft else "the model is already trained on IMDb",
        prompts=f"prefixes of {plain(study.source)}" if study.source else "prefixes sampled from the reference",
        epochs=_of_each(offline, "num_epochs"), batch=_of_each(offline, "batch_size"),
        shortest=MIN_PREFIX, longest=MAX_PREFIX, seeds=", ".join(map(str, seeds)),
        pairs_per_prefix=study.completions_per_prompt * (study.completions_per_prompt - 1) // 2,
        labels=study.labels if study.labels == "hard" else f"Bradley-Terry, scale {study.bradley_terry_scale:g}",
        rates="; ".join(f"{m} {r}" for m, r in rates.items()) if set(rates.values()) - {"1e-06"} else "1e-06",
    )  # fmt: skip


def _of_each(optims: Mapping[str, Sequence[Mapping[str, Any]]], field: str) -> str:
    """A field of the methods' optimizers: once where it is the same for all, else by method."""
    found = {name: ", ".join(dict.fromkeys(str(optim[field]) for optim in each)) for name, each in optims.items()}
    if len(set(found.values())) < 2:
        return next(iter(found.values()), "no such method run")
    return "; ".join(f"{name} {value}" for name, value in found.items())


def text_deviations(
    study: Study, task: Task, judge: str, temperatures: Sequence[float], settings: Mapping[str, str]
) -> list[Item]:
    """The items of a study on a task with human preferences; none for data that the paper has not.

    Args:
        study, task, judge: What is studied, and who judges.
        temperatures: At which is sampled.
        settings: Method → its setting.
    """
    if not (paper := said_in("paper")["tasks"].get(task.name)):
        return []
    model, pairs = (plain(Path(s).name if Path(s).expanduser().exists() else s) for s in (study.model, str(study.source)))
    tuned = (
        "fine-tuned on the chosen answers" if study.sft and not study.answers else "fine-tuned" if study.sft else "as it comes"
    )
    return _filled(
        "texts", study=study, paper=paper, model=model, pairs=pairs, tuned=tuned, judge=judge,
        weights=f"adapters of rank {study.lora_rank}" if study.lora_rank else "all",
        beta=settings.get("DPO", "not run").removeprefix("beta = "), rate=study.learning_rates.get("dpo", study.optim.lr),
        turns=", one-turn" if study.single_turn else "", temperatures=", ".join(f"{t:g}" for t in temperatures),
    )  # fmt: skip


def _filled(protocol: str, **fields: Any) -> list[Item]:
    """The rows of a protocol of `paper.toml` with what stands in their braces."""
    rows = said_in("paper")["protocols"][protocol]
    return [(item, paper.format(**fields), ours.format(**fields)) for item, paper, ours in rows]


def write_deviations(out: Path, study: Study, grid: Grid, seeds: Sequence[int]) -> None:
    """`deviations.md`: where a run of the paper's own experiment departs from the paper; on what that is silent, it is ours."""
    rows = pd.DataFrame([
        {"item": item, "paper": paper, "this run": ours,
         "verdict": "our choice" if paper == UNSPECIFIED else "same" if paper == ours else "differs"}
        for item, paper, ours in deviations(study, grid, seeds)
    ])  # fmt: skip
    sections = [("", "Written by the run itself."), ("", table(rows))]
    write_text(out / "deviations.md", page("Deviations from the paper's protocol", sections))
