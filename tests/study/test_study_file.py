"""A planned study as a file is the same study when it is read again."""

import json
from dataclasses import fields
from pathlib import Path

import pytest

from suite.common.errors import UserError
from suite.engine.making import closure
from suite.engine.plan_file import write_plan
from suite.evaluation.reward_kl_evaluator import RewardKLEvaluator
from suite.evaluation.win_rate_evaluator import WinRateEvaluator
from suite.interfaces import Contender
from suite.study.plan import REFERENCE, plan_study
from suite.study.plan_file import enter_studies, made_so_far, write_studies
from suite.study.profiles import GRIDS, chosen_grid, sentiment_study, text_study

GRID = chosen_grid(GRIDS["default"], "dpo,best_of_n")


def machine():
    return {"device": "cpu", "precision": "float32", "micro_batch_size": None, "sampler": "own"}


@pytest.fixture
def plan():
    study = sentiment_study("smoke", **machine())
    return plan_study(study, GRID, RewardKLEvaluator(), seeds=[0, 1], reference=Contender(REFERENCE))


def keys(planned):
    return [
        planned.contender,
        planned.point,
        *(spec and spec.key for spec in (planned.samples, planned.policy, planned.scores, planned.measured)),
    ]


def test_it_is_the_same_study(plan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # reading changes the folder
    other = plan_study(sentiment_study("smoke", **machine(), label_noise=0.2), GRID, RewardKLEvaluator(pool=False), seeds=[0])
    plans = {"out": plan, "noisy": other}
    path = write_studies(tmp_path / "runs", plans, command="python x.py", workers=2)
    assert path == write_studies(tmp_path / "runs", plans, command="python x.py", workers=2)
    root, found, about = enter_studies(path)
    assert (root, about) == (tmp_path / "runs", {"command": "python x.py", "workers": 2})
    assert list(found) == ["out", "noisy"]
    assert {spec.key for spec in found["noisy"].targets} == {spec.key for spec in other.targets}
    again = found["out"]
    assert (again.study, again.evaluator, again.task) == (plan.study, plan.evaluator, plan.task)
    assert [keys(point) for point in again.points] == [keys(point) for point in plan.points]
    assert {c: spec.key for c, spec in again.policies.items()} == {c: spec.key for c, spec in plan.policies.items()}
    assert {spec.key for spec in again.targets} == {spec.key for spec in plan.targets}
    for seed, source in plan.sources.items():
        ours = again.sources[seed]
        assert [getattr(ours, f.name).key for f in fields(ours) if f.name != "fitted"] == [
            getattr(source, f.name).key for f in fields(source) if f.name != "fitted"
        ]
        assert {name: spec.key for name, spec in ours.fitted.items()} == {n: spec.key for n, spec in source.fitted.items()}
    assert [[shard.gold.key, *(s.key for s in shard.learned.values())] for shard in again.pool] == [
        [shard.gold.key, *(s.key for s in shard.learned.values())] for shard in plan.pool
    ]


def test_a_study_with_a_judge_and_an_opponent(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = text_study("hh_dialogue", "smoke", **machine())
    plan = plan_study(
        study, {"dpo": [{}], "ppo": [{}]}, WinRateEvaluator((0.0, 1.0)), reference=Contender("SFT", "(reference)"),
        opponent=("ppo", 0.0), judge_model="own",
    )  # fmt: skip
    again = enter_studies(write_studies(tmp_path / "runs", {"out": plan}))[1]["out"]
    assert again.judge_model.key == plan.judge_model.key
    assert keys(again.opponent) == keys(plan.opponent)
    assert again.evaluator == plan.evaluator


def test_what_is_made_can_be_measured(plan):
    every = {spec.key for spec in closure(plan.targets)}
    with pytest.raises(UserError, match="nothing can be measured"):
        made_so_far(plan, every)
    assert made_so_far(plan, set()).points == plan.points
    first = {point.measured.key for point in plan.points if point.measured and point.contender.seed == 0}
    pairs = {spec.key for spec in closure([plan.sources[0].pairs, *(spec for c, spec in plan.policies.items() if c.seed == 0)])}
    samples = {point.samples.key for point in plan.points if point.measured and point.contender.seed == 0}
    prompts = {spec.key for spec in plan.prompts.values()}
    left = made_so_far(plan, every - first - pairs - samples - prompts)
    assert list(left.sources) == [0]
    assert left.pool == []
    assert {point.contender.seed for point in left.points} == {0}
    assert all(point.measured for point in left.points)


def test_a_plan_without_a_study_is_told(plan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_plan(tmp_path / "runs", plan.targets)
    with pytest.raises(UserError, match="holds runs and no study"):
        enter_studies(path)
    with pytest.raises(UserError, match="cannot be read"):
        enter_studies(Path("runs/studies/none.json"))


@pytest.mark.parametrize(
    "evaluator", [["os:system", {"command": "touch pwned"}], ["suite.study.plan:Plan", {}], ["reward_kl"], None]
)
def test_a_strangers_file_runs_nothing(plan, tmp_path, monkeypatch, evaluator):
    monkeypatch.chdir(tmp_path)
    path = write_studies(tmp_path / "runs", {"out": plan})
    found = json.loads(path.read_text())
    found["planned"]["out"]["evaluator"] = evaluator
    path.write_text(json.dumps(found))
    with pytest.raises(UserError):
        enter_studies(path)
    assert not (tmp_path / "pwned").exists()
