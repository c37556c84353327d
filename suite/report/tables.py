"""Tables of a frontier study for reading: results → Markdown."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from suite.analysis.equal_kl import SHARED
from suite.analysis.records import ABOUT, POINT, wide
from suite.data.ratings import RATINGS
from suite.maths.statistics import clustered_share_interval
from suite.report.page import interval, plain, table

METRICS = ("reward", "kl", "kl_k1", "kl_per_token")


def with_interval(row: Mapping[Any, Any] | pd.Series, metric: str, form: str = ".3f") -> str:
    """A metric of a row of `suite.analysis.records.wide`, a dash where it is not known."""
    value, low, high = (row.get(f"{metric}{end}", float("nan")) for end in ("", "_low", "_high"))
    return interval(value, low, high, form)


def points_table(records: pd.DataFrame) -> str:
    """Every evaluated policy on test prompts."""
    columns = [*POINT, *ABOUT, "selected", *(f"{m}{s}" for m in METRICS for s in ("", "_low", "_high", "_n"))]
    shown = wide(records, "test").reindex(columns=columns, fill_value=float("nan"))
    shown = shown.drop_duplicates(["method", "setting", "step", "reward", "kl"])  # of a pool, the same for every seed
    return table([
        {
            "method": row["method"] + (" (privileged)" if row["privileged"] else ""), "setting": row["setting"],
            "seed": int(row["seed"]), "step": int(row["step"]), "reward": with_interval(row, "reward"),
            "KL, nats": ("≤ " if row["kl_is_bound"] else "") + with_interval(row, "kl", ".2f"),
            "KL sampled (k1), nats": with_interval(row, "kl_k1", ".2f"), "nats/token": with_interval(row, "kl_per_token"),
            "n prompts": int(row["reward_n"]), "on frontier": "yes" if row["selected"] else "",
        }
        for _, row in shown.iterrows()
    ])  # fmt: skip


def matched_kl_table(comparison: pd.DataFrame, *, against: str = "DPO") -> str:
    """Who is better at equal KL (`suite.analysis.equal_kl.compare`)."""
    rows = []
    for row in comparison.to_dict("records"):
        shared = row["kl_budget"] == SHARED
        if shared and row["method"] == against:
            continue
        budget = f"shared, {row['from']:.1f}–{row['to']:.1f}" if shared and row["from"] < row["to"] else row["kl_budget"]
        reach = "no policies" if row["nearest"] > row["reach"] else f"{row['nearest']:.1f} to {row['reach']:.1f}"
        entry = {
            "KL, nats": budget, "method": row["method"], "policies, nats": reach,
            "reward": interval(row["reward"], row["low"], row["high"]),
        }  # fmt: skip
        if pd.notna(row.get("optimality_low")):
            low, high = row["optimality_low"], row["optimality_high"]
            entry["of the ideal gain"] = f"{high:.0%}" if f"{low:.0%}" == f"{high:.0%}" else f"{low:.0%}–{high:.0%}"
        if pd.notna(row.get("p")):
            entry |= {
                f"minus {against}, simultaneous": with_interval(row, "difference", "+.3f"), "p (max-T)": f"{row['p']:.3f}",
            }  # fmt: skip
            entry["verdict"] = row["verdict"]
            if row["verdict"] == "not resolved" and pd.notna(row["detectable"]):
                entry["verdict"] += f" (a gap of {row['detectable']:.3f} would show)"
            entry["better on"] = f"{row['probability_of_improvement']:.0%} of prompts"
        elif row["verdict"]:
            entry["verdict"] = row["verdict"]
        rows.append(entry)
    return table(rows)


def convergence_table(moved: pd.DataFrame) -> str:
    """What the second half of training has changed (`suite.analysis.convergence.last_doubling`)."""
    rows = []
    for method, part in moved.groupby("method", sort=False):
        first = part.iloc[0]
        row = {"method": method, "reaches at half, nats": f"{first['reach_half']:.1f}", "at the end": f"{first['reach']:.1f}"}
        for cell in part.to_dict("records"):
            row[f"change at {cell['kl_budget']:g} nats"] = with_interval(
                {"change": cell["difference"], "change_low": cell["low"], "change_high": cell["high"]}, "change", "+.3f"
            )
        rows.append(row)
    return table(rows)


def compute_table(within: pd.DataFrame, *, against: str = "DPO") -> str:
    """Who is better within a budget of compute (`suite.analysis.equal_compute.compare_within`)."""
    rows = []
    for row in within.to_dict("records"):
        entry = {"compute, forward tokens": f"{row['budget'] / 1e6:.2g} M", "method": row["method"]}
        if pd.isna(row.get("reward")):
            rows.append({**entry, "policy": "none within the budget", "reward": "–", "KL, nats": "–"})
            continue
        entry |= {"policy": row["policy"], "reward": with_interval(row, "reward"), "KL, nats": with_interval(row, "kl", ".2f")}
        if pd.notna(row.get("difference")):
            gap = with_interval(row, "difference", "+.3f")
            entry |= {f"minus {against}, simultaneous": gap, "verdict": row["verdict"]}
        rows.append(entry)
    return table(rows)


def health_page_table(health: pd.DataFrame, *, places: bool = False) -> str:
    """Generation health: the reference, every setting's last policy and every policy with an alarm; or all `places`."""
    last = health.groupby(["method", "setting", "seed"], sort=False)["step"].transform("max") == health["step"]
    return table([
        {
            "method": row["method"], "setting": row["setting"],
            **({"panel": row["panel"], "x": f"{row['x']:g}", "T": f"{row['temperature']:g}"} if places else
               {"seed": row["seed"], "step": row["step"]}),
            "tokens": f"{row['tokens']:.1f}", "EOS": f"{row['eos_rate']:.0%}",
            **{f"distinct-{n}": number(row[f"distinct_{n}"], ".2f") for n in (1, 2, 3)},
            "repeated 3-grams": f"{row['repetition']:.1%}", "identical": f"{row['identical']:.1%}",
            "perplexity under π_ref": f"{row['reference_perplexity']:.0f}", "alarms": row["alarms"],
        }
        for row in health[last | (health["alarms"] != "") | places].to_dict("records")
    ])  # fmt: skip


def cost_table(records: pd.DataFrame) -> str:
    """What one whole run took, mean over the runs of each method; of tokens, with what the method needs beforehand."""
    if "tokens_trained" not in records:
        return "Nothing was trained."
    runs = records[records["step"] > 0].sort_values("step").groupby(["method", "setting", "seed"], sort=False).last()
    means = runs.groupby("method", sort=False)
    found = pd.DataFrame(
        {
            "runs": means.size(),
            **{f"{kind}, thousand tokens": means[f"tokens_{kind}"].mean() / 1e3 for kind in ("sampled", "scored", "trained")},
            "compute, million forward tokens": means["compute"].mean() / 1e6,
            "seconds of training": means["run_seconds"].mean(),
            "peak memory of the worker, MiB": means["worker_peak_memory_mib"].max(),
        }
    )
    return table(found.reset_index(), floatfmt=",.4g", disable_numparse=False)


ON_POLICY = (
    ("β", "beta", ".3f"), ("reward it learns from", "reward", ".3f"), ("entropy, nats/token", "entropy", ".2f"),
    ("clipped", "clip_fraction", ".1%"), ("explained variance", "explained_variance", ".2f"),
)  # fmt: skip


def controller_table(training: pd.DataFrame, targets: Mapping[tuple[str, str], float]) -> str:
    """Where on-policy runs settled: means over the last quarter of their steps.

    Args:
        training: See `suite.analysis.costs.training_metrics`.
        targets: (method, setting) → target KL in nats.
    """
    rows = []
    for (method, setting, seed), steps in training.groupby(["method", "setting", "seed"], sort=False):
        late, target = steps.tail(max(1, len(steps) // 4)), targets.get((method, setting))
        if "kl" not in late or late["kl"].isna().all():  # not on its own samples
            continue
        steered = {}
        if target:
            off = (late["kl"] / target - 1).abs() > 0.25
            steered = {
                "target KL, nats": f"{target:g}", "off target": f"{late['kl'].mean() / target - 1:+.0%}",
                "steps a quarter off": f"{off.mean():.0%}",
            }  # fmt: skip
        rows.append({
            "method": method, "setting": setting, "seed": seed, "KL": f"{late['kl'].mean():.2f}", **steered,
            **{title: number(late[name].mean() if name in late else None, form) for title, name, form in ON_POLICY},
        })  # fmt: skip
    return table(rows)


def held_out_pairs(reward_models: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """The held-out pairs of every training seed's reward model (`reward_model` of `study.json`), one below the other."""
    return pd.concat([pd.DataFrame(found["held_out"]) for found in reward_models.values()], ignore_index=True)


def reward_model_table(held_out: pd.DataFrame) -> str:
    """Accuracy of the learned reward on held-out pairs (`suite.rewards.reward_model.ranked`): all, by domain, by rating, and by
    thirds of the gold difference, where pairs have these; 95 % over prompts.
    """
    known = held_out["gold_gap"].nunique() > 1  # people's pairs have none
    thirds = [held_out.iloc[index] for index in np.array_split(np.argsort(held_out["gold_gap"]), 3) if known and len(index)]
    parts = [("all", held_out), *_by_domain_and_rating(held_out)]
    parts += [(f"gold difference up to {part['gold_gap'].max():.2f}", part) for part in thirds]
    rows = []
    for name, part in parts:
        found = clustered_share_interval(part["right"], part["prompt_id"])
        rows.append({"held-out pairs": name, "accuracy": interval(*found[:3]), "n pairs": len(part), "n prompts": found.n})
    return table(rows)


def _by_domain_and_rating(held_out: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Parts of the pairs by what kind of preference and how strong it is, where there are several."""
    parts = []
    if "domain" in held_out and held_out["domain"].nunique() > 1:
        parts += [(plain(str(name)) or "no domain", part) for name, part in held_out.groupby("domain")]
    if "rating" in held_out and held_out["rating"].notna().any():
        parts += [(RATINGS[int(rating)], part) for rating, part in held_out.groupby("rating", dropna=True)]  # type: ignore[call-overload]
    return parts


def calibration(held_out: pd.DataFrame) -> tuple[pd.DataFrame, float]:
    """Per fifth of the predicted probability σ(|d|) of the likelier side: its mean, how often that side was chosen, n.

    Returns:
        The table and the calibration error, the mean absolute difference weighted by n.
    """
    confidence = 1 / (1 + np.exp(-held_out["difference"].abs()))
    fifths = [index for index in np.array_split(np.argsort(confidence), 5) if len(index)]
    found = pd.DataFrame(
        [{"predicted": confidence.iloc[i].mean(), "observed": held_out["right"].iloc[i].mean(), "n": len(i)} for i in fifths]
    )
    return found, float(np.average((found["predicted"] - found["observed"]).abs(), weights=found["n"]))


def data_table(counts: Mapping[str, Mapping[str, int]]) -> str:
    """One row per part of the data: how many rows were read and used, and why the others were not."""
    rows = []
    for part, of_part in counts.items():
        known = ("rows", "used", "not needed")
        others = {reason: n for reason, n in of_part.items() if reason not in known and not reason.startswith(FROM)}
        reasons = ", ".join(f"{reason}: {n:,}" for reason, n in others.items())
        rows.append({"part": part, "rows read": of_part["rows"], "used": used_words(of_part), "left out": reasons})
    return table(rows)


FROM = "from "
"""Begins the count of what is used of one of several sources."""


def used_words(of_part: Mapping[str, int]) -> str:
    """How much of a part is used, and of each of several sources."""
    sources = [f"{n:,} {plain(name)}" for name, n in of_part.items() if name.startswith(FROM)]
    return f"{of_part['used']}" + (f" ({', '.join(sources)})" if sources else "")


def number(value: Any, form: str) -> str:
    """A number, or a dash."""
    return "–" if value is None or pd.isna(value) else f"{value:{form}}"
