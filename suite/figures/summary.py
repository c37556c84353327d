"""Records → Markdown: the tables that go beside a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from suite.comparisons import AREA
from suite.maths.frontier import P_FLOOR
from suite.maths.statistics import Interval, clustered_share_interval, mean_interval, paired_difference
from suite.records import ABOUT, POINT, POLICY, REFERENCE, over_seeds, wide


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
            "reward": with_interval(row, "reward"),
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


def matched_kl_table(comparison: pd.DataFrame, *, against: str = "DPO") -> str:
    """Who is better at equal KL (`suite.comparisons.compare`), for reading."""
    rows = []
    for _, row in comparison.iterrows():
        entry = {
            "KL, nats": row["kl_budget"], "method": row["method"], "reaches": f"{row['reach']:.1f}",
            "reward": _bounds(row, "reward", "low", "high"),
        }  # fmt: skip
        if comparison["seeds"].max() > 1 and row["kl_budget"] != AREA:
            entry["over training seeds (t)"] = _bounds(row, "reward", "seed_low", "seed_high") + f", K = {row['seeds']:.0f}"
        if "optimality_low" in row and pd.notna(row["optimality_low"]):
            low, high = row["optimality_low"], row["optimality_high"]
            entry["of the ideal gain"] = f"{high:.0%}" if f"{low:.0%}" == f"{high:.0%}" else f"{low:.0%}–{high:.0%}"
        if "p" in row and pd.notna(row["p"]):
            entry[f"minus {against}"] = _bounds(row, "difference", "difference_low", "difference_high", "+")
            entry["p (Holm)"] = ("≤ " if row["p"] <= P_FLOOR else "") + f"{row['p_holm']:.3f}"
            entry["verdict"] = row["verdict"]
            if row["verdict"] == "statistically tied" and pd.notna(row["detectable"]):
                entry["verdict"] += f" (a gap of {row['detectable']:.3f} would show)"
            if pd.notna(row["probability_of_improvement"]):
                entry["better on"] = f"{row['probability_of_improvement']:.0%} of prompts"
        rows.append(entry)
    return pd.DataFrame(rows).fillna("").to_markdown(index=False, disable_numparse=True)


def _bounds(row: pd.Series, value: str, low: str, high: str, sign: str = "") -> str:
    if pd.isna(row[low]):
        return f"{row[value]:{sign}.3f}, no interval"
    return f"{row[value]:{sign}.3f} [{row[low]:{sign}.3f}, {row[high]:{sign}.3f}]"


def health_page_table(health: pd.DataFrame) -> str:
    """Generation health, for reading: the reference, every setting's last policy and every policy with an alarm."""
    last = health.groupby(["method", "setting", "seed"], sort=False)["step"].transform("max") == health["step"]
    rows = [
        {
            "method": row["method"], "setting": row["setting"], "seed": row["seed"], "step": row["step"],
            "tokens": f"{row['tokens']:.1f}", "EOS": f"{row['eos_rate']:.0%}",
            **{f"distinct-{n}": _number(row[f"distinct_{n}"], ".2f") for n in (1, 2, 3)},
            "repeated 3-grams": f"{row['repetition']:.1%}", "identical": f"{row['identical']:.1%}",
            "perplexity under π_ref": f"{row['reference_perplexity']:.0f}", "alarms": row["alarms"],
        }
        for _, row in health[last | (health["alarms"] != "")].iterrows()
    ]  # fmt: skip
    return pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)


def compute_table(records: pd.DataFrame, numbers: pd.DataFrame, budgets: Sequence[float], *, against: str = "DPO") -> str:
    """The policy of each method with the most validation reward within a budget of compute, with its test reward.

    Choice on validation prompts, report on test prompts, both averaged over training seeds; differences from `against` are
    paired by prompt. Intervals hold for the trained policies at hand (no correction for multiple comparisons). Best-of-N is
    left out: it is paid for when it is asked.

    Args:
        records: See `suite.runs.collect.collect`.
        numbers: Its per-prompt numbers.
        budgets: Forward tokens.
        against: Whom the others are compared with.
    """
    validation, test = (over_seeds(wide(records, split)) for split in ("validation", "test"))
    test = test[test["kl_is_bound"] == 0]
    shown = numbers[numbers["split"] == "test"].groupby([*POLICY, "prompt_id"])[["reward", "kl_exact"]].mean()
    methods = [method for method in dict.fromkeys(test["method"]) if method != REFERENCE]
    rows = []
    for budget in budgets:
        best = {method: _best_within(validation, test, method, budget) for method in methods}
        for method, row in best.items():
            entry = {"compute, forward tokens": f"{budget / 1e6:.2g} M", "method": method}
            if row is None:
                rows.append({**entry, "setting": "none within the budget", "reward": "–", "KL, nats": "–"})
                continue
            values = shown.loc[tuple(row[POLICY])]
            entry["setting"] = f"{row['setting']} step {int(row['step'])}".strip()
            entry["reward"] = _interval(mean_interval(values["reward"]), "{:.3f}")
            entry["KL, nats"] = _interval(mean_interval(values["kl_exact"]), "{:.2f}")
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
    if "tokens_trained" not in records:
        return "Nothing was trained."
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


ON_POLICY = (
    ("β", "beta", ".3f"), ("reward it learns from", "reward", ".3f"), ("entropy, nats/token", "entropy", ".2f"),
    ("clipped", "clip_fraction", ".1%"), ("explained variance", "explained_variance", ".2f"),
)  # fmt: skip


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
            if "kl" not in late or late["kl"].isna().all():
                continue
            kl = late["kl"].mean()
            shown = {title: _number(late[name].mean() if name in late else None, form) for title, name, form in ON_POLICY}
            point = {"method": method, "target KL, nats": target, "seed": seed}
            rows.append({**point, "KL": f"{kl:.2f}", "off target": f"{kl / target - 1:+.0%}", **shown})
    return pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True) if rows else ""


def reward_model_table(held_out: pd.DataFrame) -> str:
    """Accuracy of the learned reward on held-out pairs, all and by thirds of the gold difference; 95 % over prompts.

    Args:
        held_out: See `suite.rewards.reward_model.ranked`.
    """
    known = held_out["gold_gap"].nunique() > 1  # people's pairs have none
    thirds = [held_out.iloc[index] for index in np.array_split(np.argsort(held_out["gold_gap"]), 3) if known and len(index)]
    parts = [("all", held_out), *((f"gold difference up to {part['gold_gap'].max():.2f}", part) for part in thirds)]
    rows = []
    for name, part in parts:
        interval = clustered_share_interval(part["right"], part["prompt_id"])
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


def _number(value: Any, form: str) -> str:
    return "–" if value is None or pd.isna(value) else f"{value:{form}}"


def _interval(interval: Interval, form: str) -> str:
    mean, low, high = (form.format(value) for value in interval[:3])
    return f"{mean} [{low}, {high}]" if interval.low == interval.low else f"{mean}, too few for an interval"


def _best_within(validation: pd.DataFrame, test: pd.DataFrame, method: str, budget: float) -> pd.Series | None:
    """The test row of the method's best policy within the budget of compute, as validation prompts see it."""
    allowed = validation[(validation["method"] == method) & (validation["compute"] <= budget)]
    if allowed.empty:
        return None
    chosen = allowed.loc[allowed["reward"].idxmax()]
    return test[(test[POLICY] == chosen[POLICY].to_numpy()).all(axis=1)].iloc[0]


def samples_page(samples: pd.DataFrame, degenerate: pd.DataFrame | None = None) -> str:
    """A few completions of every policy on the same prompts, and of the policies that degenerate most."""
    about = "First test prompts, first sample, last snapshot of each setting. **Bold**: the prompt."
    lines = ["# Sample completions", "", about, ""]
    for prompt_id, group in samples.groupby("prompt_id", sort=False):
        lines += [f"## {prompt_id}", "", *_sample_lines(group), ""]
    if degenerate is not None:
        lines += [
            "## Degenerate policies",
            "",
            "The paper's Table 3 shows unlikelihood's; here those with the most repetition.",
            "",
        ]
        for point, group in degenerate.groupby(POINT, sort=False):
            method, setting, seed, step = point
            lines += [f"### {method} {setting}, seed {seed}, step {step}".replace(" ,", ","), "", *_sample_lines(group), ""]
        if degenerate.empty:
            lines += ["None: no policy of this run has an alarm.", ""]
    return "\n".join(lines)


def _sample_lines(group: pd.DataFrame) -> list[str]:
    lines = []
    for _, row in group.iterrows():
        name = f"{row['method']} {row['setting']}".strip()
        prompt, text = (_one_line(row[column]) for column in ("prompt", "text"))
        lines.append(f"- *{name}* (reward {row['reward']:.3f}, KL {row['kl_exact']:.1f} nats): **{prompt}**{text}")
    return lines


def _one_line(text: str) -> str:
    joined = text.replace("\n", " ⏎ ")
    for mark in "\\`*_<>|[]":
        joined = joined.replace(mark, "\\" + mark)
    return joined
