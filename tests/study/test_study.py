"""Which runs a study means, what changes them, and what is found of them."""

from dataclasses import replace

import pandas as pd
import pytest

from suite.analysis.gather import gather
from suite.analysis.records import REFERENCE, wide
from suite.common.errors import UserError
from suite.common.registry import describe
from suite.common.sources import data_digest, resolve_model
from suite.engine.making import closure
from suite.engine.store import Damaged
from suite.engine.sweep import run_sweep
from suite.evaluation.reward_kl_evaluator import RewardKLEvaluator
from suite.interfaces import Contender
from suite.study.plan import plan_study
from suite.study.profiles import ASSETS, EMBEDDED, sentiment_study, text_study
from suite.study.run import Finished, Options, gap_line
from suite.study.specs import Specs, shards
from suite.study.study import Study, SupervisedSettings, method_config, was_searched
from suite.training.settings import OptimConfig

STUDY = Study(
    profile="test", task="imdb_sentiment", model=EMBEDDED, gold_reward=str(ASSETS / "imdb-sentiment"), train_size=8,
    validation_prompts=4, test_prompts=6, max_new_tokens=8, pool_size=4, ideal_prompts=3, ideal_samples=16,
    learning_rates={"dpo": 1e-5},
    optim=OptimConfig(batch_size=16, warmup_steps=1, num_snapshots=2), reward_model=OptimConfig(batch_size=16, num_snapshots=2),
)  # fmt: skip
GRID = {"dpo": [{"beta": 0.1}], "best_of_n": [{"n": 2}], "best_of_n_gt": [{"n": 2}, {"n": 4}]}


def plan_of(study, grid=GRID, evaluator=None):
    return plan_study(study, grid, evaluator or RewardKLEvaluator(), reference=Contender(REFERENCE))


def keys(study, stage, evaluator=None):
    """Of a stage; "completions": those of the reference."""
    runs = closure(plan_of(study, evaluator=evaluator).targets)
    if stage == "completions":
        return {spec.key for spec in runs if spec.stage == "samples" and "policy" not in spec.inputs}
    return {spec.key for spec in runs if spec.stage == stage}


@pytest.mark.parametrize(
    ("change", "evaluator"),
    [
        ({"test_prompts": 7}, RewardKLEvaluator()),
        ({}, RewardKLEvaluator(samples=2)),
        ({"validation_prompts": 5}, RewardKLEvaluator()),
    ],
)
def test_changing_how_much_is_measured_retrains_nothing(change, evaluator):
    changed = replace(STUDY, **change)
    for stage in ("policy", "pairs"):
        assert keys(changed, stage, evaluator) == keys(STUDY, stage) != set()
    assert not keys(changed, "measurements", evaluator) & keys(STUDY, "measurements")


def test_the_pool_is_apart():
    assert keys(replace(STUDY, pool_size=8), "measurements") == keys(STUDY, "measurements") != set()
    assert keys(replace(STUDY, pool_size=8), "completions") != keys(STUDY, "completions")


@pytest.mark.parametrize(
    ("change", "same", "new"),
    [
        ({"labels": "bradley_terry"}, ["data", "completions"], ["pairs", "policy", "measurements"]),
        ({"learning_rates": {"dpo": 3e-5}}, ["data", "completions", "pairs"], ["policy"]),
        ({"train_size": 9}, [], ["completions", "pairs", "policy"]),
        ({"max_new_tokens": 9}, [], ["completions", "pairs", "policy", "measurements"]),
        ({"device": "cuda"}, ["data", "completions", "pairs", "policy", "measurements"], []),
    ],
)
def test_a_setting_changes_what_depends_on_it_and_nothing_else(change, same, new):
    changed = replace(STUDY, **change)
    for stage in same:
        assert keys(changed, stage) == keys(STUDY, stage) != set(), stage
    for stage in new:
        assert keys(changed, stage) != keys(STUDY, stage), stage


def test_unknown_settings_and_models_are_named():
    with pytest.raises(UserError, match=r"no setting 'betta'; it has beta, optim"):
        plan_of(STUDY, {"dpo": [{"betta": 1.0}]})
    with pytest.raises(UserError, match="does not exist"):
        plan_of(replace(STUDY, model="./nothing"))


def test_two_methods_of_one_name_are_refused():
    with pytest.raises(UserError, match="its name 'DPO' is that of dpo too; give it a name of its own"):
        plan_of(STUDY, {"dpo": [{}], "suite.methods.dpo:DPO": [{"beta": 0.5}]})
    with pytest.raises(UserError, match="its name 'DPO' is that of the reference too"):
        plan_study(STUDY, {"dpo": [{}]}, RewardKLEvaluator(), reference=Contender("DPO"))


def test_a_method_may_not_be_called_what_tables_call_the_reference(monkeypatch):
    reference = Contender("Preferred-FT", "(reference)")
    plan_study(STUDY, {"preferred_ft": [{}]}, RewardKLEvaluator(), reference=reference)
    monkeypatch.setattr("suite.methods.dpo.DPO.name", reference.label)
    with pytest.raises(UserError, match="that of the reference too"):
        plan_study(STUDY, {"dpo": [{}]}, RewardKLEvaluator(), reference=reference)


def test_every_training_seed_has_runs_of_its_own():
    plan = plan_study(STUDY, GRID, RewardKLEvaluator(), seeds=[0, 1], reference=Contender(REFERENCE))
    assert [(c.method, c.seed) for c in plan.trained] == [("DPO", 0), ("DPO", 1)]
    assert len({spec.key for spec in plan.trained.values()}) == 2
    assert sum(p.contender.n > 1 for p in plan.points) == 6  # each seed its own reward model


def test_seeds_redraw_all_that_somebody_else_would():
    """Prompts, completions, labels and the reward model; not what is measured on, nor the pool."""
    plan = plan_study(STUDY, {**GRID, "ppo": [{}]}, RewardKLEvaluator(), seeds=[0, 1], reference=Contender(REFERENCE))
    one, other = plan.sources.values()
    for name in ("prompts", "pairs", "reward_model"):
        assert getattr(one, name).key != getattr(other, name).key
    drawn = [spec for spec in closure([other.pairs]) if spec.stage in ("data", "samples", "pairs")]
    assert {spec.config.get("draw", spec.config["seed"]) for spec in drawn} == {1}
    for contender, spec in plan.trained.items():
        source = plan.sources[contender.seed]
        assert (spec.inputs["prompts"].key, spec.inputs["pairs"].key) == (source.prompts.key, source.pairs.key)
        assert contender.method != "PPO" or spec.inputs["reward_model"].key == source.reward_model.key
    assert {spec.config["seed"] for shard in plan.pool for spec in (shard.samples, shard.gold)} == {STUDY.seed}
    assert all(set(shard.learned) == {0, 1} for shard in plan.pool)
    for split in ("validation", "test"):
        assert plan.prompts[split].config["draw"] == 0
    selecting = [p.contender for p in plan.points if p.contender.learned]
    assert {contender.seed for contender in selecting} == set(plan.pool_scores) == {0, 1}


def test_preferences_that_people_gave_are_the_same_for_all_seeds():
    make = Specs(text_study("tldr_summarization", "smoke"))
    one, other = make.source(0), make.source(1)
    assert (one.prompts.key, one.pairs.key) == (other.prompts.key, other.pairs.key)
    assert one.reward_model.key != other.reward_model.key


def test_noisy_labels_are_of_their_own_and_have_no_rankings():
    noisy = replace(STUDY, label_noise=0.2)
    assert Specs(noisy).source(0).pairs.key != Specs(STUDY).source(0).pairs.key
    assert plan_of(STUDY, {"pl_dpo": [{}]}).trained
    with pytest.raises(UserError, match="needs rankings, which this study does not provide"):
        plan_of(noisy, {"pl_dpo": [{}]})


def test_what_a_study_can_tell_apart_is_said_before_it_runs():
    one, three = (
        gap_line(plan_study(STUDY, GRID, RewardKLEvaluator(), seeds=seeds, reference=Contender(REFERENCE)))
        for seeds in ([0], [0, 1, 2])
    )
    assert f"{STUDY.test_prompts} test prompts and 1 training seed: a true difference between these policies of 0." in one
    assert one.endswith("a verdict on methods takes three seeds")
    assert "3 training seeds: a true difference between methods of 0." in three
    unbounded = plan_of(replace(STUDY, reward_maximum=float("inf")))
    assert "standard deviations of the reward or more would show" in gap_line(unbounded)


def test_only_what_was_searched_on_this_very_model_counts_as_searched():
    study = sentiment_study("embedded")
    assert was_searched(study, "dpo")
    assert was_searched(study, "suite.methods.dpo:DPO")
    assert not was_searched(study, "trl_kto")
    assert not was_searched(replace(study, model="another"), "dpo")


def test_a_models_digest_is_of_its_contents_not_its_place(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"weights" if name != "c" else b"others")
        (tmp_path / name / "README.md").write_text(name)
    digests = [resolve_model(str(tmp_path / name))[1] for name in ("a", "b", "c")]
    assert digests[0] == digests[1] != digests[2]
    assert data_digest(None) is None
    assert data_digest("stanfordnlp/imdb") == "stanfordnlp/imdb"


def test_a_data_sets_digest_reads_its_subfolders(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "train").mkdir(parents=True)
        (tmp_path / name / "dataset_dict.json").write_text("{}")
        (tmp_path / name / "train" / "data.arrow").write_text(name)
    assert data_digest(str(tmp_path / "a")) != data_digest(str(tmp_path / "b"))


def test_another_gold_reward_changes_neither_sft_nor_prompts(tmp_path):
    import shutil

    other = shutil.copytree(ASSETS / "imdb-sentiment", tmp_path / "other")
    with (other / "ngrams.safetensors").open("ab") as file:
        file.write(b" ")
    sft = SupervisedSettings(texts=4, max_tokens=8, optim=OptimConfig(num_snapshots=1))
    study = replace(STUDY, sft=sft, source="stanfordnlp/imdb")
    changed = replace(study, gold_reward=str(other))
    assert keys(changed, "sft") == keys(study, "sft") != set()
    assert keys(changed, "data") == keys(study, "data")
    assert keys(changed, "completions") == keys(study, "completions")
    assert not keys(changed, "scores") & {
        spec.key for spec in closure(plan_of(study).targets) if spec.config.get("reward") == "gold"
    }
    for stage in ("pairs", "policy", "measurements"):
        assert not keys(changed, stage) & keys(study, stage), stage


def test_an_outside_method_keeps_its_own_learning_rate_unless_searched():
    for name, rates, expected in (
        ("dpo", {}, 1e-6),
        ("dpo", {"dpo": 3e-5}, 3e-5),
        ("suite.methods.dpo:DPO", {"dpo": 3e-5}, 3e-5),
    ):
        config = method_config(replace(STUDY, learning_rates=rates), describe(name), {"beta": 1.0})
        assert config["optim"]["lr"] == expected
        assert config["optim"]["num_snapshots"] == 2
        assert config["beta"] == 1.0


def test_a_setting_may_be_a_field_of_the_optimizer():
    study = replace(STUDY, settings={"dpo": {"num_epochs": 3}})
    config = method_config(study, describe("dpo"), {"batch_size": 7})
    assert (config["optim"]["num_epochs"], config["optim"]["batch_size"]) == (3, 7)
    assert method_config(study, describe("unlikelihood"), {})["optim"]["num_epochs"] == STUDY.optim.num_epochs
    _, spec = Specs(study).policy("dpo", {}, 0)
    assert spec.work.trained == 3 * Specs(STUDY).policy("dpo", {}, 0)[1].work.trained
    with pytest.raises(UserError, match="no setting 'num_epoch'"):
        method_config(study, describe("dpo"), {"num_epoch": 2})
    with pytest.raises(UserError, match="no setting 'lr_decay'"):
        method_config(study, describe("best_of_n"), {"lr_decay": 2})
    for name in ("lr", "num_snapshots"):  # the study's own: one is searched, of the other all methods have as many
        with pytest.raises(UserError, match=f"no setting '{name}'"):
            method_config(study, describe("dpo"), {name: 1})
    with pytest.raises(UserError, match="no setting 'num_epochs'"):  # it would change nothing
        method_config(study, describe("ppo"), {"num_epochs": 2})


def test_shards():
    assert shards([(3, (1, 6)), (2, (6, 7))], 6) == [(3, (1, 3)), (3, (3, 5)), (3, (5, 6)), (2, (6, 7))]
    assert shards([(9, (0, 2)), (3, (2, 2))], 6) == [(9, (0, 1)), (9, (1, 2))]


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reviews")
    for split, word in (("train", "Story"), ("test", "Tale")):
        texts = [
            f"{word} {i} of the {i * 7 % 90} that I have seen was {'fine' if i % 2 else 'dull'} to me." for i in range(400)
        ]
        pd.DataFrame({"text": texts, "label": [i % 2 for i in range(400)]}).to_csv(folder / f"{split}.csv", index=False)
    return folder


def test_with_real_reviews_and_supervised_fine_tuning_first(tmp_path, reviews):
    """The paper profile's way at test size: SFT makes the reference, reviews give the prefixes, everything in one process."""
    sft = SupervisedSettings(texts=32, max_tokens=16, optim=OptimConfig(lr=1e-4, batch_size=8, warmup_steps=1, num_snapshots=1))
    plan = plan_of(replace(STUDY, source=str(reviews), sft=sft))
    assert [o.status for o in run_sweep(tmp_path, plan.targets, workers=1)] == ["done"] * len(closure(plan.targets))
    results = gather(Finished(plan, Options(tmp_path)), "test")
    records, numbers = results.records, results.measurements
    test = wide(records, "test")
    assert list(test["method"]) == [REFERENCE, "DPO", "DPO", "Best-of-N", "Best-of-N-GT", "Best-of-N-GT"]
    assert (test[test["method"] == "DPO"]["kl"] > 0).all()
    validation = wide(records, "validation")
    assert validation[validation["method"] == REFERENCE]["kl"].item() == pytest.approx(0, abs=1e-6)
    best = test.set_index(["method", "setting"])["reward"]
    by_gold = "Best-of-N-GT"
    assert best[by_gold, "n = 4"] >= best[by_gold, "n = 2"] >= test[test["method"] == REFERENCE]["reward"].item()
    assert best["Best-of-N", "n = 2"] <= best[by_gold, "n = 2"]  # no other score selects better than the gold reward itself
    assert test.set_index("method")["privileged"].to_dict() == {
        "DPO": False, REFERENCE: False, "Best-of-N": False, by_gold: True
    }  # fmt: skip
    costs = test.groupby("method")["compute"].max()
    assert costs[REFERENCE] == costs[by_gold] == 0 < costs["Best-of-N"]
    assert set(numbers["split"]) == {"validation", "test"}
    original = plan_of(replace(STUDY, source=str(reviews)))
    assert {s.key for s in closure(original.targets)}.isdisjoint(s.key for s in closure(plan.targets))


def test_a_method_that_fails_is_an_outcome_and_the_rest_goes_on(tmp_path, monkeypatch):
    from suite.methods.dpo import DPO

    def explode(self, *_):
        raise FloatingPointError("boom")

    monkeypatch.setattr(DPO, "train", explode)
    plan = plan_of(STUDY, {"dpo": [{}], "preferred_ft": [{}]})
    outcomes = {o.spec.title: o for o in run_sweep(tmp_path, plan.targets, workers=1)}
    assert outcomes["DPO seed 0"].status == "failed"
    assert "boom" in outcomes["DPO seed 0"].error
    assert "Traceback" in (next(iter(plan.trained.values())).directory(tmp_path) / "error.log").read_text()
    assert outcomes["DPO seed 0, snapshot 1"].status == "skipped"
    assert outcomes["Preferred-FT seed 0, snapshot 2"].status == "done"
    assert outcomes["reward_kl of Preferred-FT seed 0, snapshot 2"].status == "done"
    left = plan.without({o.spec.key for o in outcomes.values() if o.status in ("failed", "skipped")})
    assert [contender.method for contender in left.trained] == ["Preferred-FT"]
    records = gather(Finished(left, Options(tmp_path)), "test").records
    assert set(records["method"]) == {"Preferred-FT", REFERENCE}
    damaged = left.points[-1].measured.directory(tmp_path)
    (damaged / "measurements.parquet").write_bytes(b"cut")
    with pytest.raises(Damaged, match=f"{damaged.name}: measurements.parquet has 3 of"):
        gather(Finished(left, Options(tmp_path)), "test")
    assert (tmp_path / "damaged" / "measurements" / damaged.name).is_dir()


def test_ppo_learns_its_reward_from_the_pairs_and_ppo_gt_is_given_the_gold_one():
    plan = plan_of(STUDY, {"ppo": [{"target_kl": 3.0}], "ppo_gt": [{"target_kl": 3.0}], "dpo": [{}]})
    ppo, ppo_gt, dpo = plan.trained.values()
    assert set(ppo.inputs) == {"prompts", "pairs", "reward_model"}
    assert set(ppo_gt.inputs) == set(dpo.inputs) == {"prompts", "pairs"}
    assert {spec.stage for spec in closure([ppo])} >= {"reward_model", "samples"}
    assert "reward_model" not in {spec.stage for spec in closure([ppo_gt, dpo])}
    assert ppo.config["config"]["num_steps"] == STUDY.on_policy_samples // 128 == 32


def test_rejection_sampling_trains_on_one_in_n_of_as_many_samples_and_its_plan_says_so():
    """4096 samples, two passes: PPO over all; rejection sampling over one in 8, and the reward alone reads them; or both."""
    own = {"rejection_sampling": [{"n": 8}], "rejection_sampling_ppo": [{"rejection_share": 0.25}]}
    plan = plan_of(STUDY, {"ppo": [{}], **own})
    works = [spec.work for spec in plan.trained.values()]
    assert [work.drawn for work in works] == [4096] * 3
    assert [work.trained for work in works] == [2 * 4096, 2 * 512, 2 * (3072 + 128)]
    assert [work.scored for work in works] == [3 * 4096, 4096, 3 * 3072 + 1024]
    assert [work.state for work in works] == [8, 4, 8]
    assert [work.models for work in works] == [3, 3, 4]
    assert [work.rewarded for work in works] == [0] * 3
    assert all(spec.config["config"]["num_steps"] == 32 for spec in plan.trained.values())
    assert all("reward_model" in spec.inputs for spec in plan.trained.values())


def test_a_study_too_short_for_two_parts_is_one_line():
    short = replace(STUDY, on_policy_samples=64, optim=replace(STUDY.optim, num_snapshots=1))
    with pytest.raises(UserError, match=r"'Rejection sampling, then PPO': .*num_steps 1: expected 2 or more"):
        method_config(short, describe("rejection_sampling_ppo"), {})
    with pytest.raises(UserError, match=r"'Rejection sampling': .*samples_per_step 128 is no multiple of n 5"):
        method_config(STUDY, describe("rejection_sampling"), {"n": 5})


def test_an_edited_reward_model_is_never_answered_from_an_old_run(monkeypatch):
    from suite.engine import code_hash

    before = [spec.code for spec in plan_of(STUDY, {"ppo": [{}], "dpo": [{}]}).trained.values()]
    original = code_hash._digest_and_imports
    monkeypatch.setattr(
        code_hash,
        "_digest_and_imports",
        lambda name: ("edited", original(name)[1]) if name == "suite.rewards.reward_model" else original(name),
    )
    ppo, dpo = (spec.code for spec in plan_of(STUDY, {"ppo": [{}], "dpo": [{}]}).trained.values())
    assert ppo != before[0]
    assert dpo == before[1]


def test_a_failed_reward_model_takes_only_what_selects_by_it():
    plan = plan_of(STUDY, {**GRID, "ppo": [{}]})
    (ppo,) = (spec for contender, spec in plan.trained.items() if contender.method == "PPO")
    lost = {plan.source.reward_model.key, *(spec.key for spec in plan.pool_scores[0]), ppo.key}
    left = plan.without(lost)
    assert [contender.method for contender in left.trained] == ["DPO"]
    assert {p.contender.method for p in left.points if p.contender.n > 1} == {"Best-of-N-GT"}
    assert lost.isdisjoint(spec.key for spec in closure(left.targets))
