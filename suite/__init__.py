"""An experiment suite for RLHF and DPO. The public names; each is imported when it is asked for, so that this costs nothing."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

_HOMES = {
    "suite.interfaces": "Policy TrainablePolicy RewardFunction TrainingData Method Run Task Example Reading Evaluator Judge "
    "Contender Point",
    "suite.data.preference_data": "Prompt Completion PreferencePair Ranking", "suite.policies.causal_lm": "CausalLMPolicy",
    "suite.rewards.text_rewards": "ClassifierReward", "suite.rewards.ngram_reward": "NgramReward",
    "suite.rewards.open_reward": "open_reward", "suite.rewards.reward_model": "RewardModel",
    "suite.training.settings": "OptimConfig RewardModelConfig", "suite.training.loop": "fit",
    "suite.methods.dpo": "DPO DPOConfig", "suite.methods.dpo_variants": "ConservativeDPO RobustDPO IPOSum IPOMean HingeDPO",
    "suite.methods.plackett_luce_dpo": "PlackettLuceDPO", "suite.methods.supervised": "SFT",
    "suite.tasks.imdb_sentiment": "prompts_from_model", "suite.evaluation.reward_kl": "evaluate_reward_kl",
    "suite.evaluation.reward_kl_evaluator": "RewardKLEvaluator", "suite.evaluation.win_rate": "win_rate",
    "suite.evaluation.win_rate_evaluator": "WinRateEvaluator", "suite.study.study": "Study SupervisedSettings",
    "suite.study.plan": "plan_study REFERENCE", "suite.study.profiles": "sentiment_study text_study",
    "suite.study.run": "run_study Options", "suite.analysis.records": "Results read_results",
    "suite.analysis.equal_kl": "compare frontiers", "suite.analysis.verdict": "verdict_of",
    "suite.report.frontier": "write_frontier", "suite.report.curves": "write_curves",
    "suite.maths.statistics": "Interval mean_interval clustered_mean_interval paired_difference holm wilson_interval",
    "suite.maths.best_of_n": "expected_best_of_n best_of_n_kl_bound", "suite.check.checks": "check_method",
}  # fmt: skip
_PLACES = {name: module for module, names in _HOMES.items() for name in names.split()}
__all__ = sorted([*_PLACES, "__version__"])

try:
    __version__ = version("rlhf-vs-dpo")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "unknown"


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'suite' has no attribute {name!r}; public names: {', '.join(__all__)}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return __all__
