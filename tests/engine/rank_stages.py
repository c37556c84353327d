"""Stages that train on the exact world, for runs on several ranks."""

import json
import os
import signal
from dataclasses import replace

import torch

from suite.check.trial import Trial
from suite.common.errors import UserError
from suite.common.ranks import world_size
from suite.common.registry import load
from suite.policies.causal_lm import CausalLMPolicy
from suite.rewards.reward_model import RewardModel
from suite.training.loop import NonFiniteLoss
from suite.training.reward_modeling import fit_reward_model
from suite.training.settings import OptimConfig, RewardModelConfig

STEPS = 12
OPTIM = OptimConfig(lr=1e-4, batch_size=34, micro_batch_size=16, num_epochs=1, warmup_steps=3, num_snapshots=2)


def train(run):
    """A method, or the reward model, by name; if it is to die, then once, after a step, on the leader alone."""
    config = run.spec.config
    torch.manual_seed(world_size())  # nothing may depend on it
    trial = Trial(load("dpo" if config["trains"] == "reward_model" else config["trains"], "method"), run.directory)
    trial.reference.lora_rank = config.get("lora_rank", 0)
    trial.reference.shared()
    _check_shared(trial.reference)
    if config.get("dies_at") and not (run.root / "died").exists():
        run.log = _dying(run, config["dies_at"])
    if config["trains"] == "reward_model":
        fit_reward_model(trial.data(400).pairs, trial.reference, RewardModelConfig(optim=OPTIM), run)
        return
    settings = {"optim": OPTIM, "num_steps": STEPS, "samples_per_step": 30, "minibatch_size": 7}
    known = {name: value for name, value in settings.items() if name in trial.method.Config.__dataclass_fields__}
    data = trial.data(400)
    if config["trains"] == "ppo":  # by a model, which is sharded too
        data = replace(data, reward=RewardModel.load(run.root.parent / "reward"))
        _check_shared(data.reward)
    saved = CausalLMPolicy.load(run.root.parent / "policy")  # as another run left it
    _check_shared(saved)
    copied = saved.copy()
    _check_shared(copied)
    assert copied.end_ids == saved.end_ids == (*trial.reference.end_ids, 2)
    policy = trial.method().train(data, trial.reference, replace(trial.config(), **known), run)
    if config["trains"] == "dpo":  # a batch of fewer rows than ranks
        rows = trial.world.completions[0][:1]
        (policy.completion_log_probs(rows) ** 2).sum().backward()
        norm = torch.nn.utils.clip_grad_norm_(policy.model.parameters(), 1.0)
        found = [policy.log_prob(rows).item(), float(norm), policy.next_token_log_probs(rows).exp().sum().item()]
        (run.directory / "one.json").write_text(json.dumps(found))
        prompts = [replace(trial.world.prompts[k % 2], id=f"prompt {k}") for k in range(5)]  # more than ranks, and no multiple
        drawn = policy.sample(prompts, num_samples=2, max_new_tokens=3, seed=4)
        (run.directory / "drawn.json").write_text(json.dumps([[c.prompt.id, *c.ids] for some in drawn for c in some]))


def _check_shared(of):
    """Each rank has a part of the weights, where there are several."""
    parts = [getattr(weight, "to_local", lambda weight=weight: weight)().numel() for weight in of.model.parameters()]
    whole = sum(weight.numel() for weight in of.model.parameters())
    assert sum(parts) < 0.6 * whole if world_size() > 1 else sum(parts) == whole


def leave_models(folder):
    """A reward model for PPO, whose head is not 0, and a policy with more tokens that end a turn than its tokenizer has."""
    model = RewardModel.from_policy(Trial(load("ppo", "method"), folder).reference)
    torch.manual_seed(5)
    torch.nn.init.normal_(model.model.score.weight)
    model.save(folder / "reward")
    reference = Trial(load("ppo", "method"), folder).reference
    reference.model.generation_config.eos_token_id = [*reference.end_ids, 2]
    reference.tokenizer.add_special_tokens({"additional_special_tokens": [reference.tokenizer.convert_ids_to_tokens(2)]})
    reference.save(folder / "policy")


def _dying(run, step):
    log = run.log

    def log_or_die(at, metrics):
        log(at, metrics)
        if at == step and type(run).__name__ == "Run":
            (run.root / "died").write_text("")
            raise RuntimeError("by design")

    return log_or_die


def fail_on_one(run):
    """Something is wrong with one rank, or all, while they work together."""
    import torch.distributed as dist

    rank, how = dist.get_rank(), run.spec.config["how"]
    if how == "everywhere":
        raise NonFiniteLoss("step 3")
    if rank == 1 and how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if rank == 1:
        raise UserError("row 7: no prompt") if how == "input" else ValueError("seven")
    dist.barrier()
