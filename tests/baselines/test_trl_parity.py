"""The installed TRL on the same tiny model and the same pairs, in float32 to 1e-5: losses and gradients of every weight.

Where the two differ on purpose, a test states the difference. Skipped where TRL is not installed.
"""

import math

import pytest
import torch

pytest.importorskip("trl")

from suite.check.exact_world import ExactWorld, tiny_language_model, word_tokenizer
from suite.maths.losses import robust_dpo_loss
from suite.methods.dpo import DPO, DPOConfig, pair_log_probs
from suite.methods.dpo_variants import ConservativeDPO, HingeDPO, IPOMean, IPOMeanConfig, IPOSum, NoisyLabelsConfig, RobustDPO
from suite.policies.causal_lm import CausalLMPolicy

BETA = 0.3
WORLD = ExactWorld()


@pytest.fixture(scope="module")
def pairs():
    """Both sides end with EOS: TRL appends it to every completion."""
    with torch.no_grad():
        reference = WORLD.log_probs(tiny_language_model(0)).double()
    drawn = WORLD.sample_pairs(reference, WORLD.random_rewards(0), 4000, seed=0)
    finished = [p for p in drawn if not p.chosen.truncated and not p.rejected.truncated]
    assert len({len(p.chosen.ids) for p in finished[:12]}) > 1 < 12 <= len(finished)  # lengths differ, so that sum and mean do
    return finished[:12]


def trl_loss(pairs, tmp_path, loss_type, *, size=12, label_smoothing=0.0, beta=BETA):
    """Loss and gradients by TRL's own data preparation, collator, reference and loss."""
    import datasets
    from trl import DPOConfig as TrlConfig
    from trl import DPOTrainer

    config = TrlConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=size, beta=beta, loss_type=loss_type,
        label_smoothing=label_smoothing, use_cpu=True, bf16=False, report_to="none", gradient_checkpointing=False,
        disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    rows = [
        {"prompt": p.chosen.prompt.text, "chosen": f" {p.chosen.text}", "rejected": f" {p.rejected.text}"} for p in pairs[:size]
    ]
    policy = tiny_language_model(1)
    trainer = DPOTrainer(
        policy, tiny_language_model(0), args=config, train_dataset=datasets.Dataset.from_list(rows),
        processing_class=word_tokenizer(),
    )  # fmt: skip
    inputs = trainer.data_collator([trainer.train_dataset[i] for i in range(size)])
    assert inputs["completion_mask"].sum() == sum(len(p.chosen.ids) + len(p.rejected.ids) for p in pairs[:size])
    loss = trainer.compute_loss(trainer.model, inputs)
    loss.backward()
    return loss.item(), [p.grad for p in trainer.model.parameters()]


def our_loss(pairs, method, config, *, size=12):
    policy = CausalLMPolicy(tiny_language_model(1), word_tokenizer())
    logps = method().log_probs(policy, pairs[:size])
    loss = method().losses(logps, config).mean()
    loss.backward()
    return loss.item(), [p.grad for p in policy.model.parameters()]


def assert_same(ours, theirs):
    assert ours[0] == pytest.approx(theirs[0], abs=1e-5)
    assert max(g.abs().max() for g in ours[1]) > 1e-3
    for mine, other in zip(ours[1], theirs[1], strict=True):
        assert torch.allclose(mine, other, atol=1e-5)


def differ(ours, theirs):
    return abs(ours[0] - theirs[0]) > 1e-3


@pytest.mark.parametrize(
    ("loss_type", "method", "config", "label_smoothing"),
    [
        ("sigmoid", DPO, DPOConfig(beta=BETA), 0.0),
        ("hinge", HingeDPO, DPOConfig(beta=BETA), 0.0),
        ("ipo", IPOMean, IPOMeanConfig(beta=BETA), 0.0),
        ("robust", RobustDPO, NoisyLabelsConfig(beta=BETA, label_smoothing=0.1), 0.1),
    ],
)
def test_parity_with_trl(pairs, tmp_path, loss_type, method, config, label_smoothing):
    theirs = trl_loss(pairs, tmp_path, loss_type, label_smoothing=label_smoothing)
    assert_same(our_loss(pairs, method, config), theirs)


def test_parity_of_conservative_dpo_through_trls_aot(pairs, tmp_path):
    """TRL has no conservative DPO of its own any more, but its `aot` is that loss when the batch is a single pair."""
    theirs = trl_loss(pairs, tmp_path, "aot", size=1, label_smoothing=0.1)
    assert_same(our_loss(pairs, ConservativeDPO, NoisyLabelsConfig(beta=BETA, label_smoothing=0.1), size=1), theirs)


def test_difference_trls_sigmoid_ignores_label_smoothing(pairs, tmp_path):
    theirs = trl_loss(pairs, tmp_path, "sigmoid", label_smoothing=0.1)
    assert differ(our_loss(pairs, ConservativeDPO, NoisyLabelsConfig(beta=BETA, label_smoothing=0.1)), theirs)
    assert_same(our_loss(pairs, DPO, DPOConfig(beta=BETA)), theirs)


def test_difference_trls_ipo_is_by_mean_and_ours_by_sum_is_another_loss(pairs, tmp_path):
    assert differ(our_loss(pairs, IPOSum, DPOConfig(beta=BETA)), trl_loss(pairs, tmp_path, "ipo"))


def test_difference_trls_robust_loss_has_no_floor(pairs, tmp_path):
    """With margins beyond the guard theirs goes on falling; ours is theirs only without the guard (`robust_dpo_loss`)."""
    theirs = trl_loss(pairs, tmp_path, "robust", label_smoothing=0.1, beta=30.0)[0]
    policy = CausalLMPolicy(tiny_language_model(1), word_tokenizer())
    logps = pair_log_probs(policy, pairs)
    guarded = robust_dpo_loss(*logps, beta=30.0, label_smoothing=0.1).mean().item()
    published = robust_dpo_loss(*logps, beta=30.0, label_smoothing=0.1, max_margin=math.inf).mean().item()
    assert published == pytest.approx(theirs, rel=1e-5)
    assert guarded > theirs + 0.1


def test_difference_trls_sft_term_is_a_mean_over_tokens_and_our_nll_a_sum(pairs, tmp_path):
    theirs = trl_loss(pairs, tmp_path, "sft")[0]
    policy = CausalLMPolicy(tiny_language_model(1), word_tokenizer())
    chosen = [p.chosen for p in pairs]
    summed = -policy.log_prob(chosen)
    tokens = sum(len(c.ids) for c in chosen)
    assert theirs == pytest.approx(float(summed.sum()) / tokens, abs=1e-5)
    assert abs(theirs - float(summed.mean())) > 0.1


def test_trl_trains_in_the_exact_world(pairs, tmp_path):
    """The world is usable by TRL's trainers: a few steps lower the loss from log 2."""
    import datasets
    from trl import DPOConfig as TrlConfig
    from trl import DPOTrainer

    rows = [{"prompt": p.chosen.prompt.text, "chosen": f" {p.chosen.text}", "rejected": f" {p.rejected.text}"} for p in pairs]
    config = TrlConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=12, max_steps=10, learning_rate=1e-3, beta=1.0, use_cpu=True,
        bf16=False, report_to="none", logging_steps=1, save_strategy="no", disable_tqdm=True, gradient_checkpointing=False,
    )  # fmt: skip
    trainer = DPOTrainer(
        tiny_language_model(0), tiny_language_model(0), args=config, train_dataset=datasets.Dataset.from_list(rows),
        processing_class=word_tokenizer(),
    )  # fmt: skip
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert losses[0] == pytest.approx(0.6931, abs=1e-3)
    assert losses[-1] < 0.5
