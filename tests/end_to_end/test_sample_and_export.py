"""`suite sample` says what a policy says; `suite export` writes pairs that come back as they were."""

import json
import sys

import datasets
import pytest

from suite.check.exact_world import ExactWorld, tiny_language_model, word_tokenizer
from suite.cli import main as cli
from suite.data.parquet import completions_table, prompts_table
from suite.data.trl_formats import from_trl, to_trl
from suite.engine.store import RunSpec, open_run
from suite.policies.causal_lm import CausalLMPolicy
from suite.study.artefacts import pairs_of
from suite.study.profiles import ASSETS
from suite.study.stages.preferences import label_samples

WORLD = ExactWorld()


def call(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["suite", *map(str, arguments)])
    try:
        code = cli.main()
    except SystemExit as stop:
        code = stop.code
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run with a policy, and one with pairs."""
    root = tmp_path_factory.mktemp("runs")
    policy = CausalLMPolicy(tiny_language_model(), word_tokenizer())
    with open_run(root, RunSpec("policy", {"seed": 0}, title="a policy")) as run:
        run.snapshot(policy, 1)
        run.finish()
    prompts = RunSpec("data", {"size": len(WORLD.prompts)})
    with open_run(root, prompts) as run:
        run.write_table("prompts.parquet", prompts_table(WORLD.prompts))
        run.finish()
    samples = RunSpec("samples", {}, {"train": prompts})
    with open_run(root, samples) as run:
        drawn = policy.sample(WORLD.prompts, num_samples=8, max_new_tokens=3, seed=0)
        frame = completions_table(drawn).assign(reference_logps=-1.5)
        run.write_table("samples.parquet", frame)
        run.finish()
    scores = RunSpec("scores", {}, {"samples": samples, "prompts": prompts})
    with open_run(root, scores) as run:
        run.write_table("scores.parquet", frame[["prompt_id", "sample"]].assign(score=[float(k) for k in range(len(frame))]))
        run.finish()
    inputs = {"samples-000": samples, "scores-000": scores}
    pairs = RunSpec("pairs", {"labels": "hard", "scale": 1.0, "noise": 0.0, "seed": 0}, inputs)
    with open_run(root, pairs) as run:
        label_samples(run)
        run.finish()
    return root, pairs.key


def test_a_model_continues_a_prompt_the_same_way_each_time(monkeypatch, capsys):
    arguments = ("sample", ASSETS / "imdb-gpt2", "This film was", "--samples", 2, "--max-new-tokens", 5)
    code, out, _ = call(monkeypatch, capsys, *arguments)
    assert code == 0
    assert out.count("This film was ") == 2 == out.count("tokens, ")
    assert call(monkeypatch, capsys, *arguments)[1] == out
    assert call(monkeypatch, capsys, *arguments, "--seed", 1)[1] != out
    _, greedy, _ = call(monkeypatch, capsys, *arguments, "--temperature", 0)
    assert greedy.count("---") == 1


def test_a_run_is_found_by_the_first_letters_of_its_key(runs, monkeypatch, capsys):
    root, _ = runs
    (folder,) = (root / "policy").iterdir()
    word = WORLD.prompts[0].text
    by_key = call(monkeypatch, capsys, "sample", folder.name[:8], word, "--runs", root, "--max-new-tokens", 3)
    by_path = call(monkeypatch, capsys, "sample", folder, word, "--max-new-tokens", 3)
    assert by_key[0] == 0
    assert by_key[1] == by_path[1] != ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sample", "no/such-folder", "x"), "neither a folder here"),
        (("sample", ASSETS / "imdb-gpt2", ""), "the prompt is empty"),
        (("sample", ASSETS / "imdb-gpt2", "x", "--chat"), "no chat template"),
        (("export", "abc", "out.jsonl"), "no finished run with pairs"),
        (("export", "abc", "out.txt"), "unknown ending"),
    ],
)
def test_bad_input_gets_one_line(arguments, message, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, _, err = call(monkeypatch, capsys, *arguments)
    assert code == 2
    assert message in err


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_exported_pairs_come_back_exactly(runs, ending, monkeypatch, capsys, tmp_path):
    root, key = runs
    code, out, _ = call(monkeypatch, capsys, "export", key[:10], tmp_path / f"pairs.{ending}", "--runs", root)
    assert code == 0, out
    table = datasets.load_dataset({"jsonl": "json"}.get(ending, ending), data_files=str(tmp_path / f"pairs.{ending}"))["train"]
    ours = pairs_of(key, root)
    assert {p.chosen.truncated for p in ours} == {True, False}
    assert from_trl(table, word_tokenizer()) == ours


def test_every_form_is_one_that_trl_knows(runs, monkeypatch, capsys, tmp_path):
    root, key = runs
    pairs = pairs_of(key, root)
    labelled, prompts = to_trl(pairs, "unpaired"), to_trl(pairs, "prompts")
    assert len(labelled) == 2 * len(pairs)
    assert sum(row["label"] for row in labelled) == len(pairs)
    assert prompts == [{"prompt": text} for text in dict.fromkeys(p.chosen.prompt.text for p in pairs)]
    call(monkeypatch, capsys, "export", key, tmp_path / "u.jsonl", "--runs", root, "--form", "unpaired")
    assert [json.loads(line) for line in (tmp_path / "u.jsonl").read_text().splitlines()] == labelled


def test_pairs_of_others_are_tokenised_with_eos():
    (pair,) = from_trl([{"prompt": "a", "chosen": "b", "rejected": "c"}], word_tokenizer())
    eos = word_tokenizer().eos_token_id
    assert pair.chosen.ids[-1] == eos == pair.rejected.ids[-1]
    assert (pair.chosen_reward, pair.rejected_reward) == (1.0, 0.0)
    with pytest.raises(ValueError, match="row 0: no text in rejected"):
        from_trl([{"prompt": "a", "chosen": "b"}], word_tokenizer())
