"""Every command of the README is run: scripts as far as their plan (whose runs are made at smoke scale elsewhere); those for a
GPU with local models in the place of the Hub's; `suite` commands whole."""

import json
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
from doors import through_doors

ROOT = Path(__file__).parents[2]
ASSETS = ROOT / "suite" / "assets"
LINES = [line.strip() for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("    ")]
COMMANDS = [re.split(r"\s{2,}#", line)[0] for line in LINES if line.startswith(("python ", "suite "))]
SERVES = "suite watch"
"""It ends when it is told to; `tests/cli/test_watch.py` has it, and the study that it shows is `test_frontier_end_to_end`'s."""
NEEDS_HUB = [command for command in COMMANDS if "reproduce_paper" in command and "--profile paper" in command]
MODELS = ["--reference", ASSETS / "imdb-gpt2", "--gold-reward", ASSETS / "imdb-sentiment", "--reviews", "reviews"]


def test_the_commands_are_found():
    assert len(COMMANDS) >= 14
    assert sum(command.startswith("suite ") for command in COMMANDS) >= 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What a user has: pairs, a method and answers of their own; and the checkout's assets where the commands name them."""
    folder = tmp_path_factory.mktemp("user")
    pairs = [{"prompt": f"Question {k} is", "chosen": " a good one.", "rejected": " bad."} for k in range(60)]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    (folder / "my_pkg").mkdir()
    source = (ROOT / "tests" / "example_package" / "slic_example" / "slic.py").read_text()
    (folder / "my_pkg" / "my_module.py").write_text(source.replace("class SLiC:", "class MyMethod:"))
    for name in ("dpo", "ppo"):
        rows = [{"prompt_id": str(k), "prompt": "p", "completion": f"{name} {k}"} for k in range(4)]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "reviews").mkdir()
    for split in ("train", "test"):
        (folder / "reviews" / f"{split}.jsonl").write_text(json.dumps({"text": "A fine film about a dog.", "label": 1}))
    (folder / "results").mkdir()
    for name in ("imdb_frontier_core_grid", "temperature"):
        (folder / "results" / name).symlink_to(ROOT / "results" / name)
    (folder / "suite").mkdir()
    shutil.copytree(ASSETS, folder / "suite" / "assets", ignore=shutil.ignore_patterns("__pycache__", "*.py"))
    return folder


def words_of(command):
    """As in the README, less what takes minutes, a network or an account."""
    program, *words = shlex.split(command)
    if program == "suite":
        plan = ["--dry-run"] if words[0] in ("compare", "own-data") and "--dry-run" not in words else []
        return ["suite", *words, *plan]
    script, *words = words
    words = [str(ROOT / script), *words]
    if script.endswith("make_figures.py"):
        return [*words, "--out", "figures"]
    if "run_imdb_frontier" in script and "paper" in words and "--profile" in words:
        words += MODELS
    if command in NEEDS_HUB or command == SERVES:
        return None
    if "--reviews" in words and words[words.index("--reviews") + 1] == "stanfordnlp/imdb":
        words[words.index("--reviews") + 1] = "reviews"
    return [*map(str, words), *(() if "--dry-run" in words else ("--dry-run",))]


@pytest.fixture(scope="module")
def ended(folder):
    """Every command as a user types it, one after the other in one process: command → exit code, stdout, stderr. Of the whole
    reproduction the commands that it starts are parsed elsewhere (`test_win_rates_end_to_end`).
    """
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OPENAI_API_KEY": "", "PYTHONPATH": str(ROOT)}
    lines = {command: words for command in COMMANDS if (words := words_of(command))}
    found = {}
    for mode in ("run", "start"):
        some = {command: words for command, words in lines.items() if ("reproduce_paper" in command) == (mode == "start")}
        results = through_doors(mode, some.values(), cwd=folder, env=environment)
        found |= {command: result[:3] for command, result in zip(some, results, strict=True)}
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_runs(command, ended):
    if command in NEEDS_HUB:
        pytest.skip("its plan needs the Hub's models to say what they are")
    if command == SERVES:
        pytest.skip("it serves until it is stopped")
    code, printed, complaint = ended[command]
    assert code == 0, complaint[-2000:]
    assert printed.strip()
    assert "Traceback" not in complaint
