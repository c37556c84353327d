"""How fast this machine is with a study's own models: ten seconds of what its runs will do, so that the time left is known."""

import time
from collections.abc import Callable, Sequence

from suite.engine.store import RunSpec
from suite.engine.workload import Speed, assumed_speed

SECONDS = 0.5
"""A measurement is repeated with four times as much until it takes so long."""
MOST = 512
"""Sequences of the largest measurement."""


def assumed(specs: Sequence[RunSpec]) -> Speed:
    """By the size of the largest model alone."""
    from suite.engine.memory import shape_of

    shapes = [shape_of(model) for model in {spec.where["model"] for spec in specs if spec.work.models}]
    on_gpu = any(spec.where.get("device", "cpu").startswith("cuda") for spec in specs)
    return assumed_speed(max((shape.parameters for shape in shapes if shape), default=0), on_gpu=on_gpu)


def measured(spec: RunSpec) -> Speed:
    """Speed of this process with the model, gold reward, lengths and arithmetic of a run; assumed where that cannot be."""
    try:
        return _measured(spec)
    except Exception:  # the run itself will say what is wrong
        return assumed([spec])


def _measured(spec: RunSpec) -> Speed:
    import torch

    from suite.data.preference_data import Completion, Prompt
    from suite.policies.causal_lm import CausalLMPolicy
    from suite.rewards.open_reward import open_reward
    from suite.training.loop import autocast

    where, config, work = spec.where, spec.config, spec.work
    device, generator = where.get("device", "cpu"), torch.Generator().manual_seed(0)
    dtype = getattr(torch, config.get("sampler_dtype", "float32"))
    policy = CausalLMPolicy.load(where["model"], sampler_dtype=dtype, device=device, lora_rank=config.get("lora_rank", 0))
    learner = policy.copy()

    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(policy.model.get_input_embeddings().num_embeddings, (count,), generator=generator).tolist())

    prompts = [Prompt(str(k), ids(max(1, work.prompt)), "") for k in range(MOST)]
    completions = [Completion(prompt, ids(work.new), "", truncated=True) for prompt in prompts]
    texts = [policy.decode(completion.ids) for completion in completions]

    def draw(count: int) -> None:
        policy.sample(prompts[:count], num_samples=1, max_new_tokens=work.new, seed=0)

    def train(count: int) -> None:
        for at in range(0, count, max(1, work.batch)):
            with autocast(policy.device, "bfloat16" if work.bfloat16 else "float32"):
                loss = learner.completion_log_probs(completions[at : at + max(1, work.batch)][: count - at]).sum()
            loss.backward()
        float(loss.detach())

    drawn, scored = _rate(draw, work.length), _rate(lambda count: policy.log_prob(completions[:count]), work.length)
    trained, rewarded = _rate(train, work.length), scored
    if where.get("gold_reward"):
        reward = open_reward(where["gold_reward"], device=device)
        rewarded = _rate(lambda count: reward([""] * count, texts[:count]), work.length)
    return Speed(drawn, scored, trained, rewarded)


def _rate(do: Callable[[int], object], length: int) -> float:
    """Tokens a second of something that is done to so many sequences."""
    count = 8
    while True:
        began = time.perf_counter()
        do(count)
        took = time.perf_counter() - began
        if took >= SECONDS or count >= MOST:
            return count * length / took
        count *= 4


def mean(speeds: Sequence[Speed]) -> Speed:
    """Of workers that measured side by side."""
    return Speed(*(sum(getattr(s, name) for s in speeds) / len(speeds) for name in ("drawn", "scored", "trained", "rewarded")))
