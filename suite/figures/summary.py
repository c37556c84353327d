"""Records → Markdown: the tables that go beside a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from suite.maths.statistics import Interval, clustered_mean_interval, mean_interval, paired_difference
from suite.runs.records import ABOUT, POINT, POLICY, REFERENCE, over_seeds, wide

BUDGETS = (1.0, 3.0, 6.0, 10.0)
BUDGET_COLUMN = {"kl": "KL budget, nats", "compute": "compute budget, forward tokens"}


def with_interval(row: pd.Series, metric: str, digits: int = 3) -> str:
    """`0.812 [0.790, 0.833]`, or the bare number where there is no interval."""
    value, low, high = row[metric], row[f"{metric}_low"], row[f"{metric}_high"]
    if pd.isna(value):
        return "–"
    return f"{value:.{digits}f}" if low == high else f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def points_table(records: pd.DataFrame) -> str:
    """Every evaluated policy on test prompts."""
    table = wide(records, "test").reindex(columns=_COLUMNS, fill_value=float("nan"))
    rows = [
        {
            "method": _name(row), "setting": row["setting"], "seed": int(row["seed"]), "step": int(row["step"]),
            "reward, P(positive)": with_interval(row, "reward"),
            "KL, nats": ("≤ " if row["kl_is_bound"] else "") + with_interval(row, "kl", 2),
            "KL sampled (k1), nats": with_interval(row, "kl_k1", 2), "nats/token": with_interval(row, "kl_per_token", 3),
            "n prompts": int(row["reward_n"]), "on frontier": "yes" if row["selected"] else "",
        }
        for _, row in table.iterrows()
    ]  # fmt: skip
    return pd.DataFrame(rows).to_markdown(index=False)


_METRICS = ("reward", "kl", "kl_k1", "kl_per_token")
_COLUMNS = [*POINT, *ABOUT, "selected", *(f"{m}{s}" for m in _METRICS for s in ("", "_low", "_high", "_n"))]


def _name(row: pd.Series) -> str:
    return row["method"] + (" (privileged)" if row["privileged"] else "")


def budget_table(
    records: pd.DataFrame, numbers: pd.DataFrame, *, of: str = "kl", budgets: Sequence[float] = BUDGETS, against: str = "DPO"
) -> str:
    """The policy of each method with the most validation reward within a budget of KL or of compute, with its test reward.

    Choice on validation prompts, report on test prompts, both averaged over training seeds; differences from `against` are
    paired by prompt. Intervals hold for the trained policies at hand (no correction for multiple comparisons).

    Args:
        records: See `suite.runs.records.collect`.
        numbers: Its per-prompt numbers.
        of: "kl" [nats] or "compute" [forward tokens].
        budgets: In those units.
        against: Whom the others are compared with.
    """
    validation, test = (over_seeds(wide(records, split)) for split in ("validation", "test"))
    shown = numbers[numbers["split"] == "test"].groupby([*POLICY, "prompt_id"])[["reward", "kl_exact"]].mean()
    rows = []
    for budget in budgets:
        best = {method: _best_within(validation, test, method, of, budget) for method in dict.fromkeys(test["method"])}
        del best[REFERENCE]
        if of == "compute":  # Best-of-N is paid for when it is asked
            best = {method: row for method, row in best.items() if row is None or not row["kl_is_bound"]}
        for method, row in best.items():
            entry = {BUDGET_COLUMN[of]: budget if of == "kl" else f"{budget / 1e6:.2g} M", "method": method}
            if row is None:
                rows.append({**entry, "setting": "none within the budget", "reward, P(positive)": "–", "KL, nats": "–"})
                continue
            values = shown.loc[tuple(row[POLICY])]
            entry["method"] = _name(row)
            entry["setting"] = f"{row['setting']} step {int(row['step'])}".strip() if row["step"] else row["setting"]
            entry["reward, P(positive)"] = _interval(mean_interval(values["reward"]), "{:.3f}")
            bound = values["kl_exact"].isna().any()
            entry["KL, nats"] = f"≤ {row['kl']:.2f}" if bound else _interval(mean_interval(values["kl_exact"]), "{:.2f}")
            if (other := best.get(against)) is not None and method != against:
                theirs = shown.loc[tuple(other[POLICY])]["reward"].reindex(values.index)
                difference = paired_difference(values["reward"], theirs)
                tied = " statistically tied" if difference.low <= 0 <= difference.high else ""
                entry[f"minus {against}, same prompts"] = _interval(difference, "{:+.3f}") + tied
            rows.append(entry)
    return pd.DataFrame(rows).fillna("").to_markdown(index=False)


def compute_budgets(records: pd.DataFrame, *, against: str = "DPO") -> list[float]:
    """A half of, once, twice and four times what one whole run of `against` (else of the costliest method) takes."""
    table = wide(records, "test")
    costs = table[table["method"] == against]["compute"] if (table["method"] == against).any() else table["compute"]
    return [float(f"{factor * costs.max():.2g}") for factor in (0.5, 1.0, 2.0, 4.0)]


def cost_table(records: pd.DataFrame) -> str:
    """What one whole run took, mean over the runs of each method; of tokens, with what the method needs beforehand."""
    runs = records[records["step"] > 0].sort_values("step").groupby(["method", "setting", "seed"], sort=False).last()
    means = runs.groupby("method", sort=False)
    table = pd.DataFrame(
        {
            "runs": means.size(),
            **{f"{kind}, thousand tokens": means[f"tokens_{kind}"].mean() / 1e3 for kind in ("sampled", "scored", "trained")},
            "compute, million forward tokens": means["compute"].mean() / 1e6,
            "seconds of training": means["run_seconds"].mean(),
            "peak memory of the worker, MiB": means["worker_peak_memory_mib"].max(),
        }
    )
    return table.reset_index().to_markdown(index=False, floatfmt=",.4g")


def controller_table(training: pd.DataFrame, targets: Mapping[tuple[str, str], float]) -> str:
    """Where on-policy runs settled: means over the last quarter of their steps.

    Args:
        training: See `suite.runs.costs.training_metrics`.
        targets: (method, setting) → target KL in nats.
    """
    rows = []
    for (method, setting, seed), steps in training.groupby(["method", "setting", "seed"], sort=False):
        if (method, setting) in targets:
            late, target = steps.tail(max(1, len(steps) // 4)), targets[method, setting]
            kl = late["kl"].mean()
            rows.append(
                {"method": method, "target KL, nats": target, "seed": seed, "KL": f"{kl:.2f}",
                 "off target": f"{kl / target - 1:+.0%}", "β": f"{late['beta'].mean():.3f}",
                 "reward it learns from": f"{late['reward'].mean():.3f}",
                 "entropy, nats/token": f"{late['entropy'].mean():.2f}", "clipped": f"{late['clip_fraction'].mean():.1%}",
                 "explained variance": f"{late['explained_variance'].mean():.2f}"}
            )  # fmt: skip
    return pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True) if rows else ""


def reward_model_table(held_out: pd.DataFrame) -> str:
    """Accuracy of the learned reward on held-out pairs, all and by thirds of the gold difference; 95 % over prompts.

    Args:
        held_out: See `suite.rewards.reward_model.ranked`.
    """
    thirds = [held_out.iloc[index] for index in np.array_split(np.argsort(held_out["gold_gap"]), 3) if len(index)]
    parts = [("all", held_out), *((f"gold difference up to {part['gold_gap'].max():.2f}", part) for part in thirds)]
    rows = []
    for name, part in parts:
        interval = clustered_mean_interval(part["right"], part["prompt_id"])
        rows.append(
            {"held-out pairs": name, "accuracy": _interval(interval, "{:.3f}"), "n pairs": len(part), "n prompts": interval.n}
        )  # fmt: skip
    return pd.DataFrame(rows).to_markdown(index=False)


def calibration(held_out: pd.DataFrame) -> tuple[pd.DataFrame, float]:
    """Per fifth of the predicted probability σ(|d|) of the likelier side: its mean, how often that side was chosen, n.

    Returns:
        The table and the calibration error, the mean absolute difference weighted by n.
    """
    confidence = 1 / (1 + np.exp(-held_out["difference"].abs()))
    fifths = [index for index in np.array_split(np.argsort(confidence), 5) if len(index)]
    table = pd.DataFrame(
        [{"predicted": confidence.iloc[i].mean(), "observed": held_out["right"].iloc[i].mean(), "n": len(i)} for i in fifths]
    )
    return table, float(np.average((table["predicted"] - table["observed"]).abs(), weights=table["n"]))


def with_reward_intervals(test: pd.DataFrame, numbers: pd.DataFrame) -> pd.DataFrame:
    """`reward_low`, `reward_high` of each row of `over_seeds`: 95 % over test prompts of the mean over seeds."""
    per_prompt = numbers[numbers["split"] == "test"].groupby([*POLICY, "prompt_id"])["reward"].mean()
    intervals = [mean_interval(per_prompt.loc[tuple(row[POLICY])]) for _, row in test.iterrows()]
    return test.assign(reward_low=[i.low for i in intervals], reward_high=[i.high for i in intervals])


def _interval(interval: Interval, form: str) -> str:
    mean, low, high = (form.format(value) for value in interval[:3])
    return f"{mean} [{low}, {high}]" if interval.low == interval.low else f"{mean}, too few for an interval"


def _best_within(validation: pd.DataFrame, test: pd.DataFrame, method: str, of: str, budget: float) -> pd.Series | None:
    """The test row of the method's best policy within the budget, as validation prompts see it."""
    source = validation if (validation["method"] == method).any() else test
    allowed = source[(source["method"] == method) & (source[of] <= budget)]
    if allowed.empty:
        return None
    chosen = allowed.loc[allowed["reward"].idxmax()]
    return test[(test[POLICY] == chosen[POLICY].to_numpy()).all(axis=1)].iloc[0]


def samples_page(samples: pd.DataFrame) -> str:
    """A few completions of every policy on the same prompts."""
    lines = [
        "# Sample completions",
        "",
        "First test prompts, first sample, last snapshot of each setting. **Bold**: the prompt.",
        "",
    ]
    for prompt_id, group in samples.groupby("prompt_id", sort=False):
        lines += [f"## {prompt_id}", ""]
        for _, row in group.iterrows():
            name = f"{row['method']} {row['setting']}".strip()
            prompt, text = (_one_line(row[column]) for column in ("prompt", "text"))
            lines.append(f"- *{name}* (reward {row['reward']:.3f}, KL {row['kl_exact']:.1f} nats): **{prompt}**{text}")
        lines.append("")
    return "\n".join(lines)


def _one_line(text: str) -> str:
    joined = text.replace("\n", " ⏎ ")
    for mark in "\\`*_<>|[]":
        joined = joined.replace(mark, "\\" + mark)
    return joined
