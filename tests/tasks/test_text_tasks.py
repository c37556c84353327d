"""Rows of data sets → prompts and answers as tokens: no prompt in two parts, one EOS, nothing dropped silently."""

from pathlib import Path

import datasets
import pytest
from transformers import AutoTokenizer

from suite.common.errors import UserError
from suite.common.registry import load
from suite.study.profiles import ASSETS
from suite.tasks.cnn_dm_transfer import TASK as NEWS_TASK
from suite.tasks.hh_dialogue import TASK as DIALOGUE_TASK
from suite.tasks.hh_dialogue import messages_of
from suite.tasks.made_up import ROWS
from suite.tasks.splits import MADE_UP, parts_of, read_part, read_rows
from suite.tasks.text_format import Limits, TextExample, tokenise
from suite.tasks.tldr_summarization import TASK as SUMMARIES_TASK

NEWS, DIALOGUE, SUMMARIES = NEWS_TASK.form, DIALOGUE_TASK.form, SUMMARIES_TASK.form
HH = Path(__file__).parents[3] / "shared" / "data" / "hh" / "harmless-base-test.jsonl.gz"
LIMITS = Limits(max_prompt_tokens=110, max_new_tokens=40)
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(ASSETS / "imdb-gpt2")


@pytest.fixture
def chat_tokenizer():
    found = AutoTokenizer.from_pretrained(ASSETS / "imdb-gpt2")
    found.chat_template = TEMPLATE
    return found


TWO_TURNS = (("user", "Hi"), ("assistant", "Hello."), ("user", "Where is Rome?"))
BEFORE = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Where is Rome?\n\nAssistant:"


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": f"{BEFORE} In Italy.", "rejected": f"{BEFORE} No."},
        {"prompt": BEFORE, "chosen": " In Italy.", "rejected": " No."},
        {
            "prompt": [{"role": r, "content": c} for r, c in TWO_TURNS],
            "chosen": [{"role": "assistant", "content": "In Italy."}], "rejected": [{"role": "assistant", "content": "No."}],
        },
        {
            "chosen": [*({"role": r, "content": c} for r, c in TWO_TURNS), {"role": "assistant", "content": "In Italy."}],
            "rejected": [*({"role": r, "content": c} for r, c in TWO_TURNS), {"role": "assistant", "content": "No."}],
        },
    ],
)  # fmt: skip
def test_every_form_of_a_dialogue(row):
    example = DIALOGUE.example_of(row)
    assert example.messages == TWO_TURNS
    assert (example.chosen.strip(), example.rejected.strip()) == ("In Italy.", "No.")
    assert DIALOGUE.plain(example.messages) == BEFORE


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"chosen": BEFORE + " a", "rejected": BEFORE.replace("Rome", "Oslo") + " b"}, "differ before their last"),
        ({"chosen": "a"}, "missing"),
        ({"prompt": "\n\nHuman: a\n\nAssistant: b", "chosen": "c", "rejected": "d"}, "human is not the last"),
    ],
)
def test_a_malformed_dialogue_says_what_is_wrong(row, why):
    with pytest.raises(ValueError, match=why):
        DIALOGUE.example_of(row)


def test_text_without_speakers_is_the_users():
    assert messages_of("Where is Rome?") == (("user", "Where is Rome?"),)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "POST: My cat ran away.", "chosen": "TL;DR: Cat gone.", "rejected": "TL;DR: A pet."},
        {"prompt": "POST: My cat ran away.\nTL;DR:", "chosen": " Cat gone.", "rejected": " A pet."},
        {"prompt": "POST: My cat ran away.\nTL;DR:", "label": " Cat gone."},
        {"prompt": "POST: My cat ran away.", "completion": "TL;DR: Cat gone."},
    ],
)
def test_the_mark_of_a_summary_stands_once(row):
    example = SUMMARIES.example_of(row)
    assert example.messages == (("user", "POST: My cat ran away."),)
    assert example.chosen == "Cat gone."
    assert (example.rejected is None) == ("rejected" not in row)
    assert SUMMARIES.plain(example.messages) == "POST: My cat ran away.\nTL;DR:"


def test_news_and_rows_without_their_columns():
    assert NEWS.example_of({"article": " Rain. ", "highlights": "Wet."}) == TextExample((("user", "Rain."),), "Wet.")
    for task in (NEWS, SUMMARIES):
        with pytest.raises(ValueError, match="missing"):
            task.example_of({"text": "x"})


@pytest.mark.parametrize("name", list(ROWS))
def test_prompt_and_answer_are_joined_as_tokens_with_one_eos(name, tokenizer):
    task = load(name, "task").form
    for row in list(ROWS[name]())[:20]:
        made = tokenise(task, task.example_of(row), tokenizer, LIMITS)
        assert made.prompt.ids == tuple(tokenizer(made.prompt.text)["input_ids"])
        assert made.prompt.text == task.plain(task.example_of(row).messages)
        for answer in filter(None, (made.chosen, made.rejected)):
            assert answer.ids.count(tokenizer.eos_token_id) == 1
            assert answer.ids[-1] == tokenizer.eos_token_id
            assert tokenizer.decode(answer.ids[:-1]) == answer.text
            assert answer.text.startswith(" ")
        assert task.shown(task.example_of(row).messages) in made.shown


def test_a_long_answer_is_cut_and_has_no_eos(tokenizer):
    example = SUMMARIES.example_of(next(iter(ROWS["tldr_summarization"]())))
    made = tokenise(SUMMARIES, example, tokenizer, Limits(110, 5))
    assert len(made.chosen.ids) == 5
    assert made.chosen.truncated
    assert tokenizer.eos_token_id not in made.chosen.ids
    assert made.answer == example.chosen  # the judge's is whole


def test_a_long_prompt_is_left_out_or_cut(tokenizer):
    summary = SUMMARIES.example_of(next(iter(ROWS["tldr_summarization"]())))
    assert tokenise(SUMMARIES, summary, tokenizer, Limits(20, 40)) == "prompt too long"
    made = tokenise(NEWS, NEWS.example_of(next(iter(ROWS["cnn_dm_transfer"]()))), tokenizer, Limits(30, 40))
    assert 20 <= len(made.prompt.ids) <= 30
    assert made.prompt.text.endswith("\nTL;DR:")
    assert made.shown == next(iter(ROWS["cnn_dm_transfer"]()))["article"]  # the judge's is whole


def test_answers_that_are_equal_once_cut_are_no_pair(tokenizer):
    example = TextExample((("user", "Say it."),), "one two three four five", "one two three four six")
    assert tokenise(SUMMARIES, example, tokenizer, Limits(110, 3)) == "identical answers"


def test_chat_models_get_their_template(chat_tokenizer):
    example = TextExample(TWO_TURNS, "In Italy.", "No.")
    made = tokenise(DIALOGUE, example, chat_tokenizer, LIMITS)
    assert made.prompt.text == "<user>Hi</s><assistant>Hello.</s><user>Where is Rome?</s><assistant>"
    assert made.chosen.text == "In Italy."
    summary = tokenise(SUMMARIES, TextExample((("user", "A post."),), "Short."), chat_tokenizer, LIMITS)
    assert summary.prompt.text == f"<user>{SUMMARIES.instruction}\n\nA post.</s><assistant>"
    assert summary.shown == "A post."


@pytest.mark.parametrize("name", list(ROWS))
def test_no_prompt_is_in_two_parts_and_every_row_is_counted(name, tokenizer):
    task, parts = load(name, "task").form, {}
    splits = {"train": list(ROWS[name]())}
    for part in ("methods", "judge", "test"):
        examples, counts = read_part(task, splits, part, 1000, tokenizer, LIMITS)
        parts[part] = {example.prompt.text for example in examples}
        assert counts["rows"] == 256 == sum(counts.values()) - counts["rows"]
        assert counts["used"] == len(examples) > 0
    assert not parts["methods"] & parts["judge"]
    assert not (parts["methods"] | parts["judge"]) & parts["test"]
    assert len(parts["test"]) == counts["used"]  # one answer each


def test_a_test_split_is_the_test_and_its_prompts_are_nobodys_else(tokenizer):
    rows = list(ROWS["tldr_summarization"]())
    splits = {"train": rows, "test": rows[:50]}
    tests, _ = read_part(SUMMARIES, splits, "test", 1000, tokenizer, LIMITS)
    assert len(tests) == 50
    found = []
    for part in ("methods", "judge"):
        examples, counts = read_part(SUMMARIES, splits, part, 1000, tokenizer, LIMITS)
        found += examples
        assert counts["of another part"] > 50
    assert len(found) == 206
    assert not {e.prompt.id for e in found} & {e.prompt.id for e in tests}


@pytest.mark.parametrize("with_split", [True, False])
def test_prompts_answered_in_other_data_are_nobodys_to_learn_from(tokenizer, with_split):
    rows = list(ROWS["tldr_summarization"]())
    others = [{"prompt": row["prompt"], "label": row["chosen"]} for row in rows]
    answers = {"train": others[60:], "test": others[:60]} if with_split else {"train": others}
    tests, _ = read_part(SUMMARIES, answers, "test", 1000, tokenizer, LIMITS)
    pairs = {"train": rows[:200], "test": rows[200:]}  # a test split of its own, which nobody asks about
    found = [read_part(SUMMARIES, pairs, part, 1000, tokenizer, LIMITS, tests=answers)[0] for part in ("methods", "judge")]
    learned = {example.prompt.id for examples in found for example in examples}
    assert len(learned) == sum(map(len, found)) > 100
    assert len(tests) > 40
    assert not learned & {example.prompt.id for example in tests}


def test_other_splits_are_not_trained_on_and_white_space_does_not_tell_prompts_apart(tokenizer):
    rows = list(ROWS["tldr_summarization"]())
    splits = {"train": rows[:100], "validation": rows[100:], "test": rows[:0]}
    assert sum(read_part(SUMMARIES, splits, part, 1000, tokenizer, LIMITS)[1]["rows"] for part in ("methods", "judge")) == 200
    narrow = [{**row, "prompt": row["prompt"].replace("\n\n", "\n")} for row in rows]
    half = [read_part(SUMMARIES, {"train": some}, "methods", 1000, tokenizer, LIMITS)[0] for some in (rows, narrow)]
    assert [example.prompt.id for example in half[0]] == [example.prompt.id for example in half[1]]
    assert half[0][0].prompt.text != half[1][0].prompt.text


def test_parts_are_about_as_large_as_they_should_be():
    names = [f"x-{number * 2654435761 % 2**48:012x}" for number in range(20_000)]
    rest = [parts_of(name)[0] for name in names if parts_of(name) != ("test",)]
    assert abs(1 - len(rest) / 20_000 - 0.2) < 0.02
    assert abs(rest.count("judge") - rest.count("methods")) < 800


def test_single_turns_only(tokenizer):
    rows = {"train": list(ROWS["hh_dialogue"]())}
    examples, counts = read_part(DIALOGUE, rows, "test", 1000, tokenizer, LIMITS, single_turn=True)
    assert all(example.prompt.text.count("Human:") == 1 for example in examples)
    assert counts["several turns"] > 0
    examples, _ = read_part(DIALOGUE, rows, "methods", 1000, tokenizer, LIMITS, single_turn=True)
    assert any(example.prompt.text.count("Human:") == 2 for example in examples)  # training data is whole


def test_unusable_data_is_one_line(tokenizer):
    with pytest.raises(UserError, match=r"hh_dialogue: nothing usable for methods .*missing"):
        read_part(DIALOGUE, {"train": [{"text": "x"}]}, "methods", 10, tokenizer, LIMITS)
    with pytest.raises(UserError, match="did you mean 'hh_dialogue'"):
        load("hh_dialog", "task")


def test_offline_the_line_names_the_data_set_and_how_to_fetch_it(monkeypatch):
    def no_network(*args, **keywords):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(datasets, "load_dataset", no_network)
    with pytest.raises(UserError, match=r"hh_dialogue.*Anthropic/hh-rlhf.*hf download"):
        read_rows(DIALOGUE, "Anthropic/hh-rlhf")
    with pytest.raises(UserError, match=r"hh_dialogue.*Anthropic/hh-rlhf.*hf download"):
        read_rows(DIALOGUE, "Anthropic/hh-rlhf", rows=10)


def test_a_few_rows_are_streamed(monkeypatch):
    table = datasets.Dataset.from_list(list(ROWS["hh_dialogue"]())).to_iterable_dataset()

    def stream(*name, streaming):
        assert streaming
        assert name == ("Anthropic/hh-rlhf", "one")
        return {"train": table, "test": table}

    monkeypatch.setattr(datasets, "load_dataset", stream)
    splits = read_rows(DIALOGUE, "Anthropic/hh-rlhf:one", rows=7)
    assert {name: len(list(rows)) for name, rows in splits.items()} == {"train": 7, "test": 7}


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet", "disk"])
def test_local_data_in_every_form(form, tmp_path, tokenizer):
    table = datasets.Dataset.from_list(list(ROWS["tldr_summarization"]()))
    path = tmp_path / f"pairs.{form}"
    {"jsonl": table.to_json, "csv": table.to_csv, "parquet": table.to_parquet, "disk": table.save_to_disk}[form](str(path))
    from_file, _ = read_part(SUMMARIES, read_rows(SUMMARIES, str(path)), "methods", 10, tokenizer, LIMITS)
    assert from_file == read_part(SUMMARIES, read_rows(SUMMARIES, MADE_UP), "methods", 10, tokenizer, LIMITS)[0]


@pytest.mark.skipif(not HH.exists(), reason=f"needs {HH.name} beside the checkout")
def test_real_dialogues(tokenizer):
    examples, counts = read_part(DIALOGUE, read_rows(DIALOGUE, str(HH)), "methods", 300, tokenizer, Limits(200, 64))
    assert len(examples) == 300
    assert counts["rows"] == 2312
    assert counts["empty answer"] == 4
    assert counts["chosen and rejected differ before their last assistant turn"] == 5
    assert load("hh_dialogue", "task") is DIALOGUE_TASK
