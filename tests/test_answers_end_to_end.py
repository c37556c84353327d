"""The win-rate experiments from data to page, small; the plan of the whole reproduction."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tyro

sys.path.insert(0, str(Path(__file__).parent.parent / "experiments"))
import answers
import reproduce_paper
import run_best_of_n
import run_cnn_dm_transfer
import run_hh_dialogue
import run_tldr_temperature
import text_profiles

from suite.data.invented import ROWS
from suite.errors import UserError
from suite.figures import win_rates
from suite.figures.win_rates_page import differences, p_value, page, rates
from suite.judges.outputs import join, read_answers, read_verdicts
from suite.runs.answer_study import Answerer, AnswerRuns
from suite.runs.judged import answer_table, comparisons
from suite.runs.sweep import closure

EXPERIMENTS = Path(reproduce_paper.__file__).parent


def tiny(task, arguments):
    """The smoke study, a few pairs of it."""
    study = real_study_of(task, arguments)
    optim = replace(study.optim, num_snapshots=1, warmup_steps=1)
    return replace(
        study, train_pairs=16, judge_pairs=16, test_prompts=6, max_new_tokens=24, optim=optim, sft=optim, reward_model=optim
    )


real_study_of = text_profiles.study_of


def run(monkeypatch, module, *arguments):
    monkeypatch.setattr(module, "study_of", tiny)
    monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *map(str, arguments)])
    return module.main()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("answers")


def test_dialogue_from_data_to_page(shared, monkeypatch, capsys):
    options = ("--runs", shared / "runs", "--out", shared / "hh", "--methods", "few_shot,dpo,best_of_n",
               "--temperatures", "0,1", "--training-temperatures", "1")  # fmt: skip
    assert run(monkeypatch, run_hh_dialogue, *options, "--write-answers", shared / "jsonl") == 0
    table = pd.read_csv(shared / "hh" / "win_rates.csv", keep_default_na=False)
    points = set(zip(table["panel"], table["method"], table["temperature"], strict=True))
    assert ("temperature", "Best-of-N", 1.0) in points
    assert ("temperature", "Best-of-N", 0.0) not in points
    assert {("temperature", m, t) for m in ("Preferred-FT", "Few-shot", "DPO") for t in (0.0, 1.0)} <= points
    assert list(table[table["panel"] == "training"]["x"]) == [0.0, 1.0]
    assert (table["n_asked"] == 2 * table["n"]).all()
    assert (table["win_rate_low"] <= table["win_rate"]).all()
    assert (table["win_rate"] <= table["win_rate_high"]).all()
    at_end = table[(table["method"] == "DPO") & (table["temperature"] == 1)]
    assert at_end[at_end["x"] == 1]["win_rate"].nunique() == 1  # one point of both panels, drawn once
    numbers = pd.read_parquet(shared / "hh" / "per_prompt.parquet")
    assert set(numbers["score"]) <= {0.0, 0.5, 1.0}
    assert np.isclose(numbers.groupby(["panel", "method", "setting", "x", "temperature"])["score"].mean().sum(),
                      table["win_rate"].sum())  # fmt: skip
    summary = (shared / "hh" / "summary.md").read_text()
    assert "Made-up texts" in summary
    assert "## The paper's numbers" in summary
    assert (shared / "hh" / "win_rates.svg").exists()
    read_verdicts(shared / "hh" / "verdicts.csv")
    texts = [text for path in (shared / "runs" / "answers").glob("*/completions.parquet")
             for text in pd.read_parquet(path)["text"] if len(text) > 20]  # fmt: skip
    for path in (shared / "hh").iterdir():
        content = path.read_bytes()
        assert not any(text.encode() in content for text in texts), path
    capsys.readouterr()
    assert run(monkeypatch, run_hh_dialogue, *options) == 0
    assert "to run" not in capsys.readouterr().out
    assert pd.read_csv(shared / "hh" / "win_rates.csv", keep_default_na=False).equals(table)


def test_answers_are_written_for_other_judges(shared):
    files = {path.name: path for path in (shared / "jsonl").iterdir()}
    assert "hh_dialogue_reference.jsonl" in files
    policy = next(path for name, path in files.items() if "DPO" in name and name.endswith("T---1.jsonl"))
    compared = join(read_answers(str(policy)), read_answers(str(files["hh_dialogue_reference.jsonl"])))
    assert len(compared) == 6
    assert all(comparison.prompt and comparison.opponent for comparison in compared)


def test_best_of_n_keeps_the_best_of_the_first_n(shared, monkeypatch):
    assert run(monkeypatch, run_best_of_n, "--runs", shared / "runs", "--out", shared / "bon", "--sizes", "1,3") == 0
    study = tiny("hh_dialogue", answers.Common())
    make = AnswerRuns(study)
    runs = make.answers(Answerer("Best-of-N", "n = 3", n=3), 1.0, make.test_prompts(), samples=3)
    drawn = pd.read_parquet(runs.run.directory(shared / "runs") / "completions.parquet")
    scores = pd.read_parquet(runs.scores.directory(shared / "runs") / "scores.parquet")
    both = drawn.merge(scores, on=["prompt_id", "sample"]).set_index("prompt_id")
    for n in (1, 2, 3):
        kept = answer_table(shared / "runs", replace(runs, answerer=Answerer("Best-of-N", f"n = {n}", n=n)))
        if n == 1:
            assert (kept["sample"] == 0).all()
        for row in kept.itertuples():
            among = both.loc[row.prompt_id]
            assert row.score == among[among["sample"] < n]["score"].max()


def test_transfer_and_a_second_judge(shared, monkeypatch):
    options = ("--runs", shared / "runs", "--methods", "dpo")
    assert run(monkeypatch, run_cnn_dm_transfer, *options, "--out", shared / "news", "--temperatures", "0") == 0
    table = pd.read_csv(shared / "news" / "win_rates.csv", keep_default_na=False)
    assert set(table["task"]) == {"cnn_dm_transfer"}
    assert list(table["method"]) == ["SFT", "DPO"]
    learned = ("--judge", "learned reward", "--out", shared / "second", "--temperatures", "0")
    assert run(monkeypatch, run_tldr_temperature, *options, *learned) == 0
    assert "that PPO and Best-of-N optimise" in json.loads((shared / "second" / "about.json").read_text())["caption"][1]
    assert set(read_verdicts(shared / "second" / "verdicts.csv")["judge"]) == {"learned reward"}


def test_against_a_policy_instead_of_the_references_and_what_everybody_says(shared, monkeypatch):
    """DPO at temperature 0 against the reference policy at 0: the same prompts, its answers in the opponent's place."""
    options = ("--runs", shared / "runs", "--methods", "dpo,preferred_ft", "--temperatures", "0", "--samples", "2")
    out = shared / "against"
    assert run(monkeypatch, run_tldr_temperature, *options, "--opponent", "preferred_ft@0", "--out", out) == 0
    about = json.loads((out / "about.json").read_text())
    assert about["against"] == "Preferred-FT, T = 0"
    table = pd.read_csv(out / "win_rates.csv", keep_default_na=False)
    assert list(table["method"]) == ["SFT", "DPO"]  # the opponent does not meet itself
    verdicts = read_verdicts(out / "verdicts.csv")
    make = AnswerRuns(tiny("tldr_summarization", answers.Common()))
    theirs = answer_table(shared / "runs", make.answers(make.train("preferred_ft", {}, 0), 0.0, make.test_prompts()))
    lengths = verdicts.groupby("prompt_id")["opponent_length"].first()
    expected = theirs.set_index("prompt_id")["text"].str.len()
    assert lengths.astype(int).to_dict() == expected.loc[lengths.index].to_dict()
    page = (out / "samples.md").read_text()
    assert page.count("## ") == 2
    assert page.count("*DPO beta = 0.5, T = 0*") == 2
    assert run(monkeypatch, run_tldr_temperature, *options, "--opponent", "ppo@0", "--out", out) == 2


def test_methods_have_all_pairs_where_no_judge_is_fitted():
    own, other = (
        AnswerRuns(real_study_of("hh_dialogue", answers.Common(judge=judge))) for judge in ("reward model", "openai:gpt-4o")
    )
    assert own.methods_texts.config["part"] == "methods"
    assert other.methods_texts.config["part"] == "all"
    assert other.study.train_pairs == own.study.train_pairs + own.study.judge_pairs


def test_dry_run_makes_nothing(tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, run_tldr_temperature, "--runs", tmp_path / "r", "--out", tmp_path / "o", "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "PPO" in shown
    assert "GiB" in shown
    assert "questions at most" in shown
    assert not (tmp_path / "r").exists()
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("module", "arguments", "words"),
    [
        (run_hh_dialogue, ("--temperatures", "0,x"), "--temperatures '0,x'"),
        (run_hh_dialogue, ("--methods", "dpoo"), "did you mean 'dpo'"),
        (run_hh_dialogue, ("--methods", "ppo_gt"), "needs gold_reward"),
        (run_hh_dialogue, ("--methods", "best_of_n_gt"), "needs gold_reward"),
        (run_hh_dialogue, ("--pairs", "/nowhere.jsonl"), "/nowhere.jsonl"),
        (run_hh_dialogue, ("--pairs", "hh.jsonl"), "hh.jsonl"),
        (run_hh_dialogue, ("--judge", "human:alice.csv"), "--write-answers"),
        (run_hh_dialogue, ("--judge", "gpt-4o"), "openai:MODEL"),
        (run_hh_dialogue, ("--template", "dialog"), "dialogue_helpfulness"),
        (run_best_of_n, ("--sizes", "0"), "--sizes '0'"),
        (run_best_of_n, ("--profile", "embedded"), "--task imdb_sentiment"),
    ],
)
def test_bad_input_is_one_line(module, arguments, words, tmp_path, monkeypatch, capsys):
    code = run(monkeypatch, module, *arguments, "--runs", tmp_path / "runs", "--out", tmp_path / "out")
    captured = capsys.readouterr()
    assert code == 2
    assert words in captured.err
    assert len(captured.err.strip().splitlines()) == 1


def test_a_pair_of_parts_shares_no_prompt_in_the_plan(shared):
    make = AnswerRuns(tiny("tldr_summarization", answers.Common()))
    parts = [make.methods_texts, make.reward_model(judge=True).inputs["pairs"], make.test_prompts()]
    assert [spec.config["part"] for spec in parts] == ["methods", "judge", "test"]
    judged = make.reward_model(judge=True)
    assert "methods" not in {spec.config.get("part") for spec in closure([judged.inputs["pairs"]])}
    assert make.train("zero_shot", {}, 0).run.inputs.keys() == {"texts"}  # asks the model before fine-tuning
    assert "sft" in make.train("dpo", {}, 0).run.inputs


def by_hand():
    """Two policies at one temperature; DPO wins on 3 of 4 prompts, the other on 1."""
    rows = [("DPO", s) for s in (1, 1, 1, 0)] + [("PPO", s) for s in (0, 0, 1, 0)]
    numbers = pd.DataFrame(rows, columns=["method", "score"]).assign(setting="", x=0.5, temperature=0.5, panel="temperature")
    return numbers.assign(prompt_id=[f"p{k % 4}" for k in range(8)])


def test_differences_are_paired_and_of_the_other_less_dpo():
    (row,) = differences(by_hand()).to_dict("records")
    assert row["policy"] == "PPO"
    assert row["win rate minus DPO's"].startswith("-0.500")
    assert row["n"] == 4
    assert row["p, corrected"] == "0.182"  # paired t of -1, -1, 0, 0 by hand: t = -√3, 3 degrees of freedom
    assert row[""] == "statistically tied"
    assert differences(by_hand().query("method == 'PPO'")).empty


def test_the_page_is_made_from_tables_alone(shared, tmp_path):
    table = pd.read_csv(shared / "hh" / "win_rates.csv", keep_default_na=False, na_values=[""]).fillna({"setting": ""})
    numbers = pd.read_parquet(shared / "hh" / "per_prompt.parquet")
    about = json.loads((shared / "hh" / "about.json").read_text())
    text = page(table, numbers, about, command="x", day="today", paper="p")
    assert text.count("##") >= 5
    shown = rates(
        table[table["panel"] == "temperature"], "temperature", {"DPO": {"0": "0.61", "0.5": "0.6"}, "PPO": {"2": "0.5"}}
    )
    assert list(shown.columns) == ["policy", "T = 0", "T = 1"]
    assert shown.iloc[-1].tolist() == ["*DPO, the paper*", "0.61", "–"]
    assert "## Beside the paper's protocol" in text
    assert [path.name for path in win_rates.draw_all(shared / "hh", tmp_path)] == ["win_rates.png", "win_rates.svg"]


def test_the_reproduction_names_scripts_and_options_that_exist(monkeypatch):
    modules = {"run_hh_dialogue.py": run_hh_dialogue, "run_tldr_temperature.py": run_tldr_temperature,
               "run_cnn_dm_transfer.py": run_cnn_dm_transfer, "run_best_of_n.py": run_best_of_n}  # fmt: skip
    sources = {"hh": "a", "tldr_pairs": "b", "tldr_answers": "c", "news": "d", "max_cost": 3.0, "lora_rank": 0}
    for profile in ("smoke", "local", "paper"):
        planned, left_out = reproduce_paper.jobs(reproduce_paper.Arguments(profile=profile, **sources), Path("out"))
        assert len(planned) == (8 if profile == "local" else 11)
        assert all("PPO" in why for _, _, why in left_out)
        assert len({job.folder for job in planned}) == len(planned)
        for job in planned:
            assert (EXPERIMENTS / job.script).exists()
            if job.script in modules:
                tyro.cli(modules[job.script].Arguments, args=list(job.options))
    shown = " ".join(job.shows for job in planned)
    for part in ("Fig. 2 left", "Fig. 2 right", "Fig. 3", "Fig. 4", "Table 1", "Table 2", "Table 3"):
        assert part in shown


def test_without_data_the_local_reproduction_says_what_it_leaves_out():
    planned, left_out = reproduce_paper.jobs(reproduce_paper.Arguments(profile="local"), Path("out"))
    assert [job.script for job in planned] == ["run_imdb_frontier.py", "run_temperature.py", "run_best_of_n.py"]
    reasons = {reason for _, _, reason in left_out}
    ppo = "profile local trains no PPO, which it compares with"
    assert reasons == {"no --hh", "no --tldr-pairs", "no --tldr-pairs and --news", ppo}
    assert len(planned) + len(left_out) == 11


def test_the_local_model_is_asked_for_where_it_is_missing(tmp_path, monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install"):
        text_profiles.local_model(tmp_path)


def test_adapters_and_answers_from_another_file(tmp_path, monkeypatch):
    rows = list(ROWS["tldr_summarization"]())
    files = {
        "pairs.jsonl": rows,
        "answers.jsonl": [
            {"prompt": row["prompt"] + "\nTL;DR:", "label": row["chosen"] + " " + "and so on " * 9} for row in rows
        ],
    }
    for name, lines in files.items():
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    sources = ("--pairs", tmp_path / "pairs.jsonl", "--answers", tmp_path / "answers.jsonl")
    options = ("--runs", tmp_path / "runs", "--out", tmp_path / "out", "--methods", "dpo,zero_shot", "--temperatures", "0")
    assert run(monkeypatch, run_tldr_temperature, *sources, *options, "--lora-rank", "4") == 0
    (trained,) = (tmp_path / "runs" / "train").glob("*")
    (adapters,) = trained.glob("snapshots/*/adapter_config.json")
    base = Path(json.loads(adapters.read_text())["base_model_name_or_path"])
    assert base.is_absolute()
    assert "sft_on_answers" in base.parts
    assert len(list((tmp_path / "runs" / "sft_on_answers").glob("*"))) == 1
    parts = {}
    for folder in (tmp_path / "runs" / "texts").glob("*"):
        config = json.loads((folder / "spec.json").read_text())["config"]
        parts.setdefault(config["part"], []).append(set(pd.read_parquet(folder / "prompts.parquet")["prompt_id"]))
    assert {part: len(found) for part, found in parts.items()} == {"methods": 2, "judge": 1, "test": 1}
    assert not parts["test"][0] & (parts["judge"][0] | parts["methods"][0] | parts["methods"][1])
    assert not parts["judge"][0] & (parts["methods"][0] | parts["methods"][1])
    study = replace(tiny("tldr_summarization", answers.Common()), pairs=str(sources[1]), answers=str(sources[3]))
    make = AnswerRuns(study)
    table = answer_table(tmp_path / "runs", make.answers(make.reference, 0.0, make.test_prompts()))
    assert table["answer"].str.endswith("and so on").all()
    for people, policies in zip(
        comparisons(table, as_policies_see=False), comparisons(table, as_policies_see=True), strict=True
    ):
        assert people.opponent.endswith("and so on")  # whole
        assert not policies.opponent.endswith("and so on")  # cut as the policies' are, with the blank that training saw
        assert policies.opponent.startswith(" ")
        assert policies.prompt.endswith("\nTL;DR:")
        assert people.prompt.startswith("TITLE")
        assert people.policy == policies.policy.strip()


def test_a_difference_that_never_varies():
    assert p_value(pd.Series([0.0] * 5)) == 1
    assert p_value(pd.Series([1.0] * 5)) == 2**-4  # five equal signs
