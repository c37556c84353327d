"""What every registered method must keep, whoever wrote it: the checks of `suite check-method`, on the exact world."""

import json
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from suite.check.checks import check_method
from suite.check.trial import BRIEF, Trial
from suite.common.errors import UserError
from suite.common.registry import load, resolve, targets
from suite.policies.causal_lm import CausalLMPolicy
from suite.study.stages.inputs import snapshots


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in ("trl_dpo", "trl_kto"))) for n in sorted(targets("method"))]
)
def test_it_passes_every_check_on_the_exact_world(name):
    results = list(check_method(name))
    assert len(results) == 9
    assert not [f"{result.name}: {result.why}" for result in results if not result.ok]
    assert not [result.why for result in results if "nothing in it is random" in result.why or "starts again" in result.why]


METRICS = set(re.findall(r"`([^`]+)`", (Path(__file__).parents[2] / "docs" / "training_diagnostics.md").read_text()))


def documented(name):
    return name in METRICS or f"…/{name.partition('/')[2]}" in METRICS


@pytest.mark.parametrize("name", sorted(targets("method")))
def test_its_metrics_are_defined_and_its_policies_are_plain_hugging_face_models(name, tmp_path):
    trial = Trial(load(name, "method"), tmp_path)
    if not trial.is_trained:
        pytest.skip("nothing is trained")
    policy, run = trial.train("brief", BRIEF)
    run.finish()
    logged = {key for line in (run.directory / "metrics.jsonl").read_text().splitlines() for key in json.loads(line)}
    assert [key for key in logged - {"step"} if not documented(key)] == []
    assert "tokens" in logged
    folder = snapshots(run.directory)[-1]
    model = AutoModelForCausalLM.from_pretrained(folder)  # by transformers alone
    model.save_pretrained(tmp_path / "again")
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "again")
    again = CausalLMPolicy.load(tmp_path / "again")  # and back
    every = trial.world.completions[0]
    assert torch.allclose(again.log_prob(every), policy.log_prob(every), atol=1e-5)


def test_unknown_methods_get_a_hint():
    with pytest.raises(UserError, match="did you mean 'unlikelihood'"):
        resolve("unlikelyhood")
    with pytest.raises(UserError, match="cannot be loaded: AttributeError"):
        load("suite.methods.dpo:Nothing", "method")


def test_a_module_that_breaks_at_import_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "broken_at_import.py").write_text("raise RuntimeError('no licence')")
    (tmp_path / "no_python.py").write_text("def :")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"cannot be loaded: RuntimeError: no licence"):
        load("broken_at_import:KTO", "method")
    with pytest.raises(UserError, match="cannot be loaded: SyntaxError"):
        load("no_python:KTO", "method")
    with pytest.raises(UserError, match="has no 'name'"):
        load("os.path:join", "method")
