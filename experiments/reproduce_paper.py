"""Every figure and table of Rafailov et al. 2023, one experiment after the other, with shared models, pairs and answers.

What is finished is not computed again: the same command goes on where it was stopped.

Examples:
  python experiments/reproduce_paper.py --profile smoke --out /tmp/paper      everything on made-up texts, minutes on 2 cores
  python experiments/reproduce_paper.py --profile local --hh hh.jsonl         film reviews, and dialogues by SmolLM2-135M
  python experiments/reproduce_paper.py --profile paper --judge openai:gpt-4o --max-cost 20   the paper's models; GPU, network
  python experiments/reproduce_paper.py --profile paper --dry-run             every plan
  python experiments/reproduce_paper.py --profile paper --rehearse            all of it first with tiny models and no network;
                                                                              and what the real ones will take
"""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Literal

from tabulate import tabulate

from suite.cli.options import RESULTS, JudgeOptions, run_script
from suite.cli.ranges import Count, CountOrNone, Dollars, Folder, Name, Rank
from suite.common.errors import UserError
from suite.common.files import check_writable, write_atomically
from suite.common.machine import usable_device
from suite.common.registry import load
from suite.engine.code_hash import code_hash
from suite.engine.engines import EngineName
from suite.judges.judging import LEARNED, OWN_JUDGE
from suite.study.profiles import REHEARSAL
from suite.study.study import Sampler

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Arguments:
    """Command line of the whole reproduction."""

    profile: Literal["smoke", "local", "rehearsal", "paper"] = "smoke"
    """smoke: made-up texts; local: embedded models on film reviews, SmolLM2-135M on the texts that are given; paper; rehearsal:
    paper with a few texts and steps."""
    out: Folder | None = None
    """A folder per experiment is made there. Default: results/paper_PROFILE."""
    judge: Name = OWN_JUDGE
    """Of the win rates; see run_hh_dialogue.py --help."""
    max_cost: Dollars | None = None
    """Of an OpenAI judge, in USD, for each experiment."""
    price: tuple[Dollars, Dollars] | None = None
    """Of an OpenAI judge that is not known here: USD per million prompt and completion tokens."""
    parameters: str = ""
    """Of the request to an OpenAI judge, as JSON; see run_hh_dialogue.py --help."""
    samples: CountOrNone = 4
    """Test prompts whose answers samples.md shows (Table 3)."""
    hh: Name | None = None
    """Dialogue pairs: Hub name, folder or file. Default: the profile's; local leaves dialogues out without it."""
    tldr_pairs: Name | None = None
    """Pairs of summaries, likewise."""
    tldr_answers: Name | None = None
    """Posts with reference summaries, likewise."""
    news: Name | None = None
    """Articles with highlights, likewise."""
    micro_batch_size: Count | None = None
    """Completions per forward pass of training, in every experiment: changes memory and not the result."""
    lora_rank: Rank | None = None
    """Of the methods' adapters in dialogues and summaries; 0 trains all weights."""
    device: Name = "auto"
    """cpu, cuda or auto."""
    gpus: Count = 1
    """GPUs of each run that trains, in every experiment."""
    engine: EngineName = "processes"
    """What makes the runs, in every experiment; see docs/scaling.md."""
    sampler: Sampler = "own"
    """Who draws completions, in every experiment: own or vllm."""
    runs: Folder = RESULTS / "runs"
    """Where runs and verdicts are kept."""
    dry_run: bool = False
    """Print every plan and stop."""
    rehearse: bool = False
    """Of profile paper: run everything once in small, with the settings of the real models and data and with their names and
    formats, made up and served on this machine; then print what the real ones will take on GPUs of 80 GB."""


@dataclass(frozen=True)
class Job:
    """One experiment."""

    shows: str  # figure or table of the paper
    script: str
    options: tuple[str, ...]
    folder: str
    needs: tuple[str, ...] = ()  # options of this script without which profile local has no data for it
    has_plan: bool = True  # knows --runs and --dry-run


def main(arguments: Arguments) -> int:
    usable_device(arguments.device)
    judge = JudgeOptions(
        judge=arguments.judge, max_cost=arguments.max_cost, price=arguments.price, parameters=arguments.parameters
    )
    judge.check(load("hh_dialogue", "task"), dry_run=arguments.dry_run)
    if arguments.rehearse:
        return rehearse(arguments)
    out = arguments.out or RESULTS / f"paper_{arguments.profile}"
    if not arguments.dry_run:
        check_writable(out)
    return carry_out(arguments, out)


def rehearse(arguments: Arguments) -> int:
    """All experiments in small on a Hub of this machine. What it makes stays in one folder, with runs of its own."""
    if arguments.profile != "paper":
        raise UserError(f"--rehearse is for --profile paper, not for {arguments.profile}")
    if arguments.judge not in (OWN_JUDGE, LEARNED) or arguments.runs != RESULTS / "runs":
        raise UserError("--rehearse has runs of its own, in --out, and a reward model as judge: leave out --runs and --judge")
    from suite.check.paper_on_the_hub import publish
    from suite.check.stand_in_hub import stand_in_hub, to_reach

    out = arguments.out or RESULTS / "paper_rehearsal"
    hub = out / f"hub-{code_hash(['suite.check.paper_on_the_hub'])}"
    if not hub.exists():
        write_atomically(hub, lambda folder: publish(folder, "tiny"))
    small = replace(arguments, profile="rehearsal", runs=out / "runs")
    with stand_in_hub(hub) as address:
        failed = carry_out(small, out, to_reach(address, out / "fetched"))
    if arguments.dry_run:
        return failed
    with TemporaryDirectory() as folder:
        words = what_it_takes(arguments, Path(folder))
    write_atomically(out / "forecast.txt", lambda path: path.write_text(words + "\n"))
    print(f"\nThe paper's models and data on GPUs of 80 GB ({out / 'forecast.txt'}):\n\n{words}")
    return failed


def what_it_takes(arguments: Arguments, folder: Path) -> str:
    """Memory and hours of everything with the real models, of which the configurations are enough."""
    from suite.check.paper_on_the_hub import publish
    from suite.check.stand_in_hub import stand_in_hub, to_reach
    from suite.cli.forecast import targets_of
    from suite.engine.forecast import told

    publish(folder / "hub", "real")
    plans = ["--dry-run", "--engine", "workers", "--device", "cpu", "--gpus", "1", "--runs", str(folder / "runs")]
    with stand_in_hub(folder / "hub") as address:
        environment = {**os.environ, **to_reach(address, folder / "fetched")}
        for job in jobs(arguments, folder)[0]:
            command = [sys.executable, str(HERE / job.script), *job.options, *plans]
            ended = subprocess.run(command, env=environment, capture_output=True, text=True) if job.has_plan else None
            if ended and ended.returncode:
                raise UserError(f"{job.script}: cannot be planned: {ended.stderr.strip().splitlines()[-1]}")
    return told(targets_of(tuple(sorted((folder / "runs" / "plans").glob("*.json")))))


def carry_out(arguments: Arguments, out: Path, environment: Mapping[str, str] = MappingProxyType({})) -> int:
    """Every experiment as a process of its own, with `environment` beside its own; 1 if one failed."""
    ended = []
    planned, left_out = jobs(arguments, out)
    for job in planned:
        command = [sys.executable, str(HERE / job.script), *job.options]
        if job.has_plan:
            command += ["--runs", str(arguments.runs), "--out", str(out / job.folder)]
            command += ["--dry-run"] if arguments.dry_run else []
        elif arguments.dry_run:
            continue
        print(f"\n=== {job.shows}: {job.script} {' '.join(job.options)}\n", flush=True)
        began = time.monotonic()
        code = subprocess.run(command, env={**os.environ, **environment}).returncode
        if code < 0 or code == 130:
            raise UserError(f"{job.script} was stopped; the same command goes on from there")
        ended.append((job.shows, job.script, "done" if code == 0 else f"failed ({code})", f"{time.monotonic() - began:.0f}"))
    ended += [(shows, script, f"left out: {why}", "") for shows, script, why in left_out]
    print("\n" + tabulate(ended, headers=["paper", "experiment", "", "seconds"]))
    if not arguments.dry_run:
        print(f"\nFigures and tables: {out}")
    return 1 if any("failed" in row[2] for row in ended) else 0


def jobs(arguments: Arguments, out: Path) -> tuple[list[Job], list[tuple[str, str, str]]]:
    """What is run, in order; and what is left out, with the reason."""
    profile = arguments.profile
    machine = (
        "--device", arguments.device, *_given("--micro-batch-size", arguments.micro_batch_size),
        *(("--gpus", str(arguments.gpus)) if arguments.gpus > 1 else ()),
        *(("--engine", arguments.engine) if arguments.engine != "processes" else ()),
        *(("--sampler", arguments.sampler) if arguments.sampler != "own" else ()),
    )  # fmt: skip
    films = ("--profile", "embedded" if profile == "local" else profile)
    grid = ("--grid", "paper") if profile in ("paper", REHEARSAL) else ()
    common = ("--profile", profile, *machine, *_given("--lora-rank", arguments.lora_rank))
    asked = (
        *common, *_given("--max-cost", arguments.max_cost), *_given("--parameters", arguments.parameters or None),
        *(() if arguments.price is None else ("--price", *map(str, arguments.price))),
    )  # fmt: skip
    judge = (*asked, "--judge", arguments.judge)
    texts = {
        "hh": _given("--pairs", arguments.hh), "news": _given("--news", arguments.news),
        "tldr": (*_given("--pairs", arguments.tldr_pairs), *_given("--answers", arguments.tldr_answers)),
    }  # fmt: skip
    own = arguments.judge in (OWN_JUDGE, LEARNED)
    second = ("--judge", LEARNED) if own else ("--judge", arguments.judge, "--template", "summarization_s")
    beside_ppo = (*texts["tldr"], "--methods", "dpo,ppo", "--temperatures", "0,0.25,1", "--opponent", "ppo@0")
    samples = ("--samples", str(arguments.samples))
    dialogues, posts = ("--hh",), ("--tldr-pairs",)
    found = [
        Job("Fig. 2 left", "run_imdb_frontier.py", (*films, *machine, *grid), "imdb_frontier"),
        Job("after Fig. 2 right", "run_temperature.py", (*films, *machine), "temperature"),
        Job("after Fig. 4", "run_best_of_n.py", (*films, *machine, "--task", "imdb_sentiment"), "best_of_n_imdb"),
        Job("Fig. 2 right, Table 3", "run_tldr_temperature.py", (*judge, *texts["tldr"], *samples), "tldr_temperature", posts),
        Job("Fig. 3", "run_hh_dialogue.py", (*judge, *texts["hh"]), "hh_dialogue", dialogues),
        Job("Fig. 4", "run_best_of_n.py", (*judge, *texts["hh"]), "best_of_n", dialogues),
        Job("Fig. 4", "run_best_of_n.py", (*judge, *texts["tldr"], "--task", "tldr_summarization"), "best_of_n_tldr", posts),
        Job("Table 1", "run_cnn_dm_transfer.py", (*judge, *texts["tldr"], *texts["news"]), "cnn_dm_transfer",
            (*posts, "--news")),
        Job("for Table 2", "run_tldr_temperature.py", (*judge, *beside_ppo), "tldr_against_ppo"),
        Job("for Table 2", "run_tldr_temperature.py", (*asked, *second, *beside_ppo), "tldr_against_ppo_second"),
        Job("Table 2 without people", "run_judge_agreement.py",
            (*(str(out / folder / "verdicts.csv") for folder in ("tldr_against_ppo", "tldr_against_ppo_second")),
             "--out", str(out / "judge_agreement")), "judge_agreement", has_plan=False),
    ]  # fmt: skip
    if profile != "local":
        return found, []
    data = {"--hh": arguments.hh, "--tldr-pairs": arguments.tldr_pairs, "--news": arguments.news}

    def lacks(job: Job) -> str:
        if "Table 2" in job.shows:
            return "profile local trains no PPO, which it compares with"
        return "" if all(data[option] for option in job.needs) else f"no {' and '.join(job.needs)}"

    left_out = [(job.shows, job.script, lacks(job)) for job in found if lacks(job)]
    return [job for job in found if not lacks(job)], left_out


def _given(option: str, value: object) -> tuple[str, ...]:
    return () if value is None else (option, str(value))


if __name__ == "__main__":
    run_script(main, Arguments, __doc__)
