"""`suite judge` and the agreement table as a user calls them."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from suite.cli.main import main
from suite.report import page
from suite.study.profiles import ASSETS

sys.path.insert(0, str(Path(__file__).parents[1] / "judges"))
from fault_server import FaultServer

AGREEMENT = Path(__file__).parents[2] / "experiments" / "run_judge_agreement.py"
GOLD = f"reward:{ASSETS / 'imdb-sentiment'}"


def call(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["suite", *map(str, arguments)])
    try:
        code = main()
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, ending in (("ours", " wonderful and moving."), ("theirs", " dull, bad and far too long to sit through.")):
        rows = [{"prompt": f"Film {i} was", "completion": ending if i % 4 else " fine."} for i in range(12)]
        Path(f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def judge(*more):
    return ["judge", "run", "ours.jsonl", "theirs.jsonl", "--template", "sentiment", *more]


def test_a_run_prints_and_writes_the_win_rate(files, monkeypatch, capsys):
    code, out, _ = call(monkeypatch, capsys, *judge("--judge", GOLD))
    assert code == 0
    assert "12 comparisons, 24 questions, 21 of them not in verdicts.sqlite" in out
    assert "n_asked 24, n_valid 24, n_tie 6, n_invalid 0, n_failed 0" in out
    found = json.loads(Path("judged/win_rate.json").read_text())
    assert found["win_rate"]["mean"] == pytest.approx((9 + 3 / 2) / 12)
    assert "completion" not in Path("judged/verdicts.csv").read_text()
    code, out, _ = call(monkeypatch, capsys, "judge", "export", "all.jsonl")
    rows = pd.read_json("all.jsonl", lines=True)
    assert len(rows) == 21
    assert {"winner", "comparison", "swapped"} <= set(rows)
    assert set(rows["a"]) == {" wonderful and moving.", " dull, bad and far too long to sit through.", " fine."}
    code, out, err = call(monkeypatch, capsys, "judge", "export", "all.csv")
    assert code == 2
    assert "use .jsonl or .parquet" in err


def test_openai_by_command_line(files, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with FaultServer(choose=lambda text: "First.\nMore positive: A") as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        arguments = judge("--judge", "openai:gpt-4o", "--out", "gpt")
        code, out, _ = call(monkeypatch, capsys, *arguments, "--dry-run")
        assert (code, server.sent) == (0, 0)
        assert "21 calls, about" in out
        assert "USD" in out
        code, out, err = call(monkeypatch, capsys, *arguments, "--max-calls", "5")
        assert (code, server.sent) == (2, 5)
        assert "--max-calls 5 of this run is reached" in err
        code, out, _ = call(monkeypatch, capsys, *arguments)
        assert (code, server.sent) == (0, 21)
        assert "16 of them not in verdicts.sqlite" in out
        assert "| the two orders name the same position | 1.000" in out
        code, out, _ = call(monkeypatch, capsys, "judge", "probe", "--judge", "openai:gpt-4o", "--template", "sentiment")
        assert code == 0
        assert "fooled by 0 of 7 tricks" in out
        assert "it also prefers the plain bad answer" in out


def test_prompts_that_are_refused_are_named_and_kept(files, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    error = {"message": "<b>no</b>\x1b[31m `x`", "code": "content_filter"}

    def fault(number, text):
        return (lambda reply: (400, json.dumps({"error": error}))) if "Film 3 " in text else ""

    with FaultServer(choose=lambda text: "More positive: A", fault=fault) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        code, out, _ = call(monkeypatch, capsys, *judge("--judge", "openai:gpt-4o"))
    assert code == 1
    rows = pd.read_csv("judged/verdicts.csv", keep_default_na=False)
    failed = rows[rows["winner"] == "failed"]
    assert len(rows) == 24
    assert len(failed) == 2
    name, words = failed["prompt_id"].iloc[0], failed["failure"].iloc[0]
    assert "2 questions of 1 prompts have no verdict" in out
    assert f"prompt {name}: {words}" in out
    assert "\x1b" not in out + words
    assert f"- {page.code(f'prompt {name}: {words}')}" in Path("judged/summary.md").read_text()


def test_a_store_that_cannot_be_read_is_one_line(files, monkeypatch, capsys):
    Path("broken.sqlite").write_text("no database at all, but long enough to be looked at as if it were one")
    before = Path("broken.sqlite").read_bytes()
    for store, words in {"broken.sqlite": "name another file", "v" * 300: "255 bytes"}.items():
        code, _, err = call(monkeypatch, capsys, "judge", "export", "all.jsonl", "--store", store)
        assert (code, err.count("\n")) == (2, 1)
        assert words in err
        code, _, err = call(monkeypatch, capsys, *judge("--judge", GOLD, "--store", store))
        assert (code, err.count("\n")) == (2, 1)
        assert ("verdict store" if store == "broken.sqlite" else "--store") in err
    assert Path("broken.sqlite").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--judge", "gpt-4"], "use openai:MODEL"),
        (["--judge", GOLD, "--column", "answer"], "no column 'answer'"),
        (["--judge", "openai:x", "--parameters", "{"], "not JSON"),
        (["--judge", "openai:x", "--parameters", '{"model": "y"}'], "cannot be set"),
        (["--judge", "openai:x", "--max-cost", "1"], "--price IN OUT"),
        (["--judge", "openai:x", "--price", "nan", "nan", "--max-cost", "1"], "--price nan: expected a number"),
        (["--judge", "openai:x", "--parameters", '{"temperature": NaN}', "--dry-run"], "not JSON"),
        (["--judge", "openai:x", "--concurrency", "0"], "--concurrency 0"),
        (["--judge", "openai:x", "--split", "test"], "no split 'test'"),
    ],
)
def test_bad_input_is_one_line(files, monkeypatch, capsys, arguments, word):
    code, _, err = call(monkeypatch, capsys, *judge(*arguments))
    assert code == 2
    assert word in err
    assert err.count("\n") == 1


def agreement(*verdicts):
    return subprocess.run([sys.executable, AGREEMENT, *verdicts], capture_output=True, text=True)


def test_the_agreement_of_two_runs(files, monkeypatch, capsys):
    call(monkeypatch, capsys, *judge("--judge", GOLD, "--out", "gold"))
    sheet = ["--judge", "human:ann.csv", "--order", "random", "--out", "ann"]
    assert call(monkeypatch, capsys, *judge(*sheet))[0] == 2
    rows = pd.read_csv("ann.csv", keep_default_na=False)
    rows["choice"] = ["A" if "wonderful" in a else "B" for a in rows["A"]]
    rows.to_csv("ann.csv", index=False)
    assert call(monkeypatch, capsys, *judge(*sheet))[0] == 0
    done = agreement("gold/verdicts.csv", "ann/verdicts.csv")
    assert done.returncode == 0
    assert "ours against theirs" in done.stdout
    table = pd.read_csv("agreement/agreement.csv", keep_default_na=False)
    agree = table[table["what"] == "agreement"].iloc[0]
    assert (float(agree["share"]), int(agree["judgments"]), agree["second"]) == (1.0, 9, "humans")
    done = agreement("gold/verdicts.csv", "gold/verdicts.csv")
    assert done.returncode == 2
    assert "in an earlier file too" in done.stderr
