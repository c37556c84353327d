"""The exact world in numbers: KL estimators, DPO's error by number of pairs, and what hard labels do.

Everything is compared with its enumerated value: six tokens, three steps, 156 completions per prompt. No data, no network.

Examples:
  python experiments/run_exact_world.py                     the committed tables and figure, a few minutes on one core
  python experiments/run_exact_world.py --replications 200 --seeds 2 --out results/exact_world_quick    a smaller one
"""

from __future__ import annotations

import copy
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from suite.errors import UserError, one_line_errors

RESULTS = Path(__file__).parent.parent / "results"
SAMPLES = 64
PAIRS = (4000, 16_000, 64_000, 256_000)
BETAS = (0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Arguments:
    """Command line of the exact-world tables."""

    replications: int = 1000
    """Of every KL estimate."""
    seeds: int = 5
    """Data sets per number of pairs."""
    out: Path = RESULTS / "exact_world"
    """Where tables and figure go."""


def kl_table(world: Any, replications: int) -> Any:
    """Bias and spread of the mean of 64 samples, per estimator, for policies near to and far from the reference."""
    import pandas as pd
    import torch
    from scipy import stats

    from suite.data.tasks.exact_world import exact_kl, tiny_language_model, word_tokenizer
    from suite.maths.kl import kl_terms, sequence_kl
    from suite.policies.causal_lm import CausalLMPolicy

    every = world.completions[0]
    reference = CausalLMPolicy(tiny_language_model(0), word_tokenizer())
    rows = []
    for name, seed, share in (("near", 1, 0.1), ("middle", 1, 0.5), ("far", 2, 1.0)):
        policy = CausalLMPolicy(tiny_language_model(0), word_tokenizer())
        with torch.no_grad():  # a share of the way, in weights, to another random model
            for ours, other in zip(policy.model.parameters(), tiny_language_model(seed).parameters(), strict=True):
                ours.lerp_(other, share)
            table, other = (world.log_probs(p.model)[0].double().log_softmax(-1) for p in (policy, reference))
            (of_policy, mask), (of_reference, _) = (p.completion_token_log_probs(every) for p in (policy, reference))
            whole = [p.next_token_log_probs(every).double() for p in (policy, reference)]
        tokens = of_policy.double(), of_reference.double()
        values = {e: sequence_kl(*tokens, mask, estimator=e) for e in ("k1", "k2", "k3")}
        values["k3 of summed log-probs"] = kl_terms(*(t.sum(-1) for t in tokens), estimator="k3")
        values["exact per step"] = sequence_kl(*whole, mask, estimator="exact")
        truth = float(exact_kl(table[None], other[None]))
        generator = torch.Generator().manual_seed(0)
        drawn = torch.multinomial(table.exp(), SAMPLES * replications, replacement=True, generator=generator)
        for estimator, value in values.items():
            means = value[drawn].view(replications, SAMPLES).mean(1)
            half = float(stats.t.ppf(0.975, replications - 1) * means.std() / replications**0.5)
            bias = float(means.mean()) - truth
            rows.append(
                {"policy": name, "kl": truth, "estimator": estimator, "bias": bias, "bias_low": bias - half,
                 "bias_high": bias + half, "sd": float(means.std()), "negative": float((value[drawn] < -1e-6).double().mean()),
                 "n": replications}
            )  # fmt: skip
    return pd.DataFrame(rows)


def error_table(world: Any, seeds: int) -> Any:
    """KL(π‖π*) of DPO trained to the end on n sampled Bradley-Terry pairs per prompt, β = 1."""
    import pandas as pd
    import torch
    from tqdm import tqdm

    from suite.data.tasks import exact_world as ew

    model = ew.tiny_language_model(0)
    with torch.no_grad():
        reference = world.log_probs(model)
    rewards = world.random_rewards(1).float()
    best, _ = ew.optimum(reference, rewards, beta=1.0)
    wins = ew.win_probabilities(reference, rewards)
    rows = []
    for pairs, seed in tqdm([(n, s) for n in PAIRS for s in range(seeds)], desc="sampled pairs"):
        found = ew.sample_wins(wins, pairs, seed=seed)
        policy = ew.fit_exactly(
            world, copy.deepcopy(model), lambda p, w=found: ew.mean_dpo_loss(p, reference, w, beta=1.0), steps=1000, lr=5e-3
        )
        one_sided = ((found.sum(1) == 0) | (found.sum(2) == 0)).sum()  # completions that never lost or never won
        distance = float(ew.exact_kl(policy, best.double()).mean())
        rows.append({"pairs": pairs, "seed": seed, "kl_to_optimum": distance, "one_sided": int(one_sided)})
    return pd.DataFrame(rows)


def labels_table(world: Any) -> Any:
    """KL(π‖π_ref) after more and more steps of expected DPO, with Bradley-Terry and with hard labels."""
    import pandas as pd
    import torch
    from tqdm import tqdm

    from suite.data.tasks import exact_world as ew

    rewards, rows = world.random_rewards(1).float(), []
    model = ew.tiny_language_model(0)
    with torch.no_grad():
        reference = world.log_probs(model)
    for beta, labels in tqdm([(b, k) for b in BETAS for k in ("bradley_terry", "hard")], desc="labels"):
        wins = ew.win_probabilities(reference, rewards, labels=labels)
        intended = float(ew.exact_kl(ew.optimum(reference, rewards, beta=beta)[0], reference).mean())
        trained = copy.deepcopy(model)
        optimizer = torch.optim.Adam(trained.parameters(), lr=1e-3)
        for step in range(1, 3001):
            optimizer.zero_grad()
            policy = world.log_probs(trained)
            ew.mean_dpo_loss(policy, reference, wins, beta=beta).backward()
            optimizer.step()
            if step in (10, 20, 50, 100, 200, 500, 1000, 2000, 3000):
                kl = float(ew.exact_kl(policy.detach(), reference).mean())
                rows.append({"labels": labels, "beta": beta, "step": step, "kl": kl, "kl_of_optimum": intended})
    return pd.DataFrame(rows)


@one_line_errors
def main() -> int:
    arguments = tyro.cli(Arguments, description=__doc__)
    if arguments.replications < 2 or arguments.seeds < 1:
        raise UserError("--replications: expected at least 2; --seeds: at least 1")
    import torch

    from suite.data.tasks.exact_world import ExactWorld
    from suite.figures.exact_world import draw_all, slopes
    from suite.files import check_writable, write_atomically

    check_writable(arguments.out)
    torch.set_num_threads(1)  # tiny models; and the same sums each time
    world = ExactWorld()
    estimators, labels = kl_table(world, arguments.replications), labels_table(world)
    errors = error_table(world, arguments.seeds)
    for name, table in (("kl_estimators", estimators), ("dpo_error_by_pairs", errors), ("labels", labels)):
        write_atomically(arguments.out / f"{name}.csv", lambda p, t=table: t.to_csv(p, index=False, float_format="%.6g"))
    draw_all(arguments.out)
    page = summary(arguments, estimators, errors, labels, slopes(errors))
    write_atomically(arguments.out / "summary.md", lambda path: path.write_text(page))
    print(page)
    return 0


def _mean_with_interval(values: Any) -> str:
    from scipy import stats

    if len(values) < 2:
        return f"{values.mean():.4f}"
    return f"{values.mean():.4f} ± {stats.t.ppf(0.975, len(values) - 1) * values.sem():.4f}"


def summary(arguments: Arguments, estimators: Any, errors: Any, labels: Any, slopes: list[float]) -> str:
    """The three tables as one Markdown page."""
    import pandas as pd

    from suite.runs.run_store import provenance

    made = provenance()
    bias = [f"{row.bias:+.4f} [{row.bias_low:+.4f}, {row.bias_high:+.4f}]" for row in estimators.itertuples()]
    shown = estimators.assign(bias=bias).drop(columns=["bias_low", "bias_high"])
    names = {"kl": "KL", "sd": "sd of the mean", "negative": "share of samples < 0", "n": "replications"}
    groups = errors.groupby("pairs")
    by_pairs = groups["kl_to_optimum"].apply(_mean_with_interval).reset_index()
    by_pairs["never won or never lost, of 312"] = groups["one_sided"].mean().round(1).to_numpy()
    last = labels[labels["step"] == labels["step"].max()]
    command = " ".join(["python experiments/run_exact_world.py", *sys.argv[1:]])
    return f"""# The exact world

`{command}`, {made["machine"]}, {made["packages"]}

## KL estimators

Means of {SAMPLES} samples of one prompt, {arguments.replications} replications, against enumeration, in nats; 95 % intervals of
the bias. k1, k2 and k3 are per token, summed over the completion. k2 is biased; the exact per-step sum is unbiased and never
negative. Which one spreads least depends on the policies: `tests/test_kl_exact_world.py` has two between which k1 does not vary
at all and the exact sum does.

{shown.rename(columns=names).to_markdown(index=False, floatfmt=".4f")}

## DPO from sampled pairs

KL(π‖π*) in nats, β = 1, mean over prompts; n = {arguments.seeds} data sets for each number of pairs per prompt, 95 % t
intervals. Slope on log axes from 16,000 pairs up: {_mean_with_interval(pd.Series(slopes))}. Where a completion has
never won or never lost, the likelihood has no finite maximum, and the error depends on how long one trains.

{by_pairs.to_markdown(index=False)}

## What hard labels do

KL(π‖π_ref) in nats after the last step of expected DPO (no sampling noise), beside that of π*. With Bradley-Terry labels it
ends there; with hard labels it goes on for as long as one trains, and β no longer says where.

{last.to_markdown(index=False, floatfmt=".4g")}
"""


if __name__ == "__main__":
    sys.exit(main())
