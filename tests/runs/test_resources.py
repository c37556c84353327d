"""Memory is estimated from the configuration, and what cannot fit is refused with advice before anything runs."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))
import answers
import text_profiles

from suite.errors import UserError
from suite.policies.causal_lm import CausalLMPolicy
from suite.runs import resources
from suite.runs.answer_study import AnswerRuns
from suite.runs.resources import GIB, host_memory_of, memory_of, refuse_what_cannot_fit, shape_of
from suite.runs.study import ASSETS
from suite.runs.sweep import closure

MODEL = str(ASSETS / "imdb-gpt2")


@pytest.fixture(scope="module")
def study():
    return text_profiles.study_of("tldr_summarization", answers.Common())


def train_spec(study):
    return AnswerRuns(study).train("dpo", {"beta": 0.1}, 0).run


def test_the_shape_is_the_models():
    policy = CausalLMPolicy.load(MODEL, lora_rank=8)
    shape = shape_of(MODEL)
    assert shape.parameters == sum(p.numel() for p in policy.model.parameters())
    adapters = sum(p.numel() for p in policy.copy().model.parameters() if p.requires_grad)
    assert 8 * shape.in_linear == adapters
    assert (shape.layers, shape.hidden, shape.vocabulary) == (4, 256, 8192)
    assert shape_of("/nowhere") is None


def test_what_saves_memory_is_known_to(study):
    def needed(**changes):
        return memory_of(train_spec(replace(study, **changes)))

    whole = needed(optim=replace(study.optim, micro_batch_size=64, batch_size=64))
    assert needed() < whole
    assert needed(lora_rank=8) < needed()
    assert memory_of(AnswerRuns(study).test_prompts()) is None
    for spec in closure([train_spec(study)]):
        assert memory_of(spec) is None or 0.3 * GIB < memory_of(spec) < 4 * GIB


def test_with_a_gpu_the_host_has_a_limit_of_its_own(study, monkeypatch):
    spec = train_spec(study)
    assert host_memory_of(spec) == memory_of(spec)
    on_gpu = train_spec(replace(study, device="cuda"))
    assert 4 * shape_of(MODEL).parameters < host_memory_of(on_gpu) < 4 * GIB
    free = {"cpu": 0.5 * GIB, "cuda": 100 * GIB}
    monkeypatch.setattr(resources, "available_memory", free.__getitem__)
    with pytest.raises(UserError, match=r"of cpu memory are free. Try a smaller model"):
        refuse_what_cannot_fit([on_gpu], workers=1)
    free |= {"cpu": 100 * GIB, "cuda": 0.1 * GIB}
    with pytest.raises(UserError, match=r"of cuda memory are free. Try a smaller micro-batch"):
        refuse_what_cannot_fit([on_gpu], workers=1)


def test_what_cannot_fit_is_refused_with_advice(study, monkeypatch):
    spec = train_spec(study)
    monkeypatch.setattr(resources, "available_memory", lambda device: 0.5 * GIB)
    with pytest.raises(UserError, match=r"train 'DPO .*needs about .* GiB .*micro-batch.*--lora-rank.*--workers 1"):
        refuse_what_cannot_fit([spec], workers=2)
    with pytest.raises(UserError) as refused:
        refuse_what_cannot_fit([train_spec(replace(study, lora_rank=4))], workers=1)
    assert "--lora-rank" not in str(refused.value)
    monkeypatch.setattr(resources, "available_memory", lambda device: 100 * GIB)
    refuse_what_cannot_fit([spec], workers=2)
