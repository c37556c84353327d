"""The pages of RLHF in Llama 2's order: the plane of both rewards with its trade-off frontier, reward models. No torch."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from suite.analysis.records import Results
from suite.analysis.trade_off import ARM, BOTH
from suite.report.figures import styles_of
from suite.report.files import captioned, figure_file
from suite.report.html.data import KL_TITLE
from suite.report.html.write import FILE
from suite.report.page import interval, page, said_in, table
from suite.report.tables import calibration, data_table, held_out_pairs, reward_model_table

TABLE = "trade_off.csv"
FILLED = "two models"
"""Of learned rewards, the one whose policies are drawn filled."""
TITLES = {"helpfulness": "helpfulness, as a program checks it (0 to 4)", "safety": "safety, logits of the judge's reward model"}
FIGURES = [
    {"name": f"{y} against {x}", "x": metric, "x_title": title, "y": y, "y_title": TITLES[y]}
    for x, metric, title, y in (
        ("helpfulness", "helpfulness", TITLES["helpfulness"], "safety"), ("KL", "kl", KL_TITLE, "safety"),
        ("KL", "kl", KL_TITLE, "helpfulness"),
    )
]  # fmt: skip
"""Of the interactive page, see `suite.report.html.data.figures_of`."""


def as_one(results: Mapping[str, Results], rewardless: Collection[str]) -> Results:
    """The arms as one study for its interactive page: of a method that learns from a reward the name says which, but of
    `FILLED`; those that are `rewardless` learn from none.
    """

    def named(arm: str, table: pd.DataFrame) -> pd.DataFrame:
        same = table["method"].isin(list(rewardless)) | (arm == FILLED)
        return table.assign(method=table["method"].where(same, table["method"] + f" ({arm})"))

    def every(name: str) -> pd.DataFrame:
        return pd.concat([named(arm, getattr(of, name)) for arm, of in results.items()], ignore_index=True)

    first, *_ = results.values()
    runs = {**first.runs, "runs": {key: run for of in results.values() for key, run in of.runs["runs"].items()}}
    about = first.about | {
        "title": "RLHF as Llama 2 describes it", "figures": FIGURES, "metric": "safety", "against": "DPO", "page_samples": 0,
        "trained_runs": sum(of.about["trained_runs"] for of in results.values()), "worker_minutes": None,
        "reward_model": reward_models_of(results),
    }  # fmt: skip
    return Results(about, every("measurements"), every("records"), every("training"), every("health"), runs=runs)


def reward_models_of(results: Mapping[str, Results]) -> dict[str, Any]:
    """Arm, seed and, of two, which → what is known of a reward model."""
    return {f"{arm}, seed {name}": model for arm, of in results.items() for name, model in of.about["reward_model"].items()}


def draw(folder: Path, out: Path) -> list[Path]:
    """`trade_off.svg`: safety against helpfulness of every kept policy, a line through those that no other beats in both."""
    found = pd.read_csv(folder / TABLE, dtype={ARM: str, "setting": str}).fillna({ARM: "", "setting": ""})
    styles = styles_of(list(dict.fromkeys(found["method"])))
    with figure_file(out / "trade_off", (7.2, 5.4)) as (figure, ax, written):
        for (arm, method), rows in found.groupby([ARM, "method"], sort=False):
            colour, marker = styles[method]
            face = colour if arm in (FILLED, "") else "white"
            x, y = rows["helpfulness"], rows["safety"]
            bars = {
                f"{axis}err": [rows[name] - rows[f"{name}_low"], rows[f"{name}_high"] - rows[name]]
                for axis, name in zip("xy", BOTH, strict=True)
            }
            ax.errorbar(x, y, **bars, color=colour, marker=marker, mfc=face, ms=6, lw=0.8, elinewidth=0.6, alpha=0.9,
                        label=f"{method}{f', {arm}' if arm else ''}")  # fmt: skip
        best = found[found["best"]].sort_values("helpfulness")
        x = [found["helpfulness"].min(), *best["helpfulness"], best["helpfulness"].max()]
        y = [best["safety"].max(), *best["safety"], found["safety"].min()]
        ax.step(x, y, where="pre", color="black", lw=1, ls="--", label="trade-off frontier")
        ax.set(xlabel=TITLES["helpfulness"], ylabel=TITLES["safety"])
        ax.legend(fontsize=7)
        ax.grid(alpha=0.25)
        captioned(figure, "Helpfulness and safety of every kept policy", [
            f"Test prompts: {found['n'].min()}, temperature 1; bars: 95 % over prompts, for these policies. Lines join the "
            "policies of a run in order of training. Hollow: learned from one reward model of all pairs.",
        ])  # fmt: skip
    return written


def summary(
    found: pd.DataFrame, gaps: pd.DataFrame, reward_models: Mapping[str, Mapping[str, Any]], *, origin: str,
    data: Mapping[str, Mapping[str, int]], by_safety: float, gatt: str, seeds: Sequence[int],
) -> str:  # fmt: skip
    """The page beside the figure.

    Args:
        found, gaps: Of `suite.analysis.trade_off`.
        reward_models: Name → what is known of each, as in `study.json`.
        origin: What made it: command, date, machine.
        data: Part → counts of its rows.
        by_safety: Share of the reference's samples that the combination scores by safety.
        gatt: The section on Ghost Attention, in Markdown.
        seeds: Of training.
    """
    words = said_in("words")["llama2_rlhf"]
    held = {name: held_out_pairs({"": model}) for name, model in reward_models.items()}
    models = [
        f"### {name}\n\nCalibration error {calibration(pairs)[1]:.3f}.\n\n{reward_model_table(pairs)}"
        for name, pairs in held.items()
    ]
    sections = [
        ("", f"[Interactive page]({FILE})"), ("", origin), ("", words["lead"].format(seeds=", ".join(map(str, seeds)))),
        ("", "![helpfulness and safety](trade_off.svg)"), ("Every kept policy", _points(found)),
        ("Beside DPO", words["gaps"].format(count=len(gaps)) + "\n\n" + _gaps(gaps)),
        ("Reward models", words["reward_models"].format(by_safety=by_safety) + "\n\n" + "\n\n".join(models)),
        ("Data", data_table(data)), ("Ghost Attention", gatt), ("Where it departs from the paper", words["deviations"]),
    ]  # fmt: skip
    return page("RLHF as Llama 2 describes it", sections)


def _points(found: pd.DataFrame) -> str:
    return table([
        {"learned from": row[ARM], "method": row["method"], "setting": row["setting"], "seed": row["seed"], "step": row["step"],
         **{name: interval(row[name], row[f"{name}_low"], row[f"{name}_high"], form)
            for name, form in (("helpfulness", ".2f"), ("safety", ".2f"), ("kl", ".2f"), ("tokens", ".1f"))},
         "on the frontier": "yes" if row["best"] else "", "n prompts": row["n"]}
        for row in found.to_dict("records")
    ])  # fmt: skip


def _gaps(gaps: pd.DataFrame) -> str:
    return table([
        {"learned from": row[ARM], "method": row["method"], "in": row["metric"],
         "less DPO": interval(row["difference"], row["low"], row["high"], "+.2f"), "p (max-T)": f"{row['p']:.3f}",
         "verdict": row["verdict"], "n seeds": row["seeds"], "n prompts": row["n"]}
        for row in gaps.to_dict("records")
    ])  # fmt: skip
