"""The results folder of a study of curves: win rate or reward against temperature, over training or by N."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from suite.analysis.curves import AGAINST, beats_half, compare_curves, ends_of
from suite.analysis.gather import gather
from suite.analysis.records import Results, wide
from suite.analysis.verdict import TURNED, WORDS
from suite.judges.verdict_store import VerdictStore
from suite.report import tables
from suite.report.figures import LINES, styles_of
from suite.report.files import captioned, figure_file
from suite.report.page import Section, Verdict, interval, origin, table
from suite.report.samples import samples_table, write_samples
from suite.report.study_folder import write_folder
from suite.study.run import VERDICTS, Finished

PANELS = {
    "temperature": ("sampling temperature", "against temperature", "T"),
    "training": ("share of the training run", "over training", "share"),
    "best_of_n": ("N of Best-of-N", "by N", "N"),
}
"""Panel → what its x is, its title, the name of its columns in tables."""
FORMS = {"win_rate": ".2f", "reward": ".3f"}
"""Metric that is drawn → how it is printed."""
LIMITS = (-0.03, 1.03)
MANY = 5
"""Lines whose legend hides points, wherever it stands among them."""


def write_curves(
    finished: Finished, out: Path, *, about: Mapping[str, Any], prompts: int = 0, verdict: Verdict | None = None
) -> str:
    """Write a finished study to `out`, and return the page to be read first.

    Args:
        finished, out: From `suite.study.run`, and the folder of results.
        about: For caption and page: `title`, `metric` ("win_rate" or "reward"), `label` of its axis, `caption` lines; where
            there are any, `against` (whom the others are compared with), `judge`, `template`, `settings`, `deviations`, `paper`
            (Markdown) and `paper_rates` (method → x → the paper's number, to stand beside).
        prompts: Test prompts whose answers `samples.md` shows: texts, maybe not yours to publish; 0: it is not written.
        verdict: Makes a page of its own, which is then the first to be read.
    """
    results = gather(finished, out.name)
    results.about.update({"against": AGAINST, "paper": "", "paper_rates": {}, "settings": {}, "deviations": [], **about})
    if results.verdicts is not None:
        results = replace(results, verdicts=_with_replies(results.verdicts, finished).assign(template=about["template"]))
    comparison = compare_curves(results.measurements, results.about["against"])
    if prompts or finished.options.page_samples:
        results = replace(results, samples=samples_table(finished, results, prompts=prompts))
        write_samples(out, results)
    return write_folder(
        out, results, comparison, sections_of(results, comparison), draw=draw, verdict=verdict,
        samples=finished.options.page_samples,
    )  # fmt: skip


def _with_replies(verdicts: pd.DataFrame, finished: Finished) -> pd.DataFrame:
    """The verdicts and, of the prompts whose texts may stand in the page, what the judge said; it may quote them."""
    table = verdicts.drop(columns="key")
    if not (many := finished.options.page_samples):
        return table
    shown = verdicts["prompt_id"].isin(list(dict.fromkeys(verdicts["prompt_id"]))[:many])
    store = VerdictStore(finished.options.runs / VERDICTS, read_only=True)
    replies = store.replies(list(verdicts.loc[shown, "key"]))
    return table.assign(reply=verdicts["key"].where(shown).map(replies).fillna(""))


def sections_of(results: Results, comparison: pd.DataFrame) -> list[Section]:
    """The page."""
    about, shown, metric = results.about, wide(results.records, "test"), results.about["metric"]
    name = about["label"].partition(",")[0]
    sections: list[Section] = [("", origin(about)), ("", "\n".join(about["caption"])), ("", "![curves](curves.svg)")]
    for panel in [panel for panel in PANELS if (shown["panel"] == panel).any()]:
        rows = shown[shown["panel"] == panel]
        paper = about["paper_rates"] if panel == "temperature" else {}
        sections.append((f"{name[:1].upper()}{name[1:]} {PANELS[panel][1]}", points_table(rows, panel, metric, paper)))
        if len(ends := ends_of(results.measurements, panel)):
            lead = "### From end to end\n\nThe same prompts, corrected for the number of policies.\n\n"
            sections.append(("", lead + gaps_table(ends, "first minus last x")))
        gaps = comparison[comparison["panel"] == panel] if len(comparison) else comparison
        if len(gaps):
            lead = (
                f"### Beside {about['against']}\n\nDifferences on the same prompts, corrected for {len(gaps)} comparisons "
                "(Bonferroni); p by paired t-test, Holm.\n\n"
            )
            sections.append(("", lead + gaps_table(gaps, f"{name} minus {about['against']}'s")))
    found = about["reward_model"]
    reward_model = tables.reward_model_table(tables.held_out_pairs(found)) if found else ""
    settings = [{"setting": name, "here": str(value)} for name, value in about["settings"].items()]
    deviations = pd.DataFrame(about["deviations"], columns=["item", "paper", "here"])
    lead = "Alarms beside the reference at the same temperature.\n\n"
    return [
        *sections, ("Judgments", judgments_table(shown) if metric == "win_rate" else ""),
        ("Generation health", lead + tables.health_page_table(results.health, places=True) if len(results.health) else ""),
        ("Data", "Rows by what became of them.\n\n" + tables.data_table(about["data"])),
        ("Reward model of the methods", reward_model), ("Settings", table(settings)),
        ("Beside the paper's protocol", table(deviations)), ("The paper's numbers", about["paper"]),
    ]  # fmt: skip


def points_table(rows: pd.DataFrame, panel: str, metric: str, paper: Mapping[str, Mapping[str, str]]) -> str:
    """Policies down, x across; then what the paper has."""
    name, cells = PANELS[panel][2], dict[str, dict[str, str]]()
    for row in rows.to_dict("records"):
        policy = row["method"] if panel == "best_of_n" else f"{row['method']} {row['setting']}".strip()
        policy += f", T = {row['temperature']:g}" if panel == "training" else ""
        cells.setdefault(policy, {})[f"{name} = {row['x']:g}"] = tables.with_interval(row, metric, FORMS[metric])
    columns = sorted({x for of_policy in cells.values() for x in of_policy}, key=lambda x: float(x.rpartition(" ")[2]))
    for method, of_method in paper.items():
        if known := {f"{name} = {x}": value for x, value in of_method.items() if f"{name} = {x}" in columns}:
            cells[f"*{method}, the paper*"] = known
    return table([{"policy": policy, **{x: of_policy.get(x, "–") for x in columns}} for policy, of_policy in cells.items()])


def gaps_table(gaps: pd.DataFrame, name: str) -> str:
    """Rows of `suite.analysis.curves`, for reading."""
    frame = pd.DataFrame([
        {
            "policy": row["policy"], "x": f"{row['x']:g}", "T": f"{row['temperature']:g}",
            name: interval(row["difference"], row["low"], row["high"], "+.3f"), "n": row["n"], "p (Holm)": f"{row['p']:.3f}",
            "verdict": row["verdict"],
        }
        for row in gaps.to_dict("records")
    ])  # fmt: skip
    return table(frame.drop(columns="x") if (frame["x"] == frame["T"]).all() else frame)


def judgments_table(shown: pd.DataFrame) -> str:
    """Counts, and how much order and length decided, per point."""
    counts = ("n_asked", "n_tie", "n_invalid", "n_failed")
    return "Brackets: 95 %, clustered by prompt.\n\n" + table([
        {
            "policy": f"{row['method']} {row['setting']}".strip(), "panel": row["panel"], "x": f"{row['x']:g}",
            "T": f"{row['temperature']:g}", "win rate": tables.with_interval(row, "win_rate", ".2f"),
            "beside a half": beats_half(row["win_rate_low"], row["win_rate_high"]),
            "length-controlled": tables.with_interval(row, "length_controlled", ".2f"),
            **({"KL, nats": tables.with_interval(row, "kl", ".1f")} if "kl" in row else {}),
            "longer wins": tables.with_interval(row, "longer_wins", ".2f"),
            "same position": tables.with_interval(row, "flips", ".2f"), "prompts": int(row["win_rate_n"]),
            **{name.removeprefix("n_"): int(row[name]) for name in counts},
        }
        for row in shown.to_dict("records")
    ])  # fmt: skip


def verdict_words(results: Results, comparison: pd.DataFrame) -> str:
    """Who beats the chosen answers, and whom `against` beats: one line each, Markdown."""
    against, shown = results.about["against"], wide(results.records, "test")
    lines, several = [], shown["temperature"].nunique() > 1
    words = {"better": "beats", "worse": "loses to", "equivalent": "is equivalent to", "not resolved": "is not resolved from"}
    for row in shown.to_dict("records"):
        word = words[beats_half(row["win_rate_low"], row["win_rate_high"])]
        name = f"{row['method']} {row['setting']}".strip() + (f", T = {row['temperature']:g}" if several else "")
        rate = tables.with_interval(row, "win_rate", ".2f")
        spent = f", KL to the reference {tables.with_interval(row, 'kl', '.1f')} nats" if pd.notna(row.get("kl")) else ""
        lines.append(f"- **{name}** {word} the chosen answers: win rate {rate}{spent}, n = {row['win_rate_n']:.0f} prompts")
    if "kl" in shown and (known := shown["kl"].dropna()).size > 1:
        span = f"{known.min():.1f} to {known.max():.1f} nats"
        lines += ["", f"**Not at equal KL**: at temperature 1 these policies spend {span}. One that may go farther wins more; "
                  "a reward of your own (--reward) compares at equal KL."]  # fmt: skip
    if not len(comparison):
        return "\n".join(lines)
    lines += [
        "", f"Beside {against}, on the same prompts (intervals corrected for {len(comparison)} comparisons decide); of one "
        "training seed, so of these policies and not of the methods:", "",
    ]  # fmt: skip
    for row in comparison.to_dict("records"):
        at = f", T = {row['temperature']:g}" if several else ""
        gap = interval(-row["difference"] + 0.0, -row["high"] + 0.0, -row["low"] + 0.0, "+.3f")
        lines.append(f"- **{against} is {WORDS[TURNED[row['verdict']]]} {row['policy']}{at}**: {gap}, p = {row['p']:.3f}")
    return "\n".join(lines)


def draw(results: Results, out: Path) -> list[Path]:
    """`curves`: one axis per panel."""
    about, shown = results.about, wide(results.records, "test")
    panels = [panel for panel in PANELS if (shown["panel"] == panel).any()]
    styles = styles_of(list(dict.fromkeys(shown["method"])))
    size = (6.4 if len(panels) == 1 else 5.2 * len(panels), 4.9)
    with figure_file(out / "curves", size, columns=len(panels)) as (figure, axes, written):
        for ax, panel in zip([axes] if len(panels) == 1 else axes, panels, strict=True):
            draw_panel(shown[shown["panel"] == panel], ax, panel, about["metric"], styles)
            if ax.get_subplotspec().is_first_col():
                ax.set_ylabel(about["label"])
        captioned(figure, about["title"], [*about["caption"], "Bars: 95 % over prompts, conditional on the trained policies."])
    return written


def draw_panel(rows: pd.DataFrame, ax: Any, panel: str, metric: str, styles: Mapping[str, tuple[str, str]]) -> None:
    """One line per policy (over training: per method and temperature) with its intervals; at a single x side by side.

    Args:
        rows: Of `suite.analysis.records.wide`, one panel.
        ax, panel, styles: Where to draw; a name of `PANELS`; method → colour and marker.
        metric: What is drawn; of win rates the line of a draw is too.
    """
    several, alone = rows["temperature"].nunique() > 1, rows["x"].nunique() == 1
    by = {"training": ["method", "temperature"], "best_of_n": ["method", "panel"]}.get(panel, ["method", "setting"])
    shades, names = dict[str, int](), []
    for k, ((method, other), line) in enumerate(rows.groupby(by, sort=False)):
        shade = shades[method] = shades.get(method, -1) + 1
        colour, marker = styles[method]
        known = {"training": f"{method}, T = {other}" if several else method, "best_of_n": method}
        label = known.get(panel, f"{method} {other}").strip()
        names.append(label.replace(" ", "\n", 1))
        ordered = line.sort_values("x")
        y, low, high = (ordered[f"{metric}{end}"] for end in ("", "_low", "_high"))
        offset = 0.0 if panel == "best_of_n" else 0.008 * (rows["x"].max() - rows["x"].min()) * k
        ax.errorbar(
            [k] if alone else ordered["x"] + offset, y, yerr=[(y - low).clip(lower=0), (high - y).clip(lower=0)], color=colour,
            marker=marker, ms=4.5, mfc="none" if ordered["privileged"].any() else colour, ls=LINES[shade % 4], lw=1.2,
            capsize=2, elinewidth=0.8, label=label,
        )  # fmt: skip
    name, title, _ = PANELS[panel]
    if metric == "win_rate":
        ax.axhline(0.5, color="0.6", lw=0.8, ls=":", zorder=0)
        ax.set_ylim(*LIMITS)
    if alone:
        ax.set_xticks(range(len(names)), names, fontsize=7, parse_math=False)
        ax.set_title(f"at temperature {rows['x'].iloc[0]:g}", fontsize=9)
    else:
        ax.set_xlabel(name)
        ax.set_title(title, fontsize=9)
        if metric == "reward" and len(names) > MANY:  # the legend needs room of its own
            bottom, top = ax.get_ylim()
            ax.set_ylim(bottom - 0.3 * (top - bottom), top)
            ax.legend(fontsize=7, loc="lower center", ncol=2)
        else:
            ax.legend(fontsize=7, loc="best", framealpha=0.6)
    if panel == "best_of_n":
        ax.set_xscale("log", base=2)
        ax.set_xticks(sorted(rows["x"].unique()), [f"{x:g}" for x in sorted(rows["x"].unique())])
    ax.grid(alpha=0.25)
