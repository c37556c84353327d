"""A frontier on anybody's preference data: the runs of a win-rate study, measured by a gold reward instead of a judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from suite.errors import UserError
from suite.runs.answer_study import REWARDS, AnswerRuns
from suite.runs.plan import Plan, PoolSetting, TrainedRun
from suite.runs.run_store import RunSpec
from suite.runs.stages import STAGES
from suite.runs.study import Study

POOL = 32
"""Reference samples per test prompt, for Best-of-N and the reference."""


def plan_own_data(
    make: AnswerRuns, grid: Mapping[str, Sequence[Mapping[str, Any]]], seeds: Sequence[int], *, reward_name: str, maximum: float
) -> Plan:
    """The plan of a frontier study (`suite.runs.plan`) whose prompts and pairs are those of `make`.

    Args:
        make: Of a study with a gold reward.
        grid: Method → settings.
        seeds: Training seeds.
        reward_name: For tables and figures.
        maximum: The largest gold reward there is; infinity if there is none.

    Raises:
        UserError: Unknown method or setting, or one that needs what there is not.
    """
    study = make.study
    held_out = {
        "validation": make.texts(study.task, study.pairs, "validation", study.test_prompts, tests=study.answers),
        "test": make.test_prompts(),
    }  # fmt: skip
    measured = {**make.origin, **make.gold, "max_new_tokens": study.max_new_tokens, "seed": study.seed}

    def shared(stage: str, config: Mapping[str, Any], inputs: Mapping[str, RunSpec], title: str, cost: float) -> RunSpec:
        return RunSpec(stage, {**measured, **config}, inputs, STAGES[stage].code(REWARDS), make.where, title, cost)

    def evaluation(snapshot: int | None, title: str, **policy: RunSpec) -> RunSpec:
        cost = 8.0 * study.test_prompts * (study.max_prompt_tokens + study.max_new_tokens)
        config = {"num_samples": 1, "snapshot": snapshot}
        return shared("evaluation", config, {**make.base, **held_out, **policy}, title, cost)

    trained: list[TrainedRun] = []
    settings: list[PoolSetting] = []
    for name, chosen in grid.items():
        method = make.method(name)
        if not getattr(method, "trained", True):
            raise UserError(f"method {name!r} trains nothing; with --reward trained policies and Best-of-N are compared")
        for setting in chosen:
            if method.evaluated_from_pool:
                n = setting.get("n", method.Config().n)
                settings.append(PoolSetting(method.name, f"n = {n}", n, "reward" in method.needs))
                continue
            for seed in seeds:
                answerer = make.train(name, setting, seed)
                assert answerer.run is not None
                evaluations = [
                    evaluation(k, f"{answerer.run.title}, snapshot {k + 1}", policy=answerer.run)
                    for k in range(study.optim.num_snapshots)
                ]
                trained.append(TrainedRun(method.name, answerer.setting, setting, seed, answerer.run, evaluations))
    size = held_out["test"].config["size"]
    drawn = {"prompts": [0, size], "num_samples": POOL, "sampler_dtype": study.sampler_dtype}
    cost = 2.0 * size * POOL * (study.max_prompt_tokens + study.max_new_tokens)
    pool = shared("completions", drawn, {**make.base, "prompts": held_out["test"]}, "pool", cost)
    scores = []
    reward_model = make.reward_model(judge=False)
    if any(setting.learned for setting in settings):
        inputs = {"prompts": held_out["test"], "completions": pool, "reward_model": reward_model}
        config = {"precision": study.sampler_dtype, "num_samples": POOL}
        scores = [make.spec("scores", config, inputs, "scores of the pool", cost / 2)]
    reference = evaluation(None, "reference")
    return Plan(
        _as_study(make, reward_name, maximum), trained, reference, make.pairs, [pool], settings, scores, reward_model
    )  # fmt: skip


def _as_study(make: AnswerRuns, reward_name: str, maximum: float) -> Study:
    """What tables and pages ask a frontier study for."""
    study = make.study
    return Study(
        profile=study.profile, task=study.task, reference=study.model, gold_reward=study.gold_reward or "",
        train_prompts=study.train_pairs, validation_prompts=study.test_prompts, test_prompts=study.test_prompts,
        max_new_tokens=study.max_new_tokens, optim=study.optim, reward_model=study.reward_model,
        learning_rates=study.learning_rates, settings=study.settings, pool_size=POOL, ideal_prompts=0, ideal_samples=0,
        sampler_dtype=study.sampler_dtype, seed=study.seed, device=study.device, reward_name=reward_name,
        reward_maximum=maximum,
    )  # fmt: skip
