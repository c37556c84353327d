"""The paper's models and data under their names on the Hub, by the loaders and clients that the real ones have."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from http.client import HTTPConnection
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from suite.check.paper_on_the_hub import DATA, MODELS, publish
from suite.check.stand_in_hub import CACHES, MOVED, stand_in_hub, to_reach
from suite.study.profiles import METHODS, REHEARSAL, sentiment_study, text_study

LOADS = """
import json, os
from suite.common.errors import UserError
from suite.common.sources import resolve_model
from suite.data.preference_data import Prompt
from suite.data.readers import load_splits
from suite.data.reviews import load_reviews
from suite.policies.causal_lm import CausalLMPolicy
from suite.rewards.text_rewards import ClassifierReward

def rows(source, **how):
    return {name: len(table) for name, table in load_splits(source, **how).items()}

def refused(read, name):
    try:
        read(name)
    except UserError as error:
        return str(error)

found = {"models": {}}
for name in ("gpt2-large", "EleutherAI/pythia-2.8b", "CarperAI/openai_summarize_tldr_sft"):
    few = sorted(os.listdir(resolve_model(name, weights=False)[0]))
    folder, digest = resolve_model(name)
    policy = CausalLMPolicy.load(folder)
    (drawn,) = policy.sample([Prompt("a", (5, 6), "")], num_samples=2, max_new_tokens=4, seed=0)
    kind = policy.model.config.model_type
    whole = sorted(os.listdir(folder))
    found["models"][name] = [few, whole, digest.partition("@")[0], kind, len(drawn)]
folder, _ = resolve_model("siebert/sentiment-roberta-large-english")
found["reward"] = ClassifierReward.load(folder)(["A film", "long " * 900], [" that", " ends"])
summaries = ["CarperAI/openai_summarize_comparisons", "CarperAI/openai_summarize_tldr"]
found["data"] = {name: rows(name) for name in ("Anthropic/hh-rlhf", *summaries, "abisee/cnn_dailymail:3.0.0")}
found["streamed"] = rows("Anthropic/hh-rlhf", rows=5)
found["reviews"] = [len(load_reviews("stanfordnlp/imdb", split).texts) for split in ("train", "test")]
found["refused"] = [refused(resolve_model, "nobody/nothing"), refused(load_splits, "nobody/nothing")]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    publish(folder / "tiny", "tiny")
    return folder


@pytest.fixture(scope="module")
def loaded(hub):
    """What a process that knows no other Hub finds on it."""
    own = {name: str(hub / "theirs" / name) for name in CACHES}  # what a cluster may have set
    with stand_in_hub(hub / "tiny") as address:
        environment = {**os.environ, **own, **to_reach(address, hub / "fetched")}
        ended = subprocess.run([sys.executable, "-c", LOADS], env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert not (hub / "theirs").exists()
    return json.loads(ended.stdout.splitlines()[-1])


def test_models_are_found_by_the_names_that_the_paper_profile_has(loaded):
    kinds = {name: found[3] for name, found in loaded["models"].items()}
    assert kinds == {
        "gpt2-large": "gpt2", "EleutherAI/pythia-2.8b": "gpt_neox", "CarperAI/openai_summarize_tldr_sft": "gptj",
    }  # fmt: skip
    for name, (few, whole, digest, _, drawn) in loaded["models"].items():
        assert digest == name
        assert not any(file.endswith((".bin", ".safetensors")) for file in few)
        weights = "pytorch_model.bin" if "tldr" in name else "model.safetensors"
        assert sorted(set(whole) - set(few)) == [weights]  # of two kinds of weights one
        assert drawn == 2
    assert all(0 < value < 1 for value in loaded["reward"])


def test_data_has_the_splits_and_sizes_that_were_published(loaded):
    assert set(loaded["data"]["Anthropic/hh-rlhf"]) == {"train", "test"}  # of four folders; the attempts are none of it
    assert loaded["data"]["Anthropic/hh-rlhf"]["train"] == sum(
        len(rows) for path, rows in DATA["Anthropic/hh-rlhf"].items() if path.endswith("train.jsonl.gz")
    )
    assert set(loaded["data"]["CarperAI/openai_summarize_comparisons"]) == {"train", "test", "valid1", "valid2"}
    assert set(loaded["data"]["abisee/cnn_dailymail:3.0.0"]) == {"train", "validation", "test"}
    assert loaded["streamed"] == {"train": 5, "test": 5}
    assert loaded["reviews"] == [
        len(DATA["stanfordnlp/imdb"][f"plain_text/{s}-00000-of-00001.parquet"]) for s in ("train", "test")
    ]


def test_what_is_not_there_is_refused_as_the_hub_does(loaded):
    model, data = loaded["refused"]
    assert "'nobody/nothing'" in model
    assert "RepositoryNotFoundError" in model
    assert "'nobody/nothing' could not be read (DatasetNotFoundError" in data


def test_the_server_gives_listings_parts_of_files_and_redirections(hub):
    with stand_in_hub(hub / "tiny") as address:

        def ask(path, **headers):
            with urlopen(Request(address + path, headers=headers)) as reply:
                return reply.status, dict(reply.headers), reply.read()

        status, _, content = ask("/api/models/gpt2-large")
        assert (status, json.loads(content)["id"]) == (200, MOVED["gpt2-large"])
        _, _, content = ask("/api/datasets/abisee/cnn_dailymail/tree/main")
        assert {(entry["path"], entry["type"]) for entry in json.loads(content)} == {
            ("README.md", "file"), ("1.0.0", "directory"), ("2.0.0", "directory"), ("3.0.0", "directory"),
        }  # fmt: skip
        _, _, content = ask("/api/datasets/abisee/cnn_dailymail/tree/main/3.0.0")
        assert len(json.loads(content)) == 3
        _, headers, whole = ask("/gpt2-large/resolve/main/config.json")
        status, part, some = ask("/gpt2-large/resolve/main/config.json", Range="bytes=3-9")
        assert (status, some, part["ETag"]) == (206, whole[3:10], headers["ETag"])
        for path, code in (("/gpt2-large/resolve/main/none", "EntryNotFound"), ("/a/b/resolve/main/c", "RepoNotFound")):
            with pytest.raises(HTTPError) as error:
                ask(path)
            assert (error.value.code, error.value.headers["X-Error-Code"]) == (404, code)
        with pytest.raises(HTTPError) as error:
            ask("/gpt2-large/resolve/main/config.json", Range="bytes=1000000-")
        assert error.value.code == 416


def test_the_server_gives_nothing_outside_its_folder(hub):
    (hub / "private").mkdir()
    (hub / "private" / "secret").write_text("secret")
    with stand_in_hub(hub / "tiny") as address:
        for path in (
            "/../../private/resolve/main/secret", "/%2e%2e/%2e%2e/private/resolve/main/secret",
            "/datasets/../private/resolve/main/secret", "/api/models/../../private/tree/main", "/api/datasets/../../private",
            "/gpt2-large/resolve/main/../../../../private/secret", "/private/resolve/main/secret",
        ):  # fmt: skip
            client = HTTPConnection(address.removeprefix("http://"))  # which leaves the path as it is
            client.request("GET", path)
            assert client.getresponse().status in (404, 307), path


@pytest.mark.parametrize("name", MODELS)
def test_the_published_numbers_are_those_of_the_models(name, hub):
    from suite.engine.memory import shape_of

    if not (hub / "real").exists():
        publish(hub / "real", "real")
    millions = {"gpt2-large": 774, "pythia-2.8b": 2775, "gpt-j-6b": 6051, "openai_summarize_tldr_sft": 6051}
    shape = shape_of(str(hub / "real" / "models" / name))
    assert not list((hub / "real" / "models" / name).glob("*.safetensors"))
    if (known := millions.get(name.rpartition("/")[2])) is not None:
        assert round(shape.parameters / 1e6) == known


def test_a_rehearsal_is_the_papers_study_in_small():
    sizes = {"profile", "train_size", "judge_pairs", "test_prompts", "validation_prompts", "ideal_prompts", "ideal_samples",
             "on_policy_samples", "sft", "optim", "reward_model"}  # fmt: skip
    for task in ("imdb_sentiment", "hh_dialogue", "tldr_summarization"):
        film = task == "imdb_sentiment"
        paper, small = (
            asdict(sentiment_study(profile) if film else text_study(task, profile)) for profile in ("paper", REHEARSAL)
        )
        differ = {name for name in paper if paper[name] != small[name]}
        assert differ <= sizes | {"settings"}
        for part in ("optim", "reward_model"):
            assert {name for name in paper[part] if paper[part][name] != small[part][name]} <= {"num_snapshots"}
        for method, settings in paper["settings"].items():
            assert {k for k in settings if settings[k] != small["settings"][method][k]} <= {"samples_per_step"}
        assert film or METHODS[task][REHEARSAL] == {**METHODS[task]["paper"], "best_of_n": [{"n": 8}]}
