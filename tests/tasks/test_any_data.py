"""Whatever the rows, columns, files and encodings: one line, never a traceback, never a test prompt in training."""

import contextlib
import json
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from suite.cli import main
from suite.common.errors import UserError
from suite.data.doctor import examine, lines_of
from suite.study.profiles import ASSETS
from suite.tasks.own_data import FORM
from suite.tasks.splits import pairs_of, read_part, read_rows
from suite.tasks.text_format import Limits

TOKENIZER = AutoTokenizer.from_pretrained(ASSETS / "imdb-gpt2")
CHAT = AutoTokenizer.from_pretrained(ASSETS / "imdb-gpt2")
CHAT.chat_template = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}</>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
COLUMNS = [
    "prompt", "Prompt", "question", "instruction", "input", "messages", "conversations", "system", "chosen", "rejected",
    "chosen_response", "score_chosen", "rejected_rating", "completion", "label", "context", "note", "id",
    "tools", "", "x\x1b[31m", "\u202eabc",
]  # fmt: skip
FILES = [
    "train.jsonl",
    "test.jsonl",
    "my-train.jsonl",
    "my_test.jsonl",
    "a.json",
    "b.jsonl.gz",
    "eval/0.jsonl",
    "train/0.jsonl",
    "dev.jsonl",
    "holdout.jsonl",
]
texts = st.one_of(
    st.sampled_from(["Is it wet?", "Is  it wet?", "Yes.", "No, not at all, I think.", "", " ", "<|endoftext|>",
                     "\n\nHuman: Hi\n\nAssistant: Hello."]),
    st.text(max_size=12), st.integers(0, 9).map(lambda i: f"Question {i} is this?"),
)  # fmt: skip
parts = st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": texts}), max_size=2)
messages = st.fixed_dictionaries(
    {}, optional={
        "role": st.sampled_from(["user", "assistant", "system", "tool", "x", None]), "from": st.sampled_from(["human", "gpt"]),
        "content": st.one_of(texts, st.none(), parts),
        "value": texts, "tool_calls": st.just([{"id": "a"}]),
    },
)  # fmt: skip
scalars = st.one_of(texts, st.none(), st.booleans(), st.integers(), st.floats())
values = st.one_of(
    scalars, messages, st.lists(st.one_of(messages, scalars), max_size=4), st.lists(messages, max_size=3).map(json.dumps)
)
any_row = st.dictionaries(st.sampled_from(COLUMNS), values, max_size=6)
turn = st.builds(lambda text: {"role": "user", "content": text}, texts)
answers = st.builds(lambda text: {"role": "assistant", "content": text}, texts)
good_row = st.one_of(
    st.builds(lambda q, a, b: {"prompt": q, "chosen": a, "rejected": b}, texts, texts, texts),
    st.builds(lambda q, a, b: {"question": q, "chosen": a, "rejected": b}, texts, texts, texts),
    st.builds(lambda q, a, b: {"prompt": [q], "chosen": [a], "rejected": b}, turn, answers, answers),
    st.builds(lambda q, a, b: {"chosen": [q, a], "rejected": [q, b]}, turn, answers, answers),
)
tables = st.dictionaries(
    st.sampled_from(FILES), st.lists(st.one_of(good_row, good_row, any_row), min_size=1, max_size=12), min_size=1, max_size=3
)
encodings = st.sampled_from(["utf-8"] * 6 + ["utf-8-sig", "utf-16", "latin-1"])


def written(folder: Path, table: dict, encoding: str) -> None:
    import gzip

    for name, rows in table.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        text = (
            json.dumps(rows)
            if name.endswith(".json")
            else "\n".join(json.dumps(row, ensure_ascii=encoding == "latin-1") for row in rows)
        )
        content = text.encode(encoding, "replace")
        (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(table=tables, encoding=encodings, chat=st.booleans())
def test_any_data_end_in_pairs_or_in_one_line_and_no_test_prompt_is_trained_on(table, encoding, chat):
    tokenizer = CHAT if chat else TOKENIZER
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written(folder, table, encoding)
        seen: dict[str, set[str]] = {}
        with contextlib.suppress(UserError):
            splits = read_rows(FORM, str(folder))
            pairs = pairs_of(FORM, str(folder), splits, tokenizer)
            lines_of(examine(pairs, tokenizer, max_prompt_tokens=64, max_new_tokens=64))
            for part in ("methods", "judge", "train", "validation", "all", "test"):
                with contextlib.suppress(UserError):
                    examples, _ = read_part(FORM, splits, part, 100, tokenizer, Limits(64, 64))
                    seen[part] = {" ".join(example.shown.split()) for example in examples}
                    for example in examples:
                        assert example.prompt.ids
                        for answer in (example.chosen, example.rejected):
                            assert answer.ids[-1] == tokenizer.eos_token_id or answer.truncated
        test = seen.pop("test", set())
        assert not any(test & prompts for prompts in seen.values())


anything = st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode), scalars.map(json.dumps).map(str.encode))
endings = st.sampled_from([".jsonl", ".json", ".csv", ".parquet", ".jsonl.gz", ".tsv"])


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(content=anything, ending=endings)
def test_any_bytes_are_a_table_or_one_line(content, ending):
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / f"pairs{ending}"
        path.write_bytes(content)
        with contextlib.suppress(UserError):
            main.run(main.COMMANDS, "suite", "", ["doctor", str(path)])
