"""`suite gatt` on made-up dialogues and the embedded model: from rows to a page, what was learned from, nothing made twice."""

import json

import numpy as np
import pandas as pd
import pytest

from suite.cli.main import COMMANDS, run
from suite.data.instructions import Instruction
from suite.data.parquet import completions_from_table, read_prompts
from suite.engine.making import closure
from suite.policies.causal_lm import CausalLMPolicy
from suite.study.ghost_attention import GATT, GIVEN, PLAIN, plan_ghost_attention
from suite.study.profiles import EMBEDDED
from suite.study.stages.ghost_attention import LENGTHS
from suite.study.stages.inputs import snapshots
from suite.tasks.ghost_attention import Conversation, converse

WORDS = ("invented", "--turns", "2", "--dialogues", "6", "--test-dialogues", "3", "--seeds", "4", "--epochs", "2")
MORE = ("--max-new-tokens", "6", "--attention-dialogues", "2", "--workers", "1", "--device", "cpu", "--precision", "float32")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("gatt")


@pytest.fixture(scope="module")
def words(place):
    file = place / "own.jsonl"
    rows = [
        {"instruction": "Name the film.", "check": "contains", "value": "film"},
        {"instruction": "Five words at most.", "check": "at_most_words", "value": 5},
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    folders = ("--runs", str(place / "runs"), "--out", str(place / "out"), "--write-dialogues", str(place / "dialogues.jsonl"))
    return [*WORDS, *MORE, "--instructions", str(file), "--lr", "1e-3", *folders]


@pytest.fixture(scope="module")
def plan(words):
    """The plan of the command, carried out."""
    import tyro

    from suite.cli.gatt import GattOptions

    assert run(COMMANDS, "suite", "", ["gatt", *words]) == 0
    options = tyro.cli(GattOptions, args=words)
    return plan_ghost_attention(options.settings())


def folder(plan, place, kind, *key):
    return getattr(plan, kind)[key[0] if len(key) == 1 else key].directory(place / "runs")


def test_the_page_and_its_tables_are_there_and_hold_no_texts(plan, place):
    names = {path.name for path in (place / "out").iterdir()}
    assert names == {"attention.svg", "consistency.csv", "consistency.svg", "consistency_by_turn.csv", "summary.md"}
    table = pd.read_csv(place / "out" / "consistency.csv")
    test = table[table["part"] == "test"]
    assert len(test) == 3 * 3 * 2  # policies, dialogues, turns
    assert test["attention"].notna().sum() == 3 * 2 * 2
    assert (test["attention"].dropna().between(0, 1)).all()
    answers = pd.read_parquet(folder(plan, place, "consistency", GATT, 4) / "answers.parquet")
    written = "".join((place / "out" / name).read_text() for name in names)
    for text in [*answers["user"], *answers["answer"]]:
        assert len(text) < 12 or text not in written


@pytest.mark.parametrize("table", ["answers", "unasked"])
def test_what_is_kept_is_what_the_check_says(plan, place, table):
    known = (Instruction("", "contains", "film"), Instruction("", "at_most_words", 5))
    said = pd.read_parquet(plan.user_turns.directory(place / "runs") / "user_turns.parquet").set_index("dialogue_id")[
        "instruction"
    ]
    for (policy, seed), spec in plan.consistency.items():
        rows = pd.read_parquet(spec.directory(place / "runs") / f"{table}.parquet")
        checked = [known[said[row.dialogue_id]].kept(row.answer, cut=row.cut) for row in rows.itertuples()]
        assert checked == list(rows["kept"])
        assert len(rows) == 3 * 2
        assert (policy, seed) in {(GIVEN, 4), (PLAIN, 4), (GATT, 4)}


def test_the_same_dialogues_are_answered_without_the_instruction(plan, place):
    made = folder(plan, place, "consistency", GIVEN, 4)
    asked, unasked = (pd.read_parquet(made / f"{name}.parquet") for name in ("answers", "unasked"))
    assert asked[["dialogue_id", "turn", "user"]].equals(unasked[["dialogue_id", "turn", "user"]])
    talks = [
        Conversation(str(name), Instruction("Unsaid.", "contains", "film"), tuple(rows["user"]))
        for name, rows in unasked.groupby("dialogue_id", sort=False)
    ]
    limits = {name: plan.consistency[GIVEN, 4].config[name] for name in LENGTHS}
    drawn, _ = converse(CausalLMPolicy.load(EMBEDDED), talks, "none", **limits)
    assert [answer for talk in drawn for answer in talk.answers] == list(unasked["answer"])
    assert list(asked["answer"]) != list(unasked["answer"])
    table = pd.read_csv(place / "out" / "consistency.csv")
    ours = table[(table["part"] == "test") & (table["policy"] == GIVEN)]
    assert list(ours["unasked"]) == list(unasked["kept"].astype(int))
    assert table[table["part"] == "train"]["unasked"].isna().all()


@pytest.mark.parametrize("placement", ["every", "first"])
def test_both_learn_the_last_answers_of_the_same_dialogues_after_the_instruction_in_the_first_turn(plan, place, placement):
    made = folder(plan, place, "dialogues", 4)
    prompts = read_prompts(made / f"prompts_{placement}.parquet")
    texts = completions_from_table(pd.read_parquet(made / f"texts_{placement}.parquet"), prompts)
    rows = pd.read_parquet(made / f"dialogues_{placement}.parquet").groupby("dialogue_id", sort=False)
    other = pd.read_parquet(made / "dialogues_first.parquet")["dialogue_id"].unique()
    assert [name for name, _ in rows] == list(other)
    for text, (name, of_dialogue) in zip(texts, rows, strict=True):
        first, last = of_dialogue.itertuples(index=False)
        before, _, end = text.prompt.text.partition(f"\n\n{first.user}\n\nAssistant: ")
        assert before in ("\n\nHuman: Name the film.", "\n\nHuman: Five words at most.")
        assert end == f"{first.answer}\n\nHuman: {last.user}\n\nAssistant:"
        assert last.answer
        assert text.text.strip() == last.answer
        assert text.prompt.id == f"{name}-turn2"


def test_the_instruction_stood_where_the_placement_says_when_answers_were_drawn(plan, place):
    made = folder(plan, place, "dialogues", 4)
    every, first = (pd.read_parquet(made / f"dialogues_{placement}.parquet") for placement in ("every", "first"))
    of_turn = [
        (every[every["turn"] == turn]["answer"].to_numpy(), first[first["turn"] == turn]["answer"].to_numpy())
        for turn in (1, 2)
    ]  # fmt: skip
    assert list(of_turn[0][0]) == list(of_turn[0][1])  # the same prompt and the same random numbers
    assert list(of_turn[1][0]) != list(of_turn[1][1])


def test_two_policies_are_trained_from_the_given_model_and_differ(plan, place):
    weights = {GIVEN: CausalLMPolicy.load(EMBEDDED)}
    weights |= {name: CausalLMPolicy.load(snapshots(folder(plan, place, "policies", name, 4))[-1]) for name in (PLAIN, GATT)}
    found = {name: np.concatenate([p.detach().numpy().ravel() for p in w.model.parameters()]) for name, w in weights.items()}
    assert len({values.tobytes() for values in found.values()}) == 3


def test_dialogues_are_written_as_they_are_learned(plan, place):
    lines = [json.loads(line) for line in (place / "dialogues.jsonl").read_text().splitlines()]
    assert {line["policy"]: line["sampled_with"] for line in lines} == {PLAIN: "first", GATT: "every"}
    for line in lines:
        assert [message["role"] for message in line["messages"]] == ["user", "assistant"] * 2
        assert line["messages"][0]["content"].startswith(f"{line['instruction']}\n\n")
        assert line["instruction"] not in line["messages"][2]["content"]
        assert len(line["kept"]) == len(line["cut"]) == 2


def test_a_second_start_makes_nothing_anew(plan, words, place, capsys):
    done = {spec.key: (spec.directory(place / "runs") / "DONE").stat().st_mtime_ns for spec in closure(plan.targets)}
    assert run(COMMANDS, "suite", "", ["gatt", *words]) == 0
    assert "7 cached" in capsys.readouterr().out
    assert done == {spec.key: (spec.directory(place / "runs") / "DONE").stat().st_mtime_ns for spec in closure(plan.targets)}
