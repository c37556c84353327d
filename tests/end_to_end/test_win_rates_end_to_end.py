"""The win-rate experiments from data to page, small; the plan of the whole reproduction."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import doors
import numpy as np
import pandas as pd
import pytest

from suite.analysis.curves import compare_curves, p_value
from suite.analysis.records import read_results, wide
from suite.cli.win_rates import TextOptions, reference_of, run_win_rates
from suite.common.errors import UserError
from suite.data.comparisons import Answer
from suite.engine.making import closure
from suite.evaluation.win_rate_evaluator import WinRateEvaluator
from suite.interfaces import Contender, Context
from suite.judges.outputs import join, read_answers, read_verdicts
from suite.judges.verdict_store import VerdictStore
from suite.report import curves
from suite.report.page import page
from suite.study.plan import plan_study
from suite.study.profiles import local_model
from suite.study.run import samples_of
from suite.study.specs import Specs
from suite.tasks.made_up import ROWS
from suite.tasks.splits import MADE_UP

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def tiny(task, **options):
    """The smoke study of a task, a few pairs of it."""
    study = TextOptions(**options).study(task)
    optim = replace(study.optim, num_snapshots=1, warmup_steps=1)
    return replace(
        study, train_size=16, judge_pairs=16, test_prompts=6, max_new_tokens=24, optim=optim, reward_model=optim,
        sft=replace(study.sft, optim=optim),
    )  # fmt: skip


def run(task, grid, evaluator, *, plan=(), **options):
    """The exit code of a whole study of a task."""
    given = {name: options[name] for name in ("pairs", "answers", "lora_rank") if name in options}
    return run_win_rates(
        TextOptions(**options), tiny(task, **given), grid, evaluator, name="x", title="Win rate", paper="None.", **dict(plan)
    )


def through_doors(mode, command_lines):
    """What every script does with its command line, all in one process."""
    return doors.through_doors(mode, [(EXPERIMENTS / script, *words) for script, *words in command_lines])


def rates_in(folder):
    """One row per policy and place."""
    return wide(read_results(folder).records, "test")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("answers")


DIALOGUE = {"few_shot": [{}], "dpo": [{"beta": 0.1}], "best_of_n": [{"n": 4}]}


@pytest.fixture(scope="module")
def again(shared):
    """The study of dialogue, made once in `shared`, with answers written for other judges; to be called again."""
    study = ("hh_dialogue", DIALOGUE, WinRateEvaluator((0.0, 1.0), (1.0,)))
    places = {"runs": shared / "runs", "out": shared / "hh"}
    assert run(*study, **places, write_answers=shared / "jsonl") == 0
    return lambda: run(*study, **places)


def test_dialogue_from_data_to_page(again, shared, capsys):
    table = rates_in(shared / "hh")
    points = set(zip(table["panel"], table["method"], table["temperature"], strict=True))
    assert ("temperature", "Best-of-N", 1.0) in points
    assert ("temperature", "Best-of-N", 0.0) not in points
    assert {("temperature", m, t) for m in ("Preferred-FT", "Few-shot", "DPO") for t in (0.0, 1.0)} <= points
    assert list(table[table["panel"] == "training"]["x"]) == [0.0, 1.0]
    assert (table["n_asked"] == 2 * table["win_rate_n"]).all()
    assert (table["win_rate_low"] <= table["win_rate"]).all()
    assert (table["win_rate"] <= table["win_rate_high"]).all()
    at_end = table[(table["method"] == "DPO") & (table["temperature"] == 1)]
    assert len(at_end[at_end["x"] == 1]) == 2
    assert at_end[at_end["x"] == 1]["win_rate"].nunique() == 1  # one point of both panels, drawn once
    numbers = read_results(shared / "hh").measurements
    wins = numbers[numbers["metric"] == "win"]
    assert set(wins["value"]) <= {0.0, 0.5, 1.0}
    assert np.isclose(wins.groupby(["panel", "method", "setting", "x", "temperature"])["value"].mean().sum(),
                      table["win_rate"].sum())  # fmt: skip
    summary = (shared / "hh" / "summary.md").read_text()
    assert "Made-up texts" in summary
    assert "## The paper's numbers" in summary
    assert (shared / "hh" / "curves.svg").exists()
    read_verdicts(shared / "hh" / "verdicts.csv")
    texts = [text for path in (shared / "runs" / "samples").glob("*/samples.parquet")
             for text in pd.read_parquet(path)["text"] if len(text) > 20]  # fmt: skip
    assert texts
    for path in (shared / "hh").iterdir():
        content = path.read_bytes()
        assert not any(text.encode() in content for text in texts), path
    before = pd.read_csv(shared / "hh" / "records.csv")
    capsys.readouterr()
    assert again() == 0
    assert "to run" not in capsys.readouterr().out
    pd.testing.assert_frame_equal(pd.read_csv(shared / "hh" / "records.csv"), before)


def test_answers_are_written_for_other_judges(again, shared):
    files = {path.name: path for path in (shared / "jsonl").iterdir()}
    assert "hh_dialogue_reference.jsonl" in files
    policy = next(path for name, path in files.items() if "DPO" in name and name.endswith("T---1.jsonl"))
    compared = join(read_answers(str(policy)), read_answers(str(files["hh_dialogue_reference.jsonl"])))
    assert len(compared) == 6
    assert all(comparison.prompt and comparison.opponent for comparison in compared)


def test_best_of_n_keeps_the_best_of_the_first_n(shared):
    evaluator = WinRateEvaluator((1.0,), sizes=(1, 3))
    places = {"runs": shared / "runs", "out": shared / "bon"}
    assert run("hh_dialogue", {"best_of_n": [{"n": 1}, {"n": 3}]}, evaluator, **places, plan={"reference": False}) == 0
    assert list(rates_in(shared / "bon")["x"]) == [1, 3]
    plan = plan_study(tiny("hh_dialogue"), {"best_of_n": [{"n": 3}]}, evaluator)
    (point,) = plan.points
    drawn = pd.read_parquet(point.samples.directory(shared / "runs") / "samples.parquet")
    scores = pd.read_parquet(point.scores.directory(shared / "runs") / "scores.parquet")
    both = drawn.merge(scores, on=["prompt_id", "sample"]).set_index("prompt_id")
    for n in (1, 2, 3):
        kept = samples_of(shared / "runs", replace(point, contender=replace(point.contender, n=n)))
        assert len(kept) == 6
        if n == 1:
            assert (kept["sample"] == 0).all()
        for row in kept.itertuples():
            among = both.loc[row.prompt_id]
            assert row.score == among[among["sample"] < n]["score"].max()


@pytest.mark.slow
def test_transfer_and_a_second_judge(shared):
    study = ("tldr_summarization", {"dpo": [{"beta": 0.5}]}, WinRateEvaluator((0.0,)))
    news = {"other_task": ("cnn_dm_transfer", MADE_UP)}
    assert run(*study, runs=shared / "runs", out=shared / "news", plan=news) == 0
    table = pd.read_csv(shared / "news" / "records.csv", keep_default_na=False)
    assert set(table["task"]) == {"cnn_dm_transfer"}
    assert list(dict.fromkeys(table["method"])) == ["SFT", "DPO"]
    assert run(*study, runs=shared / "runs", out=shared / "second", judge="learned reward") == 0
    assert "that PPO and Best-of-N optimise" in json.loads((shared / "second" / "study.json").read_text())["caption"][1]
    assert set(read_verdicts(shared / "second" / "verdicts.csv")["judge"]) == {"learned reward"}


def test_against_a_policy_instead_of_the_references_and_what_everybody_says(shared):
    """DPO at temperature 0 against Preferred-FT at 0: the same prompts, its answers in the opponent's place."""
    grid, evaluator, out = {"dpo": [{"beta": 0.5}], "preferred_ft": [{}]}, WinRateEvaluator((0.0,)), shared / "against"
    opponent = {"opponent": ("preferred_ft", 0.0)}
    assert run("tldr_summarization", grid, evaluator, runs=shared / "runs", out=out, samples=2, plan=opponent) == 0
    about = json.loads((out / "study.json").read_text())
    assert about["label"] == "win rate against Preferred-FT, T = 0"
    assert list(rates_in(out)["method"]) == ["SFT", "DPO"]  # the opponent does not meet itself
    verdicts = read_verdicts(out / "verdicts.csv")
    theirs = samples_of(shared / "runs", plan_study(tiny("tldr_summarization"), grid, evaluator, **opponent).opponent)
    lengths = verdicts.groupby("prompt_id")["opponent_length"].first()
    expected = theirs.set_index("prompt_id")["text"].str.len()
    assert lengths.astype(int).to_dict() == expected.loc[lengths.index].to_dict()
    said = (out / "samples.md").read_text()
    assert said.count("## tldr_summarization-") == 2
    assert said.count("*DPO beta = 0.5, T = 0*") == 2


def test_methods_have_all_pairs_where_no_judge_is_fitted():
    own, other = (TextOptions(judge=judge).study("hh_dialogue") for judge in ("reward model", "openai:gpt-4o"))
    assert Specs(own).source(0).prompts.config["split"] == "methods"
    assert Specs(other).source(0).prompts.config["split"] == "all"
    assert other.train_size == own.train_size + own.judge_pairs


def test_dry_run_makes_nothing(tmp_path):
    places = ("--runs", tmp_path / "r", "--out", tmp_path / "o")
    ((code, shown, complaint),) = through_doors("run", [("run_tldr_temperature.py", *places, "--dry-run")])
    assert code == 0, complaint
    assert "PPO" in shown
    assert "GiB" in shown
    assert "questions at most" in shown
    assert not (tmp_path / "r").exists()
    assert not (tmp_path / "o").exists()


BAD = [
    (("run_hh_dialogue.py", "--temperatures", "0,x"), "--temperatures '0,x'"),
    (("run_hh_dialogue.py", "--methods", "dpoo"), "did you mean 'dpo'"),
    (("run_hh_dialogue.py", "--methods", "ppo_gt"), "needs gold_reward"),
    (("run_hh_dialogue.py", "--methods", "best_of_n_gt"), "needs gold_reward"),
    (("run_hh_dialogue.py", "--pairs", "/nowhere.jsonl"), "/nowhere.jsonl"),
    (("run_hh_dialogue.py", "--pairs", "hh.jsonl"), "hh.jsonl"),
    (("run_hh_dialogue.py", "--judge", "human:alice.csv"), "--write-answers"),
    (("run_hh_dialogue.py", "--judge", "gpt-4o"), "openai:MODEL"),
    (("run_hh_dialogue.py", "--template", "dialog"), "dialogue_helpfulness"),
    (("run_tldr_temperature.py", "--methods", "dpo,preferred_ft", "--opponent", "ppo@0"), "--opponent 'ppo'"),
    (("run_best_of_n.py", "--sizes", "0"), "--sizes '0'"),
    (("run_best_of_n.py", "--profile", "embedded"), "--task imdb_sentiment"),
]


@pytest.fixture(scope="module")
def refusals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    places = ("--runs", folder / "runs", "--out", folder / "out")
    results = through_doors("run", [(*command, *places) for command, _ in BAD])
    assert not list(folder.iterdir())
    return {command: result for (command, _), result in zip(BAD, results, strict=True)}


@pytest.mark.parametrize(("command", "words"), BAD)
def test_bad_input_is_one_line(command, words, refusals):
    code, _, complaint = refusals[command]
    assert code == 2
    assert words in complaint
    assert len(complaint.strip().splitlines()) == 1


def test_a_pair_of_parts_shares_no_prompt_in_the_plan():
    study = TextOptions().study("tldr_summarization")
    make = Specs(study)
    judged, learned = make.judge_model(0), make.source(0).prompts
    parts = [learned, judged.inputs["pairs"], make.held_out(["test"])["test"]]
    assert [spec.config["split"] for spec in parts] == ["methods", "judge", "test"]
    assert "methods" not in {spec.config.get("split") for spec in closure([judged.inputs["pairs"]])}
    _, prompted = make.policy("zero_shot", {}, 0)
    assert prompted.inputs == {"prompts": learned, "pairs": learned}  # asks the model before fine-tuning
    assert "sft" in make.policy("dpo", {}, 0)[1].inputs


def by_hand():
    """Two policies at one temperature; DPO wins on 3 of 4 prompts, the other on 1."""
    rows = [("DPO", s) for s in (1, 1, 1, 0)] + [("PPO", s) for s in (0, 0, 1, 0)]
    numbers = pd.DataFrame(rows, columns=["method", "value"]).assign(setting="", x=0.5, temperature=0.5, panel="temperature")
    return numbers.assign(prompt_id=[f"p{k % 4}" for k in range(8)], metric="win", split="test")


def test_differences_are_paired_and_of_the_other_less_dpo():
    (row,) = compare_curves(by_hand()).to_dict("records")
    assert row["policy"] == "PPO"
    assert row["difference"] == -0.5
    assert row["n"] == 4
    assert row["p"] == pytest.approx(0.182, abs=5e-4)  # paired t of -1, -1, 0, 0 by hand: t = -√3, 3 degrees of freedom
    assert row["verdict"] == "not resolved"
    assert compare_curves(by_hand().query("method == 'PPO'")).empty


def test_the_page_is_made_from_tables_alone(again, shared, tmp_path):
    results = read_results(shared / "hh")
    comparison = compare_curves(results.measurements)
    text = page("x", curves.sections_of(results, comparison))
    assert text.count("##") >= 5
    table = wide(results.records, "test")
    shown = curves.points_table(
        table[table["panel"] == "temperature"], "temperature", "win_rate",
        {"DPO": {"0": "0.61", "0.5": "0.6"}, "PPO": {"2": "0.5"}},
    )  # fmt: skip
    first, *_, last = ([cell.strip() for cell in line.strip("|").split("|")] for line in shown.strip().splitlines())
    assert first == ["policy", "T = 0", "T = 1"]
    assert last == ["*DPO, the paper*", "0.61", "–"]
    assert "## Beside the paper's protocol" in text
    assert [path.name for path in curves.draw(results, tmp_path)] == ["curves.svg"]


@pytest.mark.parametrize("profile", ["smoke", "local", "rehearsal", "paper"])
def test_the_reproduction_names_scripts_and_options_that_exist(profile, tmp_path):
    sources = ("--hh", "a", "--tldr-pairs", "b", "--tldr-answers", "c", "--news", "d", "--max-cost", "3", "--lora-rank", "0")
    command = ("reproduce_paper.py", "--profile", profile, "--out", tmp_path, *sources)
    ((code, printed, _, started),) = through_doors("start", [command])
    assert code == 0
    assert len(started) == (8 if profile == "local" else 11)
    left_out = [line for line in printed.splitlines() if "left out: " in line]
    assert all("PPO" in line for line in left_out)
    assert len({words[words.index("--out") + 1] for words in started}) == len(started)
    scripts = [Path(words[1]).name for words in started]
    assert all((EXPERIMENTS / script).exists() for script in scripts)
    parsed = through_doors("parse", [(script, *words[2:]) for script, words in zip(scripts, started, strict=True)])
    assert [code for code, *_ in parsed] == [0] * len(started), parsed
    for part in ("Fig. 2 left", "Fig. 2 right", "Fig. 3", "Fig. 4", "Table 1", "Table 2", "Table 3"):
        assert part in printed


def test_without_data_the_local_reproduction_says_what_it_leaves_out(tmp_path):
    ((code, printed, _, started),) = through_doors("start", [("reproduce_paper.py", "--profile", "local", "--out", tmp_path)])
    assert code == 0
    assert [Path(words[1]).name for words in started] == ["run_imdb_frontier.py", "run_temperature.py", "run_best_of_n.py"]
    reasons = [line.partition("left out: ")[2].strip() for line in printed.splitlines() if "left out: " in line]
    ppo = "profile local trains no PPO, which it compares with"
    assert set(reasons) == {"no --hh", "no --tldr-pairs", "no --tldr-pairs and --news", ppo}
    assert len(started) + len(reasons) == 11


def test_the_local_model_is_asked_for_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install"):
        local_model(tmp_path)


class Listener:
    """A judge that calls everything a tie and keeps what it was asked."""

    def __init__(self, name):
        self.name, self.identity, self.heard = name, {}, []

    def answer(self, questions, on_answer, on_start):
        for question in questions:
            if on_start(question):
                self.heard += [] if question.swapped else [question.comparison]
                on_answer(question, Answer("tie", "tie"))


@pytest.mark.slow
def test_adapters_and_answers_from_another_file(tmp_path):
    rows = list(ROWS["tldr_summarization"]())
    files = {
        "pairs.jsonl": rows,
        "answers.jsonl": [
            {"prompt": row["prompt"] + "\nTL;DR:", "label": row["chosen"] + " " + "and so on " * 9} for row in rows
        ],
    }
    for name, lines in files.items():
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    sources = {"pairs": tmp_path / "pairs.jsonl", "answers": tmp_path / "answers.jsonl"}
    runs = tmp_path / "runs"
    grid, given = {"dpo": [{"beta": 0.5}], "zero_shot": [{}]}, {name: str(path) for name, path in sources.items()}
    places = {"runs": runs, "out": tmp_path / "out"}
    assert run("tldr_summarization", grid, WinRateEvaluator((0.0,)), **given, **places, lora_rank=4) == 0
    specs = {path.parent: json.loads(path.read_text()) for path in runs.glob("*/*/spec.json")}
    (trained,) = (folder for folder, spec in specs.items() if spec["config"].get("method", "").endswith(":DPO"))
    (adapters,) = trained.glob("snapshots/*/adapter_config.json")
    base = Path(json.loads(adapters.read_text())["base_model_name_or_path"])
    assert base.is_absolute()
    assert "sft" in base.parts
    (tuned,) = (runs / "sft").glob("*")
    assert tuned.name in base.parts
    parts = {}
    for folder in (runs / "data").glob("*"):
        split = specs[folder]["config"]["split"]
        parts.setdefault(split, []).append(set(pd.read_parquet(folder / "prompts.parquet")["prompt_id"]))
    assert {part: len(found) for part, found in parts.items()} == {"methods": 2, "judge": 1, "test": 1}
    assert not parts["test"][0] & (parts["judge"][0] | parts["methods"][0] | parts["methods"][1])
    assert not parts["judge"][0] & (parts["methods"][0] | parts["methods"][1])
    study = tiny("tldr_summarization", **given)
    plan = plan_study(study, {}, WinRateEvaluator((0.0,)), reference=reference_of(study))
    (point,) = plan.points
    assert point.contender == Contender("SFT", "(reference)")
    table = samples_of(runs, point).assign(point=0, label=point.name)
    assert table["answer"].str.endswith("and so on").all()
    heard = []
    for name in ("local:people", "reward model"):
        judge = Listener(name)
        store = VerdictStore(tmp_path / f"{name}.sqlite")
        plan.evaluator.measure(table, Context(judge=judge, store=store))
        heard.append(sorted(judge.heard, key=lambda comparison: comparison.id))
    for people, policies in zip(*heard, strict=True):
        assert people.id == policies.id
        assert people.opponent.endswith("and so on")  # whole
        assert not policies.opponent.endswith("and so on")  # cut as the policies' are, with the blank that training saw
        assert policies.opponent.startswith(" ")
        assert policies.prompt.endswith("\nTL;DR:")
        assert people.prompt.startswith("TITLE")
        assert people.policy == policies.policy.strip()


def test_a_difference_that_never_varies():
    assert p_value(pd.Series([0.0] * 5)) == 1
    assert p_value(pd.Series([1.0] * 5)) == 2**-4  # five equal signs
