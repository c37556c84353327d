import json

import pytest
import torch
from conftest import make_pairs

from suite.data.batching import by_prompt
from suite.engine.store import RunSpec, open_run
from suite.interfaces import TrainingData
from suite.maths.losses import dpo_loss, implicit_reward_metrics
from suite.methods.dpo import DPO, DPOConfig, pair_log_probs
from suite.training.loop import NonFiniteLoss, _accumulate_gradients, epoch_order, fit
from suite.training.settings import OptimConfig, snapshot_steps, warmup_of


def spec(**config):
    return RunSpec("train", {"seed": 0, **config})


def weights(policy):
    return torch.cat([p.detach().flatten() for p in policy.model.parameters()])


def train(root, policy, pairs, name, **optim):
    with open_run(root, spec(name=name)) as run:
        settings = {"lr": 1e-3, "batch_size": 4, "warmup_steps": 2, "num_snapshots": 2, **optim}
        trained = DPO().train(TrainingData(pairs=pairs), policy, DPOConfig(beta=0.5, optim=OptimConfig(**settings)), run)
        run.finish()
        return run, trained


def test_little_data_are_not_spent_on_warm_up():
    assert warmup_of(1000, OptimConfig(warmup_steps=150)) == 150
    assert warmup_of(1000, OptimConfig(warmup_steps=150, warmup_share=0.1)) == 100
    assert warmup_of(4, OptimConfig(warmup_steps=150, warmup_share=0.1)) == 1
    assert warmup_of(48, OptimConfig(warmup_steps=150)) == 48


def test_micro_batches_change_memory_not_the_gradient(gpt2, prompts):
    pairs = make_pairs(gpt2, prompts, 4)

    def loss_fn(policy, batch):
        logps = pair_log_probs(policy, batch)
        return dpo_loss(*logps, beta=0.5), implicit_reward_metrics(*logps)

    found = {}
    for size in (24, 1, 9):
        policy = gpt2.copy()
        metrics = _accumulate_gradients(policy, by_prompt(pairs), loss_fn, OptimConfig(micro_batch_size=size))
        found[size] = metrics, torch.cat([p.grad.flatten() for p in policy.model.parameters()])
    for size in (1, 9):
        for name in ("loss", "logps/chosen", "logps/rejected"):
            assert found[size][0][name] == pytest.approx(found[24][0][name], abs=1e-5)
        assert torch.allclose(found[size][1], found[24][1], atol=1e-5)
    assert found[24][1].norm() > 0.01


@pytest.mark.parametrize("bad", [lambda losses: losses.mean(), lambda losses: losses[:, None], lambda losses: losses[:-1]])
def test_a_loss_that_is_not_one_number_per_example_is_refused(tmp_path, gpt2, prompts, bad):
    def loss_fn(policy, batch):
        return bad(dpo_loss(*pair_log_probs(policy, batch), beta=0.5)), {}

    config = OptimConfig(batch_size=4, num_snapshots=1)
    with open_run(tmp_path, spec()) as run, pytest.raises(ValueError, match=r"the loss: expected one value per example"):
        fit(gpt2, make_pairs(gpt2, prompts, 4), loss_fn, config, run)


def test_resumed_run_equals_uninterrupted_run(tmp_path, gpt2, prompts, monkeypatch):
    pairs = make_pairs(gpt2, prompts, 6)
    whole_run, whole = train(tmp_path, gpt2, pairs, "whole", num_epochs=2)

    class Killed(Exception):
        pass

    import suite.engine.store as store

    monkeypatch.setattr(store, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    original = store.Run.log

    def log_and_die(self, step, metrics):
        original(self, step, metrics)
        if step == 4:
            raise Killed

    monkeypatch.setattr(store.Run, "log", log_and_die)
    with pytest.raises(Killed):
        train(tmp_path, gpt2, pairs, "broken", num_epochs=2)
    monkeypatch.setattr(store.Run, "log", original)
    run, resumed = train(tmp_path, gpt2, pairs, "broken", num_epochs=2)
    assert torch.equal(weights(resumed), weights(whole))
    assert resumed.tokens_trained == whole.tokens_trained
    rows = [[json.loads(line) for line in (r.directory / "metrics.jsonl").read_text().splitlines()] for r in (whole_run, run)]
    assert rows[0] == rows[1]
    assert [row["step"] for row in rows[1]] == list(range(1, 7))


def test_first_loss_is_log_2_and_margins_grow(tmp_path, gpt2, prompts):
    run, _ = train(tmp_path, gpt2, make_pairs(gpt2, prompts, 6), "run", num_epochs=10)
    rows = [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["loss"] == pytest.approx(0.693147, abs=1e-5)
    assert rows[0]["rewards/margins"] == pytest.approx(0, abs=1e-5)
    assert rows[-1]["loss"] < 0.6
    assert rows[-1]["rewards/margins"] > 0.1
    assert rows[0]["lr"] == pytest.approx(5e-4)  # warm-up: half of the way at the first of two steps
    assert rows[-1]["lr"] == pytest.approx(1e-3)


def test_non_finite_loss_names_the_step(tmp_path, gpt2, prompts):
    def explode(policy, pairs):
        losses = policy.completion_log_probs([p.chosen for p in pairs])
        return losses * float("nan"), {}

    with open_run(tmp_path, spec()) as run, pytest.raises(NonFiniteLoss, match="step 1"):
        fit(gpt2.copy(), make_pairs(gpt2, prompts, 2), explode, OptimConfig(num_snapshots=1), run)


def test_no_examples_are_refused(tmp_path, gpt2):
    with open_run(tmp_path, spec()) as run, pytest.raises(ValueError, match="no examples"):
        fit(gpt2, [], lambda *_: None, OptimConfig(), run)


def test_snapshots_are_geometric_and_end_with_the_last_step():
    assert snapshot_steps(32, 6) == [1, 2, 4, 8, 16, 32]
    assert snapshot_steps(72, 6) == [2, 4, 9, 18, 36, 72]
    assert snapshot_steps(98, 10) == [1, 2, 3, 5, 8, 13, 21, 35, 59, 98]  # halves would begin below 1
    assert snapshot_steps(7, 1) == [7]
    for total in range(4, 40):
        steps = snapshot_steps(total, 4)
        assert steps[-1] == total
        assert sorted(set(steps)) == steps
        assert steps[0] >= 1
    with pytest.raises(ValueError, match="too few"):
        snapshot_steps(3, 4)


def test_every_epoch_visits_every_example_in_another_order():
    first, second = epoch_order(20, 0, 0), epoch_order(20, 0, 1)
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
    assert first == epoch_order(20, 0, 0)
    assert first != epoch_order(20, 1, 0)
