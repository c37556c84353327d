"""Records → Markdown: the tables that go beside a figure."""

from __future__ import annotations

import pandas as pd

from suite.maths.statistics import Interval, mean_interval, paired_difference
from suite.runs.records import POINT, POLICY, REFERENCE, over_seeds, wide

BUDGETS = (1.0, 3.0, 6.0, 10.0)


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
            "method": row["method"] + (" (privileged)" if row["privileged"] else ""),
            "setting": row["setting"], "seed": int(row["seed"]), "step": int(row["step"]),
            "reward, P(positive)": with_interval(row, "reward"),
            "KL, nats": ("≤ " if row["privileged"] else "") + with_interval(row, "kl", 2),
            "KL sampled (k1), nats": with_interval(row, "kl_k1", 2), "nats/token": with_interval(row, "kl_per_token", 3),
            "n prompts": int(row["reward_n"]), "on frontier": "yes" if row["selected"] else "",
        }
        for _, row in table.iterrows()
    ]  # fmt: skip
    return pd.DataFrame(rows).to_markdown(index=False)


_METRICS = ("reward", "kl", "kl_k1", "kl_per_token")
_COLUMNS = [*POINT, "privileged", "selected", *(f"{m}{s}" for m in _METRICS for s in ("", "_low", "_high", "_n"))]


def budget_table(records: pd.DataFrame, numbers: pd.DataFrame, *, against: str = "DPO") -> str:
    """The policy of each method with the most validation reward within a KL budget, with its test reward.

    Choice on validation prompts, report on test prompts, both averaged over training seeds; differences from `against` are
    paired by prompt. Intervals hold for the trained policies at hand (no correction for multiple comparisons).
    """
    validation, test = (over_seeds(wide(records, split)) for split in ("validation", "test"))
    shown = numbers[numbers["split"] == "test"].groupby([*POLICY, "prompt_id"])[["reward", "kl_exact"]].mean()
    rows = []
    for budget in BUDGETS:
        best = {method: _best_within(validation, test, method, budget) for method in dict.fromkeys(test["method"])}
        del best[REFERENCE]
        for method, row in best.items():
            entry = {"KL budget, nats": budget, "method": method}
            if row is None:
                rows.append({**entry, "setting": "none within the budget", "reward, P(positive)": "–", "KL, nats": "–"})
                continue
            values = shown.loc[tuple(row[POLICY])]
            entry["method"] += " (privileged)" if row["privileged"] else ""
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


def _interval(interval: Interval, form: str) -> str:
    mean, low, high = (form.format(value) for value in interval[:3])
    return f"{mean} [{low}, {high}]"


def _best_within(validation: pd.DataFrame, test: pd.DataFrame, method: str, budget: float) -> pd.Series | None:
    """The test row of the method's best policy within the budget, as validation prompts see it."""
    source = validation if (validation["method"] == method).any() else test
    allowed = source[(source["method"] == method) & (source["kl"] <= budget)]
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
