"""RLHF as Llama 2 describes it, beside DPO: two reward models, rejection sampling, PPO on top, Ghost Attention.

Helpfulness and safety of every policy as a plane, with the trade-off frontier. Where there are no helpfulness pairs of people,
the model's own samples stand in, ranked by a check that a program makes. Everything is cached and resumable.

Examples:
  python experiments/run_llama2_rlhf.py                                            smoke: made-up dialogues, embedded model
  python experiments/run_llama2_rlhf.py --profile local --pairs harmless-base.jsonl.gz                SmolLM2-135M, a CPU
  python experiments/run_llama2_rlhf.py --no-gatt --dry-run
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from suite.analysis.consistency import gather_consistency
from suite.analysis.gather import gather
from suite.analysis.records import write_results, write_table, write_text
from suite.analysis.trade_off import ARM, differences, points
from suite.cli.options import MachineOptions, made_here, parse_seeds, run_script
from suite.cli.ranges import Name, Workers
from suite.common.files import check_writable
from suite.engine.making import closure
from suite.engine.store import facts, reading
from suite.engine.sweep import print_plan, run_all
from suite.evaluation.two_rewards_evaluator import BothRewards, TwoRewardsEvaluator
from suite.interfaces import Contender
from suite.report.consistency import write_consistency
from suite.report.html.write import FILE, report_html
from suite.report.llama2_rlhf import TABLE, as_one, draw, reward_models_of, summary
from suite.report.study_folder import studies_in
from suite.rewards.helpfulness import helpfulness
from suite.rewards.reward_model import RewardModel
from suite.study.ghost_attention import GhostAttentionPlan, ghost_attention_of, plan_ghost_attention
from suite.study.llama2_rlhf import GRIDS, ONE, TWO, Dialogues, dialogues, helpful_rows, with_mixture
from suite.study.plan import Plan, plan_study
from suite.study.run import announce, judged
from suite.study.study import Study

REFERENCE = Contender("Preferred-FT", "(reference)")


@dataclass(frozen=True)
class Arguments(MachineOptions):
    """Command line of the study."""

    profile: Literal["smoke", "local"] = "smoke"
    """smoke: made-up dialogues and the embedded model, to try the pipeline; local: SmolLM2-135M-Instruct on a CPU."""
    pairs: Name | None = None
    """Safety pairs of people: file, folder or Hub name. Default: the profile's."""
    seeds: str = "0"
    """Comma-separated training seeds; fewer than three give no verdict."""
    gatt: bool = True
    """Ghost Attention too."""
    workers: Workers = 1
    """Processes that share the cores; 0: one per core up to 8."""


def main(args: Arguments) -> int:
    seeds, out = parse_seeds(args.seeds), args.folder("llama2_rlhf", args.profile)
    begun = dialogues(args.profile, pairs=args.pairs, runs=args.runs, **args.machine)
    means = args.means(begun.study.device)
    first = [begun.candidates, begun.judge(seeds[0])]
    print_plan(args.runs, first, means, whole=args.dry_run or args.verbose)
    if args.dry_run:
        print("what follows is planned when the helpfulness pairs are there")
        return 0
    for folder in (out, args.runs):
        check_writable(folder)
    if run_all(args.runs, first, means):
        return 1
    rows = list(helpful_rows(begun, begun.candidates.directory(args.runs)))
    studies = with_mixture(begun, args.runs / "made_up" / begun.candidates.key[:8] / "helpfulness.jsonl", rows)
    plans = {arm: plan_of(study, arm, seeds) for arm, study in studies.items()}
    gatt = plan_ghost_attention(ghost_attention_of(args.profile, begun.study, seeds)) if args.gatt else None
    targets = [spec for plan in plans.values() for spec in plan.targets] + (gatt.targets if gatt else [])
    print_plan(args.runs, targets, means, whole=args.verbose)
    announce(plans, args.run_options(), means.workers)
    failed = {outcome.spec.key for outcome in run_all(args.runs, targets, means)}
    plans = {arm: plan.without(failed) for arm, plan in plans.items()}
    if gatt and not failed.isdisjoint(spec.key for spec in closure(gatt.targets)):
        gatt = None  # what failed was named above
    targets = [spec for plan in plans.values() for spec in plan.targets] + (gatt.targets if gatt else [])
    with reading(args.runs, closure([*first, *targets])):
        text = written(args, out, begun, plans, gatt, seeds)
    print(f"\n{text}\nWritten to {out}: " + ", ".join(sorted(path.name for path in out.iterdir())))
    return 1 if failed else 0


def plan_of(study: Study, arm: str, seeds: list[int]) -> Plan:
    """The runs of one arm; the reference is measured once."""
    reference = REFERENCE if arm == ONE else None
    return plan_study(study, GRIDS[arm], TwoRewardsEvaluator(), seeds=seeds, reference=reference)


def written(
    args: Arguments, out: Path, begun: Dialogues, plans: dict[str, Plan], gatt: GhostAttentionPlan | None, seeds: list[int]
) -> str:
    """Measure, and write the results folder; the page."""
    judge = RewardModel.load(begun.judge(seeds[0]).directory(args.runs) / "model", device=begun.study.device)
    measure: Any = BothRewards(helpfulness, lambda prompts, texts: judge.logits(prompts, texts).tolist())
    results = {arm: gather(judged(plan, args.run_options(), measure), "llama2_rlhf") for arm, plan in plans.items()}
    numbers = pd.concat([of.measurements.assign(**{ARM: arm}) for arm, of in results.items()], ignore_index=True)
    numbers.loc[numbers["method"].isin([REFERENCE.method, "DPO"]), ARM] = ""  # learn from no reward
    found = points(numbers)
    write_table(out / TABLE, found)
    gaps = differences(numbers, "DPO") if "DPO" in set(numbers["method"]) else pd.DataFrame()
    write_table(out / "beside_dpo.csv", gaps)
    write_results(out, as_one(results, [REFERENCE.method, "DPO"]))
    draw(out, out)
    write_text(out / FILE, report_html(studies_in(out)))
    combined = plans[TWO].source.reward_model
    spoken = (
        write_consistency(gather_consistency(gatt, args.runs), out / "ghost_attention", seen_from=out) if gatt else "Left out."
    )
    text = summary(
        found, gaps, reward_models_of(results), origin=made_here(f"device {begun.study.device}"),
        data=results[ONE].about["data"],
        by_safety=facts(args.runs, combined)["by_safety"], seeds=seeds,
        gatt=spoken,
    )  # fmt: skip
    write_text(out / "summary.md", text)
    return text


if __name__ == "__main__":
    run_script(main, Arguments, __doc__)
