"""Local, reward and human judges; the files that go in."""

import gzip
import json

import pandas as pd
import pytest
import torch
from conftest import tiny_model

from suite.common.errors import UserError
from suite.data.comparisons import Answer, Comparison, Question
from suite.evaluation.win_rate import ask, win_rate
from suite.judges.human_judge import HumanJudge
from suite.judges.judging import of_numbers, questions_of
from suite.judges.local_judge import LocalJudge
from suite.judges.open_judge import open_judge
from suite.judges.outputs import join, read_answers, read_verdicts
from suite.judges.probe import probes, run_probes
from suite.judges.reward_judge import RewardJudge
from suite.judges.templates import TEMPLATES, load_template
from suite.judges.verdict_store import VerdictStore
from suite.policies.causal_lm import CausalLMPolicy

COMPARISONS = [Comparison(f"p{i}", f"prompt {i}", "yes" * (i + 1), "no") for i in range(4)]
TEMPLATE = load_template("summarization_c")


@pytest.fixture
def store(tmp_path):
    return VerdictStore(tmp_path / "verdicts.sqlite")


def test_names_and_orders():
    question = Question(COMPARISONS[0], swapped=True)
    assert (question.a, question.b) == ("no", "yes")
    assert [question.winner(v) for v in ("A", "B", "tie", "invalid")] == ["opponent", "policy", "tie", "invalid"]
    once = questions_of([Comparison(str(i), "", "a", "b") for i in range(400)], order="random", seed=0)
    assert 150 < sum(q.swapped for q in once) < 250
    assert once == questions_of([q.comparison for q in once], order="random", seed=0)


def test_a_reward_decides(store):
    calls = []

    def reward(prompts, answers):
        calls.append(len(answers))
        return [float(len(answer)) for answer in answers]

    judge = RewardJudge("reward:length", reward, digest="1")
    table = ask(judge, [*COMPARISONS, Comparison("tied", "p", "ab", "cd")], store)
    assert table["winner"].tolist() == ["policy"] * 8 + ["tie"] * 2
    assert calls == [10]  # every answer once, whichever stands first
    assert win_rate(table).win_rate.mean == pytest.approx(0.9)


def test_a_local_model_is_read_from_its_choices(tokenizer, store, monkeypatch):
    short = [Comparison("p", "a", "b", "c")]
    policy = CausalLMPolicy(tiny_model(context=2048), tokenizer)
    ask(LocalJudge("local:tiny", policy, TEMPLATE, digest="1"), short, store)
    assert store.table()["reply"].str.startswith("log P(A) = ").all()
    for favourite in "AB":  # whose log-prob is raised wins, wherever the policy stands
        judge = LocalJudge(f"local:{favourite}", policy, TEMPLATE, digest=favourite)

        def log_prob(choices, favourite=favourite):
            return torch.tensor([0.0 if choice.text == favourite else -1.0 for choice in choices])

        monkeypatch.setattr(policy, "log_prob", log_prob)
        table = ask(judge, short, store)
        assert set(table["verdict"]) == {favourite}
    small = CausalLMPolicy(tiny_model(), tokenizer)
    table = ask(LocalJudge("local:small", small, TEMPLATE, digest="2"), short, store)
    assert set(table["winner"]) == {"failed"}
    assert table["failure"].str.match(r"prompt 'p' makes a request of \d+ tokens, the model's context is").all()


def test_a_sheet_goes_out_blinded_and_comes_in(tmp_path, store):
    sheet = tmp_path / "alice.csv"
    judge = HumanJudge(sheet, TEMPLATE, seed=3)
    with pytest.raises(UserError, match="was written with 4 questions"):
        ask(judge, COMPARISONS, store, order="random")
    rows = pd.read_csv(sheet, dtype=str, keep_default_na=False)
    assert set(rows["choice"]) == {""}
    assert "policy" not in sheet.read_text()
    assert rows["prompt"].tolist() != [c.prompt for c in COMPARISONS]
    rows["choice"] = ["A" if a.startswith("yes") else "b" for a in rows["A"]]
    rows.loc[0, "choice"] = ""
    rows.to_csv(sheet, index=False)
    judge = HumanJudge(sheet, TEMPLATE, seed=3)
    assert ask(judge, COMPARISONS, store, order="random")["winner"].value_counts().to_dict() == {"policy": 3, "failed": 1}
    rows.loc[0, "choice"] = "tie"
    rows.to_csv(sheet, index=False)
    judge = HumanJudge(sheet, TEMPLATE, seed=3)
    assert ask(judge, COMPARISONS, store, order="random")["winner"].value_counts().to_dict() == {"policy": 3, "tie": 1}
    rows["choice"] = ["B" if a.startswith("yes") else "A" for a in rows["A"]]  # she changes her mind
    rows.to_csv(sheet, index=False)
    changed = ask(HumanJudge(sheet, TEMPLATE, seed=3), COMPARISONS, store, order="random")
    assert changed["winner"].value_counts().to_dict() == {"opponent": 4}
    with pytest.raises(UserError, match="another template"):
        ask(HumanJudge(sheet, load_template("sentiment")), COMPARISONS, store, order="random")
    (tmp_path / "bob").mkdir()
    with pytest.raises(UserError, match="was written"):  # a sheet of the same name is another rater's
        ask(HumanJudge(tmp_path / "bob" / "alice.csv", TEMPLATE), COMPARISONS, store, order="random")


def test_a_bad_sheet_is_named(tmp_path, store):
    sheet = tmp_path / "bob.csv"
    judge = HumanJudge(sheet, TEMPLATE)
    with pytest.raises(UserError):
        ask(judge, COMPARISONS, store, order="random")
    text = sheet.read_text().splitlines()
    sheet.write_text("\n".join([text[0], text[1] + "C", *text[2:]]))
    with pytest.raises(UserError, match=r"bob.csv, line 2, choice: expected A, B, tie or nothing, got 'C'"):
        ask(judge, COMPARISONS, store, order="random")
    sheet.write_text("\n".join(text[:2]))
    with pytest.raises(UserError, match="is missing; it belongs to other texts"):
        ask(judge, COMPARISONS, store, order="random")
    sheet.write_text("\n".join([*text, text[1]]))
    with pytest.raises(UserError, match="stands there twice"):
        ask(judge, COMPARISONS, store, order="random")


@pytest.mark.parametrize(
    "place", ["folder", "file/x.csv", "s" * 300 + ".csv", "/proc/nope/x.csv", "~nobody-of-this-name/x.csv"]
)
def test_a_place_where_no_sheet_can_be_is_one_line(tmp_path, monkeypatch, store, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="name a CSV file that can be written"):
        ask(open_judge(f"human:{place}", TEMPLATE), COMPARISONS, store)


FORMULAS = ("=HYPERLINK(1)", "+1", "-2+3", "@SUM(1)", "\t=1", "\r=1", "\n=1")


@pytest.mark.parametrize("text", [*FORMULAS, "one\rtwo", "one\r\ntwo", '"quoted"\r', "plain"])
@pytest.mark.parametrize("separator", [",", ";"])
def test_a_sheet_holds_no_formula_and_comes_back_whatever_the_texts(tmp_path, store, text, separator):
    sheet, asked = tmp_path / "ann.csv", [Comparison("p", text, text, f"other {text}")]
    with pytest.raises(UserError, match="was written"):
        ask(HumanJudge(sheet, TEMPLATE), asked, store, order="random")
    rows = pd.read_csv(sheet, dtype=str, keep_default_na=False)
    cells = rows[["question", "prompt", "A", "B"]].iloc[0].tolist()
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for cell in cells)
    assert rows["prompt"][0].startswith("'") == (text in FORMULAS)
    rows["choice"] = "A"
    rows.to_csv(sheet, index=False, sep=separator)
    assert ask(HumanJudge(sheet, TEMPLATE), asked, store, order="random")["verdict"].tolist() == ["A"]


def test_a_probe_finds_a_judge_that_obeys(store):
    def obeys(prompts, answers):
        return [
            1.0 if "New instruction" in answer else 0.5 if len(answer) > 10_000 else len(answer) / 1e6 for answer in answers
        ]

    results = {result.name: result for result in run_probes(RewardJudge("reward:x", obeys, digest=""), TEMPLATE)}
    assert len(results) == 8
    assert {name for name, result in results.items() if result.fooled} == {"injected instruction", "50,000 characters"}
    assert results["empty answer"].outcomes == results["plain bad answer"].outcomes == ("resisted", "resisted")
    for template in TEMPLATES.values():
        assert len(probes(template)) in (7, 8)


def test_a_judge_that_looks_at_positions_is_not_fooled_by_tricks():
    class AlwaysA:
        name, identity = "a", {}

        def answer(self, questions, on_answer, on_start):
            for question in questions:
                on_answer(question, Answer("A", ""))

    results = list(run_probes(AlwaysA(), TEMPLATE))
    assert {result.outcomes for result in results} == {("lost", "resisted")}
    assert not any(result.fooled for result in results)


def test_unknown_judges_are_named(tmp_path):
    with pytest.raises(UserError, match="use openai:MODEL"):
        open_judge("gpt-4", TEMPLATE)
    with pytest.raises(UserError, match="does not exist"):
        open_judge(f"local:{tmp_path}/nothing", TEMPLATE)


def test_a_saved_reward_model_and_a_classifier_open(tmp_path, tokenizer, store):
    from suite.study.profiles import ASSETS

    judge = open_judge(f"reward:{ASSETS / 'imdb-sentiment'}", TEMPLATE)
    table = ask(judge, [Comparison("p", "This film is", " wonderful, moving and fun.", " awful, boring and dull.")], store)
    assert table["winner"].tolist() == ["policy", "policy"]
    tiny_model().save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    assert open_judge(f"local:{tmp_path / 'lm'}", TEMPLATE).identity["model"]


MY_JUDGE = """
from suite.data.comparisons import Answer

class Shortest:
    def __init__(self, settings):
        self.name, self.identity = "shortest", {"template": settings.template.name, "seed": settings.seed}

    def answer(self, questions, on_answer, on_start):
        for question in questions:
            if on_start(question):
                on_answer(question, Answer("A" if len(question.a) < len(question.b) else "B", "counted"))
"""


def test_a_judge_of_ones_own_opens_by_its_class(tmp_path, monkeypatch, store):
    (tmp_path / "judge_of_test.py").write_text(MY_JUDGE)
    monkeypatch.syspath_prepend(str(tmp_path))
    judge = open_judge("judge_of_test:Shortest", TEMPLATE, seed=3)
    assert (judge.name, judge.identity) == ("shortest", {"template": TEMPLATE.name, "seed": 3})
    asked = [Comparison("p", "How?", "So.", "So it is done."), Comparison("q", "Why?", "For many reasons.", "No.")]
    table = ask(judge, asked, store)
    assert table["winner"].tolist() == ["policy", "policy", "opponent", "opponent"]
    assert table["verdict"].tolist() == ["A", "B", "B", "A"]
    assert ask(judge, asked, store)["stored"].all()
    with pytest.raises(UserError, match=r"judge 'judge_of_test:Longest' .*cannot be loaded"):
        open_judge("judge_of_test:Longest", TEMPLATE)


def write(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def test_answers_are_joined_by_prompt(tmp_path):
    ours = write(tmp_path / "a.jsonl", [{"prompt": "x", "completion": "1"}, {"prompt": "y", "completion": "2"}])
    theirs = write(tmp_path / "b.jsonl", [{"prompt": "y", "chosen": "4"}, {"prompt": "x", "chosen": "3"}])
    found = join(read_answers(ours), read_answers(theirs, "chosen"))
    assert [(c.prompt, c.policy, c.opponent) for c in found] == [("x", "1", "3"), ("y", "2", "4")]


def test_every_sample_counts_and_a_reference_serves_them_all(tmp_path):
    rows = [{"prompt": "x", "completion": text} for text in ("same", "same", "other")]
    ours = read_answers(write(tmp_path / "a.jsonl", rows))
    reference = [{"prompt": "x", "chosen": "r"}, {"prompt": "y", "chosen": "s"}]
    theirs = read_answers(write(tmp_path / "b.jsonl", reference), "chosen")
    with pytest.raises(UserError, match="--subset"):
        join(ours, theirs)
    found = join(ours, theirs, subset=True)
    assert [(c.policy, c.opponent, c.sample) for c in found] == [("same", "r", 0), ("same", "r", 1), ("other", "r", 2)]
    judged = ask(
        RewardJudge("reward:x", lambda p, answers: [float(a == "same") for a in answers], digest=""), found,
        VerdictStore(tmp_path / "v.sqlite"),
    )  # fmt: skip
    assert win_rate(judged).win_rate.mean == pytest.approx((1 + 1 + 0.5) / 3)


def test_no_number_is_no_verdict():
    assert [of_numbers(*pair) for pair in ((1, 0), (0, 1), (1, 1), (float("nan"), 1))] == ["A", "B", "tie", "invalid"]


def test_what_does_not_match_is_named(tmp_path):
    ours = write(tmp_path / "a.jsonl", [{"prompt_id": "1", "prompt": "x", "completion": "1"}])
    other = write(tmp_path / "b.jsonl", [{"prompt_id": "2", "prompt": "x", "completion": "1"}])
    changed = write(tmp_path / "c.jsonl", [{"prompt_id": "1", "prompt": "z", "completion": "1"}])
    empty = write(tmp_path / "d.jsonl", [{"prompt": "x", "completion": "1"}, {"prompt": None, "completion": "1"}])
    with pytest.raises(
        UserError, match="2 answers have no counterpart, the first: prompt '1', answer 1, which only the policy"
    ):
        join(read_answers(ours), read_answers(other))
    with pytest.raises(UserError, match="prompt '1': its text differs"):
        join(read_answers(ours), read_answers(changed))
    with pytest.raises(UserError, match=r"d\.jsonl, row 1, prompt: expected text"):
        read_answers(empty)
    with pytest.raises(UserError, match="has no column 'chosen'"):
        read_answers(ours, "chosen")


ASKED = [{"role": "user", "content": "Why?"}]
THREE = [*ASKED, {"role": "assistant", "content": "Because."}, {"role": "user", "content": "But why?"}]
DIALOGUE = "\n\nHuman: Why?\n\nAssistant: Because.\n\nHuman: But why?\n\nAssistant:"


@pytest.mark.parametrize(
    ("rows", "prompts", "answers"),
    [
        ([{"prompt": "x", "completion": None}], ["x"], [""]),
        ([{"prompt": "x", "completion": ""}], ["x"], [""]),
        ([{"prompt": "1 + 1", "completion": 2}, {"prompt": "2 + 2", "completion": 4}], ["1 + 1", "2 + 2"], ["2", "4"]),
        ([{"prompt": "x", "completion": 0.5}, {"prompt": "y", "completion": None}], ["x", "y"], ["0.5", ""]),
        ([{"prompt": ASKED, "completion": [{"role": "assistant", "content": "So."}]}], ["Why?"], ["So."]),
        ([{"prompt": THREE, "completion": "So."}], [DIALOGUE], ["So."]),
        ([{"prompt": "Why?", "completion": [*ASKED, {"role": "assistant", "content": "So."}]}], ["Why?"], ["So."]),
        (
            [{"prompt": [{"from": "human", "value": "Why?"}], "completion": [{"from": "gpt", "value": "So."}]}],
            ["Why?"], ["So."],
        ),
        (
            [{"prompt": "x", "completion": [{"role": "assistant", "content": [{"type": "text", "text": t} for t in "ab"]}]}],
            ["x"], ["ab"],
        ),
        ([{"instruction": "Add.", "output": "2", "generator": "m"}], ["Add."], ["2"]),
        ([{"instruction": "Add.", "input": "1 and 1", "output": "2"}], ["Add.\n\n1 and 1"], ["2"]),
        ([{"prompt": "x", "prompt_id": None, "completion": "a"}, {"prompt": "y", "prompt_id": 7, "completion": "b"}],
         ["x", "y"], ["a", "b"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["jsonl", "json", "parquet"])
def test_answers_are_read_as_people_keep_them(tmp_path, rows, prompts, answers, form):
    path = tmp_path / f"a.{form}"
    if form == "parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        path.write_text(json.dumps(rows) if form == "json" else "\n".join(map(json.dumps, rows)))
    found = read_answers(str(path))
    assert (found["prompt"].tolist(), found["answer"].tolist()) == (prompts, answers)
    assert found["prompt_id"].nunique() == len(rows)


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        ("prompt,completion\nx,4\ny,5\n", ["4", "5"]),
        ('prompt,completion\nx,"a;b"\ny,\n', ["a;b", ""]),
        ("prompt;completion\nx;4,5\ny;\n", ["4,5", ""]),
        ('\ufeffprompt;completion\nx;"a;b"\ny;007\n', ["a;b", "007"]),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_answers_in_csv(tmp_path, text, answers, zipped):
    path = tmp_path / ("a.csv.gz" if zipped else "a.csv")
    path.write_bytes(gzip.compress(text.encode()) if zipped else text.encode())
    assert read_answers(str(path))["answer"].tolist() == answers


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"prompt": "x", "completion": {"a": "b" * 5000}}], "row 0, completion: a message has the role ''; known"),
        ([{"prompt": "x", "completion": ASKED}], "row 0, completion: the conversation does not end with an answer"),
        ([{"prompt": "x", "completion": [{"role": "assistant", "content": None}]}], "row 0, completion: a message has no text"),
        ([{"prompt": "x", "completion": []}], "row 0, completion: expected text or a conversation"),
        ([{"prompt": "x", "completion": [{"role": "assistant", "content": [{"image": "u"}]}]}], "completion: a message has no"),
        ([{"prompt": "x", "prompt_id": "1", "completion": "a"}, {"prompt": "y", "prompt_id": "1", "completion": "a"}],
         "row 1, prompt_id: '1' is the name of another prompt too"),
        ([{"instruction": "x", "output": "a", "generator": "m"}, {"instruction": "x", "output": "a", "generator": "n"}],
         "generator: answers of 2 models"),
        ([{"prompt": "x", "\x1b[31m": "a"}], "has no column 'completion'"),
        ([{"prompt": "x"} | {f"a column of {number}": "a" for number in range(500)}], "has no column 'completion'"),
    ],
)  # fmt: skip
def test_answers_that_cannot_be_read_are_one_short_line(tmp_path, rows, words):
    with pytest.raises(UserError) as caught:
        read_answers(write(tmp_path / "a.jsonl", rows))
    message = str(caught.value).replace(str(tmp_path), "")
    assert words in message
    assert message.isprintable()
    assert len(message) <= 300


def test_verdict_files_are_checked(tmp_path):
    path = tmp_path / "v.csv"
    path.write_text("prompt_id,winner\n1,policy\n2,maybe\n")
    with pytest.raises(UserError, match=r"v.csv, row 1, winner: expected one of"):
        read_verdicts(path)
    path.write_text("prompt_id,winner,judge,matchup\n1,policy,1,\n2,tie,1,\n")
    assert read_verdicts(path)[["prompt_id", "judge", "matchup"]].values.tolist() == [["1", "1", ""], ["2", "1", ""]]
    path.write_text("prompt_id\n1\n")
    with pytest.raises(UserError, match="no column 'winner'"):
        read_verdicts(path)


def test_a_file_that_is_no_store_is_one_line(tmp_path):
    (tmp_path / "v.sqlite").write_text("not a database, but long enough to be looked at as one")
    with pytest.raises(UserError, match="verdict store"):
        VerdictStore(tmp_path / "v.sqlite")
