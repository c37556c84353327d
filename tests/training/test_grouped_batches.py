"""All examples of a prompt in one batch, each completion through the model once: the loss and gradient of pair by pair."""

from itertools import combinations

import pytest
import torch
from conftest import completion, tiny_model

from suite.check.trial import QuietRun
from suite.common.registry import load
from suite.data.batching import by_prompt
from suite.data.preference_data import PreferencePair, Prompt, Ranking
from suite.engine.store import RunSpec
from suite.interfaces import TrainingData
from suite.maths.losses import dpo_loss
from suite.methods.dpo import DPO, DPOConfig
from suite.policies import causal_lm
from suite.policies.causal_lm import CausalLMPolicy
from suite.rewards import reward_model
from suite.training import loop
from suite.training.loop import batch_of, epoch_order
from suite.training.reward_modeling import fit_reward_model
from suite.training.settings import OptimConfig, RewardModelConfig, steps_per_epoch

METHODS = ("dpo", "cdpo", "robust_dpo", "ipo_sum", "ipo_mean", "hinge", "unlikelihood", "welleck", "preferred_ft", "pl_dpo")
ANSWERS = ((1, 2, 0), (5, 0), (4, 4, 3, 2, 1), (3, 1, 0))
PROMPTS = [Prompt(f"p{k}", tuple(1 + (k + j) % 5 for j in range(1 + k % 4)), " ".join("abcde"[: 1 + k])) for k in range(5)]


class Seen(BaseException):
    """Ends a training where the gradient is known."""


@pytest.fixture
def reference(tokenizer):
    return CausalLMPolicy(tiny_model().double(), tokenizer)


@pytest.fixture(scope="module")
def pairs():
    """All pairs of four completions of each prompt, and made-up log π_ref."""
    return [
        PreferencePair(completion(p, *a), completion(p, *b), 1.0, 0.0, -3.0 - len(a), -2.5 - len(b))
        for p in PROMPTS for a, b in combinations(ANSWERS, 2)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def rankings():
    return [Ranking(tuple(completion(p, *a) for a in ANSWERS), (4.0, 3.0, 2.0, 1.0), (-3.0, -2.0, -4.0, -2.5)) for p in PROMPTS]


def first_gradient(train, monkeypatch, *, once=True):
    """Loss, gradient and rows per forward pass of a training's first step; `once` or with every repeated row anew."""
    found, rows = {}, []

    def clip(parameters, norm):
        found["gradient"] = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
        raise Seen

    def counted(original):
        def distinct(given):
            first, which = original(given) if once else (list(range(len(given))), slice(None))
            rows.append(len(first))
            return first, which

        return distinct

    accumulate = loop._accumulate_gradients
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.utils, "clip_grad_norm_", clip)
        patch.setattr(loop, "_accumulate_gradients", lambda *a: found.update(accumulate(*a)) or found)
        for module in (causal_lm, reward_model):
            patch.setattr(module, "different", counted(module.different))
        with pytest.raises(Seen):
            train()
    return found, rows


def training(name, reference, pairs, rankings, folder, micro):
    optim = OptimConfig(batch_size=30, micro_batch_size=micro, num_snapshots=1)
    run = QuietRun(folder, RunSpec("train", {"seed": 0, "name": name, "micro": micro}))
    run.directory.mkdir(parents=True, exist_ok=True)
    if name == "reward model":
        return lambda: fit_reward_model(pairs, reference, RewardModelConfig(optim=optim), run)
    method = load(name, "method")
    data = TrainingData(pairs=pairs, rankings=rankings)
    return lambda: method().train(data, reference, method.Config(optim=optim), run)


@pytest.mark.parametrize("name", [*METHODS, "reward model"])
def test_loss_and_gradient_are_those_of_pair_by_pair(name, reference, pairs, rankings, tmp_path, monkeypatch):
    whole = training(name, reference, pairs, rankings, tmp_path, 1000)
    (anew, all_rows), (found, rows) = (first_gradient(whole, monkeypatch, once=once) for once in (False, True))
    parts, part_rows = first_gradient(training(name, reference, pairs, rankings, tmp_path, 9), monkeypatch)
    assert anew["gradient"].dtype == torch.float64
    assert anew["gradient"].norm() > 0.01
    for other in (found, parts):
        assert other["loss"] == pytest.approx(anew["loss"], rel=1e-12)
        assert (other["gradient"] - anew["gradient"]).norm() <= 1e-12 * anew["gradient"].norm()
    held_out = 1 if name == "reward model" else 0
    each = 3 if name == "preferred_ft" else len(ANSWERS)  # the last is never preferred
    assert rows == [each * (len(PROMPTS) - held_out)]
    assert sum(all_rows) == (20 if name == "pl_dpo" else 30 if name == "preferred_ft" else 2 * 6 * (len(PROMPTS) - held_out))
    assert sum(part_rows) == sum(rows)
    assert 4 <= max(part_rows) <= 9


def test_the_gradient_is_that_of_the_losses_by_hand(reference, pairs, tmp_path, monkeypatch):
    """One plain forward pass of transformers for each completion of each pair."""

    def log_prob(model, c):
        logits = model(torch.tensor([[*c.prompt.ids, *c.ids]])).logits[0].log_softmax(-1)
        return sum(logits[len(c.prompt.ids) + t - 1, token] for t, token in enumerate(c.ids))

    model = reference.copy().model
    for p in pairs:
        ours = [log_prob(model, p.chosen)[None], log_prob(model, p.rejected)[None]]
        theirs = [torch.tensor([p.reference_chosen_logps]), torch.tensor([p.reference_rejected_logps])]
        (dpo_loss(*ours, *theirs, beta=0.1).sum() / len(pairs)).backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters()])
    found, _ = first_gradient(training("dpo", reference, pairs, [], tmp_path, 8), monkeypatch)
    assert (found["gradient"] - expected).norm() <= 1e-12 * expected.norm()


def test_a_prompt_is_in_one_batch_and_the_number_of_steps_is_that_of_the_pairs(pairs):
    """30 pairs in batches of 12 are 3 steps: of 2, 2 and 1 prompts; with a batch below a prompt's pairs, one prompt each."""
    groups = by_prompt(pairs)
    assert [len(group.examples) for group in groups] == [6] * 5
    assert {group.sequences for group in groups} == {4}
    assert [group.length for group in groups] == [5 + len(p.ids) for p in PROMPTS]
    for size, sizes in ((12, [1, 2, 2]), (30, [5]), (4, [1] * 5)):
        steps = steps_per_epoch(len(pairs), len(groups), OptimConfig(batch_size=size))
        order = epoch_order(len(groups), 0, 0)
        batches = [batch_of(order, k, steps) for k in range(steps)]
        assert [i for batch in batches for i in batch] == order
        assert sorted(map(len, batches)) == sizes


def test_a_resumed_run_with_groups_micro_batches_and_adapters_is_the_uninterrupted_one(tokenizer, pairs, tmp_path, monkeypatch):
    reference = CausalLMPolicy(tiny_model(), tokenizer, lora_rank=2)
    optim = OptimConfig(lr=1e-2, batch_size=6, micro_batch_size=4, num_epochs=2, num_snapshots=1, warmup_steps=1)

    def train(name, kind=QuietRun):
        run = kind(tmp_path, RunSpec("train", {"seed": 0, "name": name}))
        run.directory.mkdir(parents=True, exist_ok=True)
        return DPO().train(TrainingData(pairs=pairs), reference, DPOConfig(optim=optim), run)

    from suite.check.trial import KilledLaterRun, Stopped

    whole = train("whole")
    with pytest.raises(Stopped):
        train("broken", KilledLaterRun)
    again = train("broken")
    every = [completion(p, *a) for p in PROMPTS for a in ANSWERS]
    assert torch.equal(again.log_prob(every), whole.log_prob(every))
    assert again.tokens_trained == whole.tokens_trained == 2 * sum(c.length for c in every)
    assert not torch.allclose(whole.log_prob(every), reference.log_prob(every), atol=1e-2)
