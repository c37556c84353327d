"""A study with a reward model of helpfulness and one of safety: which runs it means, and what is in their keys."""

from dataclasses import replace

import pytest

from suite.common.errors import UserError
from suite.data.readers import names_of
from suite.data.tokenizers import load_tokenizer
from suite.study.llama2_rlhf import dialogues, reward_schedule
from suite.study.profiles import EMBEDDED
from suite.study.specs import Specs
from suite.study.study import TwoRewards
from suite.tasks.hh_dialogue import TASK
from suite.tasks.splits import read_part, read_rows
from suite.tasks.text_format import Limits
from suite.training.settings import OptimConfig, rate_share, warmup_of


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return dialogues("smoke", pairs=None, runs=tmp_path_factory.mktemp("runs"), device="cpu").study


def test_the_combination_is_made_of_two_models_fitted_alike_on_their_shares(study):
    two = replace(study, two_rewards=TwoRewards("helpful", "safe", margins="small", flag_words=("bomb",)))
    source = Specs(two).source(0)
    assert source.reward_model.stage == "combined_reward"
    assert source.reward_model.config["config"] == {"threshold": 0.15, "flag_words": ["bomb"]}
    fitted = {name: spec.config for name, spec in source.fitted.items()}
    assert fitted["helpfulness"]["shares"] == {"helpful": 1.0}
    assert fitted["safety"]["shares"] == {"safe": 0.9, "helpful": 0.1}
    assert [config["config"]["rating_margins"] for config in fitted.values()] == ["small", "none"]
    assert [config["config"]["optim"] for config in fitted.values()] == [fitted["safety"]["config"]["optim"]] * 2
    one = Specs(study).source(0)
    assert one.fitted == {"": one.reward_model}
    assert one.reward_model.config["shares"] == {}
    assert one.pairs.key == source.pairs.key  # the same preferences
    scored = [Specs(of).policy("ppo", {}, 0)[1].work.scored for of in (study, two)]
    assert scored[1] / scored[0] == 4 / 3  # π, π_ref and two models of the reward
    policies = {Specs(of).policy("ppo", {}, 0)[1].key for of in (study, two)}
    assert len(policies) == 2


def test_weights_are_in_the_key_of_the_mixture_and_not_of_other_data(study):
    weighted = replace(study, source=f"{study.source},{study.source}", weights=(0.9, 0.1), answers=study.source)
    specs = Specs(weighted)
    assert specs.split("methods", 8).config["weights"] == [0.9, 0.1]
    assert specs.split("methods", 8).config["names"] == names_of(str(weighted.source))  # they become domains
    assert specs.split("test", 8).config["names"] == []
    assert specs.split("test", 8).config["weights"] == []


def test_the_papers_schedule():
    optim = reward_schedule(OptimConfig(lr=1e-5, num_epochs=3))
    assert (optim.num_epochs, warmup_of(1000, optim), warmup_of(60, optim)) == (1, 30, 5)
    assert rate_share(999, 1000, optim) == pytest.approx(0.1)


def test_a_mixture_without_one_of_its_kinds_is_refused_by_name(study):
    splits, tokenizer = read_rows(TASK.form, str(study.source)), load_tokenizer(EMBEDDED)
    with pytest.raises(UserError, match="nothing usable of other, whose weight is 1"):
        read_part(TASK.form, splits, "all", 8, tokenizer, Limits(110, 24), shares={"other": 1.0})
