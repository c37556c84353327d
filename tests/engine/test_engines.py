"""Engines by name: what each asks for before anything is made."""

import sys

import pytest

from suite.common.errors import UserError
from suite.engine.engines import Means
from suite.engine.store import RunSpec


def test_a_run_takes_its_share_of_a_gpu_and_of_memory(monkeypatch):
    pytest.importorskip("ray")
    import torch

    from suite.engine import ray_tasks

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: type("Card", (), {"total_memory": 80 * 2**30}))
    monkeypatch.setattr(ray_tasks, "host_memory_of", lambda spec: 3 * 2**30)
    on_gpu = RunSpec("policy", {}, title="big", where={"device": "cuda"})
    for needed, share in ((2**30, 1 / 16), (40 * 2**30, 0.5), (None, 1)):
        monkeypatch.setattr(ray_tasks, "memory_of", lambda spec, gpus, needed=needed: needed)
        assert ray_tasks.needs_of(on_gpu) == {"num_cpus": 1, "num_gpus": share, "memory": 3 * 2**30}
    monkeypatch.setattr(ray_tasks, "memory_of", lambda spec, gpus: 81 * 2**30)
    with pytest.raises(UserError, match=r"policy 'big' needs about 81.0 GiB and a GPU here has 80.0; try a smaller"):
        ray_tasks.needs_of(on_gpu)
    assert ray_tasks.needs_of(RunSpec("pairs", {}))["num_gpus"] == 0


@pytest.mark.parametrize("name", ["ray", "submitit"])
def test_an_engine_that_is_not_installed_is_one_line(tmp_path, monkeypatch, name):
    for module in ("ray", "submitit", "suite.engine.ray_tasks", "suite.engine.submitted_workers"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf'^--engine {name}: it is not installed; pip install "rlhf-vs-dpo\[{name}\]"$'):
        Means(engine=name).open(tmp_path / "runs", [RunSpec("stage", {})])
