"""Shared fixtures: tiny models with absolute and with rotary positions, and a tokenizer of one token per word."""

from __future__ import annotations

import os
import shutil

os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:  # several tests at a time: the programs they start get one thread each
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest
import torch

from suite.check.exact_world import word_tokenizer
from suite.data.preference_data import Completion, PreferencePair, Prompt
from suite.policies.causal_lm import CausalLMPolicy

EOS = 0
WORDS = ["<eos>", "good", "bad", "film", "plot", "fine"]
SHARED = Path(__file__).parents[2] / "shared" / "data"

needs_reviews = pytest.mark.skipif(
    not (SHARED / "imdb" / "train.parquet").exists(), reason="the real reviews (../shared/data/imdb) are not on this machine"
)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tokenizer():
    return word_tokenizer(WORDS)


def tiny_model(architecture: str = "gpt2", *, seed: int = 0, dropout: float = 0.0, scale: float = 3.0, context: int = 32):
    """A random model of 6 tokens, far from uniform, so that shifted masks and positions show."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    common = {"vocab_size": len(WORDS), "bos_token_id": EOS, "eos_token_id": EOS}
    if architecture == "gpt2":
        config = GPT2Config(
            n_positions=context,
            n_embd=16,
            n_layer=2,
            n_head=2,
            resid_pdrop=dropout,
            embd_pdrop=dropout,
            attn_pdrop=dropout,
            **common,
        )
        model = GPT2LMHeadModel(config)
    else:
        config = LlamaConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
            max_position_embeddings=32, attention_dropout=dropout, **common,
        )  # fmt: skip
        model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(scale * 3)
    return model


@pytest.fixture(params=["gpt2", "llama"])
def policy(request, tokenizer) -> CausalLMPolicy:
    return CausalLMPolicy(tiny_model(request.param), tokenizer)


@pytest.fixture
def gpt2(tokenizer) -> CausalLMPolicy:
    return CausalLMPolicy(tiny_model(), tokenizer)


@pytest.fixture
def prompts() -> list[Prompt]:
    return [Prompt("a", (3, 1), "film good"), Prompt("b", (4, 2, 3, 5), "plot bad film fine"), Prompt("c", (1,), "good")]


def completion(prompt: Prompt, *ids: int) -> Completion:
    return Completion(prompt, ids, " ".join(WORDS[i] for i in ids if i != EOS), truncated=ids[-1] != EOS)


def make_pairs(policy: CausalLMPolicy, prompts: list[Prompt], count: int, *, seed: int = 0) -> list[PreferencePair]:
    """Pairs of sampled completions, preferring those with more `good`; reference log-probs are `policy`'s."""
    drawn = policy.sample(prompts, num_samples=2 * count, max_new_tokens=5, seed=seed)
    pairs = []
    for some in drawn:
        for a, b in zip(some[::2], some[1::2], strict=True):
            chosen, rejected = (a, b) if a.ids.count(1) >= b.ids.count(1) else (b, a)
            logps = policy.log_prob([chosen, rejected]).tolist()
            pairs.append(PreferencePair(chosen, rejected, float(chosen.ids.count(1)), float(rejected.ids.count(1)), *logps))
    return pairs


RESULTS = Path(__file__).parents[1] / "results"
ENGINES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium; of one module, since it leaves an event loop at work in its thread."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no browser tests: pip install playwright")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, ENGINES)), None)
    if path is None:
        pytest.skip("no browser tests: no Chromium here (apt-get install chromium, or set CHROMIUM to its path)")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser, tmp_path):
    """Open a page, wait until it is drawn, and fail at the end if it asked for anything or complained."""
    opened, complaints = [], []

    def opens(text: str, *, width: int = 1200, scheme: str = "light", touch: bool = False):
        path = tmp_path / "report.html"
        path.write_text(text, encoding="utf-8")
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, has_touch=touch, is_mobile=touch)
        opened.append(page)
        page.set_default_timeout(20_000)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: complaints.append(request.url) if request.url != path.as_uri() else None)
        page.goto(path.as_uri())
        page.locator("[data-part=frontier] svg.chart").first.wait_for()
        return page

    yield opens
    for page in opened:
        page.close()
    assert complaints == []


@pytest.fixture(scope="session")
def default():
    """The study of the README's command."""
    from suite.analysis.records import read_results

    return read_results(RESULTS / "imdb_frontier")


@pytest.fixture(scope="session")
def default_page(default) -> str:
    """Its page, with the completions of `samples.md`."""
    from suite.report.html.write import report_html

    return report_html([("imdb_frontier", default)], samples=4)


@pytest.fixture(scope="session")
def plane():
    """Two rewards of a handful of policies: of two arms of a study, as one. PPO learns from both; DPO from no reward."""
    import pandas as pd

    from suite.analysis.records import PLACED, POINT, Results
    from suite.maths.statistics import mean_interval
    from suite.report.llama2_rlhf import as_one

    def arm(policies) -> Results:
        rows = [
            {"method": method, "setting": setting, "seed": 0, "step": step, "panel": "plane", "x": step / 4, "temperature": 1.0,
             "split": "test", "prompt_id": f"p{k}", "sample": 0, "metric": metric,
             "value": value + ((k + round(2 * values[0])) % 3 - 1) / 10}
            for method, setting, step, *values in policies
            for metric, value in zip(("helpfulness", "safety", "kl"), values, strict=True)
            for k in range(12)
        ]  # fmt: skip
        numbers = pd.DataFrame(rows)
        records = []
        for key, own in numbers.groupby([*PLACED, "split", "metric"], sort=False):
            found = mean_interval(own["value"])
            about = {"value": found.mean, "n": found.n, "ci_low": found.low, "ci_high": found.high, "git_sha": "0" * 7}
            records.append({**dict(zip([*PLACED, "split", "metric"], key, strict=True)), **about})
        empty = {name: pd.DataFrame(columns=columns) for name, columns in (("training", POINT), ("health", [*POINT, "alarms"]))}
        about = {
            "schema": 4, "task": "hh_dialogue", "model": "small", "profile": "smoke", "reward": "reward", "seeds": [0],
            "test_prompts": 12, "data": {}, "reward_model": {}, "trained_runs": 1, "date": "2026-11-27", "command": "x",
        }  # fmt: skip
        return Results(about, numbers, pd.DataFrame(records), **empty, runs={"drawn": {}, "runs": {}})

    two = arm([("PPO", "", 2, 1.0, 2.0, 0.5), ("PPO", "", 4, 2.0, 3.0, 2.0)])
    one = arm(
        [
            ("PPO", "", 4, 3.0, 1.0, 3.0),
            ("DPO", "beta = 0.1", 4, 1.5, 2.5, 1.0),
            ("Preferred-FT", "(reference)", 0, 0.5, 0.5, 0.0),
        ]
    )
    return as_one({"two models": two, "one model of all pairs": one}, ["Preferred-FT", "DPO"])
