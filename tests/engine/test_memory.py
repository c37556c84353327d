"""Memory is estimated from the configuration, and what cannot fit is refused with advice before anything runs."""

import re
from dataclasses import replace

import pytest

from suite.common.errors import UserError
from suite.engine import memory
from suite.engine.engines import Means
from suite.engine.making import closure
from suite.engine.memory import GIB, disk_of, host_memory_of, memory_of, shape_of, what_cannot_fit, what_disk_lacks
from suite.engine.sweep import run_all
from suite.policies.causal_lm import CausalLMPolicy
from suite.study.profiles import ASSETS, text_study
from suite.study.specs import Specs

MODEL = str(ASSETS / "imdb-gpt2")


@pytest.fixture(scope="module")
def study():
    return text_study("tldr_summarization", "smoke")


def train_spec(study):
    return Specs(study).policy("dpo", {"beta": 0.1}, 0)[1]


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
    assert memory_of(Specs(study).held_out(["test"])["test"]) is None
    for spec in closure([train_spec(study)]):
        assert memory_of(spec) is None or 0.3 * GIB < memory_of(spec) < 4 * GIB


def test_several_gpus_share_every_model(study):
    spec = train_spec(replace(study, device="cuda", optim=replace(study.optim, micro_batch_size=64, batch_size=64)))
    one, four, many = (memory_of(spec, gpus) for gpus in (1, 4, 1000))
    size = 4 * shape_of(MODEL).parameters
    assert one > four > many > size  # the copy, before it is sharded
    assert memory_of(replace(spec, work=replace(spec.work, models=3)), 1000) - many < 0.01 * size
    assert memory_of(replace(spec, work=replace(spec.work, drawn=64)), 4) > four  # its weights are whole while it samples
    large = replace(spec, work=replace(spec.work, batch=1, state=400))  # nothing but the optimizer's state counts
    saved = (memory_of(large, 1) - memory_of(large, 4)) / (400 * shape_of(MODEL).parameters * memory.FRAGMENTS["cuda"])
    assert 0.75 <= saved < 0.8
    here = train_spec(study)  # a rehearsal: all ranks in one memory
    assert what_cannot_fit([here], workers=1, gpus=10**6)
    assert what_cannot_fit([here], workers=1) is None


def test_with_a_gpu_the_host_has_a_limit_of_its_own(study, monkeypatch):
    spec = train_spec(study)
    assert host_memory_of(spec) == memory_of(spec)
    on_gpu = train_spec(replace(study, device="cuda"))
    assert 4 * shape_of(MODEL).parameters < host_memory_of(on_gpu) < 4 * GIB
    free = {"cpu": 0.5 * GIB, "cuda": 100 * GIB}
    monkeypatch.setattr(memory, "available_memory", free.__getitem__)
    assert "of cpu memory are free. Try a smaller model" in what_cannot_fit([on_gpu], workers=1)
    free |= {"cpu": 100 * GIB, "cuda": 0.1 * GIB}
    assert "of cuda memory are free. Try a smaller micro-batch" in what_cannot_fit([on_gpu], workers=1)


def test_what_cannot_fit_is_refused_with_advice(study, monkeypatch, tmp_path):
    spec = train_spec(study)
    monkeypatch.setattr(memory, "available_memory", lambda device: 0.5 * GIB)
    advice = r"policy 'DPO .*needs about .* GiB .*micro-batch.*--lora-rank.*--workers 1"
    assert re.match(advice, what_cannot_fit([spec], workers=2))
    with pytest.raises(UserError, match="needs about"):
        run_all(tmp_path, [spec], Means(2))
    assert not list(tmp_path.iterdir())
    assert "--lora-rank" not in what_cannot_fit([train_spec(replace(study, lora_rank=4))], workers=1)
    monkeypatch.setattr(memory, "available_memory", lambda device: 100 * GIB)
    assert what_cannot_fit([spec], workers=2) is None


def test_a_disk_too_small_for_the_policies_is_known_before_they_are_trained(study, monkeypatch, tmp_path):
    study = replace(study, optim=replace(study.optim, num_snapshots=3))
    spec = train_spec(study)
    CausalLMPolicy.load(MODEL).save(tmp_path / "saved")
    size = (tmp_path / "saved" / "model.safetensors").stat().st_size
    assert disk_of(spec) == pytest.approx(3 * size, rel=0.01)
    assert disk_of(train_spec(replace(study, lora_rank=4))) < 0.1 * size
    assert disk_of(spec.inputs["prompts"]) is None
    runs = tmp_path / "new" / "runs"
    assert what_disk_lacks([spec], runs) is None
    monkeypatch.setattr(memory.shutil, "disk_usage", lambda place: memory.shutil._ntuple_diskusage(1, 1, size))
    with pytest.raises(UserError, match="the policies that are kept need about"):
        run_all(runs, [spec], Means())
    assert not runs.exists()
