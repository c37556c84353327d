"""Options outside their ranges: one line that names the option, exit code 2, before anything is done. Each in process."""

import runpy
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import tyro

from suite.cli.main import main
from suite.cli.options import parse_integers, parse_numbers, parse_parameters, parse_rates, parse_seeds, parse_temperatures
from suite.cli.ranges import Count, File, Folder, Name, Names, Place, Seed, Share, Temperature, Workers, check_options, in_range
from suite.common.errors import UserError
from suite.study.profiles import EMBEDDED

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
LONG = 300 * "x"
COUNT, TEMPERATURE = "expected a whole number of 1 or more", "expected 0 (greedy) or a number from 0.01 to 100"
SCRIPTS = [
    ("run_imdb_frontier", ["--micro-batch-size", "0"], f"--micro-batch-size 0: {COUNT}"),
    ("run_imdb_frontier", ["--micro-batch-size", "-3"], f"--micro-batch-size -3: {COUNT}"),
    ("run_imdb_frontier", ["--test-prompts", "0"], f"--test-prompts 0: {COUNT}"),
    ("run_imdb_frontier", ["--longer", "0"], f"--longer 0: {COUNT}"),
    ("run_imdb_frontier", ["--longer", "3"], "--longer 3: expected 1, 2, 4, 8"),
    ("run_imdb_frontier", ["--label-noise", "0.5"], "--label-noise 0.5: expected a share from 0 to below 0.5"),
    ("run_imdb_frontier", ["--label-noise", "nan"], "--label-noise nan"),
    ("run_imdb_frontier", ["--methods", ","], "--methods ',': expected names"),
    ("run_imdb_frontier", ["--runs", ""], "--runs '': expected a path"),
    ("run_imdb_frontier", ["--runs", "~nobody_here/x"], "--runs ~nobody_here/x: there is no user nobody_here"),
    ("run_imdb_frontier", ["--runs", LONG], "has more than 255 bytes"),
    ("run_imdb_frontier", ["--runs", "file"], "--runs file: is a file, and a folder is meant"),
    ("run_imdb_frontier", ["--out", "file/deeper/still"], "--out file/deeper/still: file is a file, and a folder is meant"),
    ("run_imdb_frontier", ["--reuse-records", "file"], "--reuse-records file: is a file"),
    ("run_imdb_frontier", ["--reviews", ""], "--reviews '': expected a name or a path"),
    ("run_imdb_frontier", ["--gold-reward", "~nobody_here/m"], "does not exist"),
    ("run_imdb_frontier", ["--workers", "5000"], "--workers 5000: expected a whole number from 0 to 1024"),
    ("run_imdb_frontier", ["--device", "meta"], "--device 'meta' cannot be used here"),
    ("run_imdb_frontier", ["--reviews", "half \udcff"], "not in UTF-8"),
    ("run_best_of_n", ["--temperature", "nan"], f"--temperature nan: {TEMPERATURE}"),
    ("run_best_of_n", ["--temperature", "inf"], f"--temperature inf: {TEMPERATURE}"),
    ("run_best_of_n", ["--temperature", "1e-320"], TEMPERATURE),
    ("run_best_of_n", ["--sizes", "999999"], "--sizes '999999'"),
    ("run_best_of_n", ["--task", "imdb_sentiment", "--profile", "smoke", "--sizes", "4,500"], "--sizes '4,500'"),
    ("run_best_of_n", ["--task", "imdb_sentiment", "--profile", "smoke", "--sizes", "1"], "--sizes '1': expected one of 2"),
    ("run_temperature", ["--temperatures", "0,1e-320"], "--temperatures '0,1e-320': 9.99989e-321: expected 0"),
    ("run_temperature", ["--temperatures", "0,nan"], "--temperatures '0,nan'"),
    ("run_temperature", ["--seed", "-1"], "--seed -1: expected a whole number of 0 or more"),
    ("run_tldr_temperature", ["--opponent", "ppo@1000"], "--opponent"),
    ("run_hh_dialogue", ["--training-temperatures", "101"], "--training-temperatures '101'"),
    ("run_hh_dialogue", ["--lora-rank", "100000"], "--lora-rank 100000: expected a whole number from 0 to 4096"),
    ("run_hh_dialogue", ["--max-cost", "nan"], "--max-cost nan"),
    ("run_hh_dialogue", ["--price", "1", "nan"], "--price nan"),
    ("run_hh_dialogue", ["--price", "-1", "-1"], "--price -1"),
    ("run_hh_dialogue", ["--samples", "-3"], "--samples -3"),
    ("run_hh_dialogue", ["--pairs", "./none_here"], "--pairs './none_here': does not exist"),
    ("run_hh_dialogue", ["--pairs", "./file,./none_here"], "./none_here does not exist"),
    ("run_hh_dialogue", ["--judge", ""], "--judge ''"),
    ("run_hh_dialogue", ["--write-answers", "file"], "--write-answers file: is a file"),
    ("run_cnn_dm_transfer", ["--methods", ", ,"], "--methods ', ,'"),
    ("run_label_noise", ["--levels", "0,0.5"], "--levels 0.5"),
    ("search_learning_rates", ["--validation-prompts", "-5"], "--validation-prompts -5"),
    ("search_learning_rates", ["--workers", "-1"], "--workers -1"),
    ("search_learning_rates", ["--reward-model-rates", "fast"], "--reward-model-rates 'fast'"),
    ("search_learning_rates", ["--methods", "", "--out", "empty"], "holds no earlier search"),
    ("search_learning_rates", ["--methods", "", "--out", "other"], "other/records.csv: holds no search but method, value"),
    ("search_learning_rates", ["--methods", "dpo", "--out", "torn"], "torn/records.csv: cannot be read"),
    ("reproduce_paper", ["--judge", "nope"], "--judge 'nope' is unknown"),
    ("reproduce_paper", ["--judge", "local:./none_here"], "'./none_here' does not exist"),
    ("reproduce_paper", ["--judge", "openai:gpt-4o", "--parameters", "[1]"], "--parameters '[1]': expected an object"),
    ("reproduce_paper", ["--hh", "./none_here"], "--hh './none_here': does not exist"),
    ("reproduce_paper", ["--price", "nan", "nan"], "--price nan"),
    ("reproduce_paper", ["--device", "foo"], "--device 'foo' cannot be used here"),
    ("make_figures", ["--out", "file"], "--out file: is a file"),
    ("make_figures", ["--results", "file"], "--results file: is a file"),
    ("run_judge_agreement", ["folder", "file"], "folder: is a folder, and a file is meant"),
    ("run_judge_agreement", ["file", "file", "--seed", "-1"], "--seed -1"),
    ("validation/run_judge_simulation", ["--prompts", "0"], "--prompts 0: expected a whole number of 2 or more"),
    ("validation/run_judge_simulation", ["--replications", "0"], f"--replications 0: {COUNT}"),
    ("validation/run_judge_simulation", ["--seed", "-1"], "--seed -1"),
    ("validation/run_coverage", ["--replications", "9"], "--replications 9: expected a whole number of 10 or more"),
    ("validation/run_exact_world", ["--seeds", "0"], "--seeds 0"),
    ("benchmarks/throughput", ["--threads", "0"], f"--threads 0: {COUNT}"),
    ("benchmarks/throughput", ["--prompts", "0"], f"--prompts 0: {COUNT}"),
    ("benchmarks/ppo_beside_trl", ["--lr", "nan"], "--lr nan"),
    ("benchmarks/time_left", ["--command", "it's"], '--command "it\'s": no command'),
    ("assets/train_assets", ["classifier", "--out", "file"], "--out file: is a file"),
    ("assets/train_assets", ["classifier", "--others", "1", "nan"], "--others nan"),
    ("assets/train_assets", ["language-model", "--width", "0"], f"--width 0: {COUNT}"),
]
HAS_PLAN = ("run_imdb", "run_best", "run_temp", "run_tldr", "run_hh", "run_cnn", "run_label", "reproduce")
COMMANDS = [
    (["doctor", ":"], "':': expected a name or a path"),
    (["doctor", "file", "--max-new-tokens", "0"], f"--max-new-tokens 0: {COUNT}"),
    (["doctor", "file", "--max-prompt-tokens", "-5"], f"--max-prompt-tokens -5: {COUNT}"),
    (["doctor", "./none_here"], "'./none_here': does not exist"),
    (["sample", EMBEDDED, "hi", "--temperature", "nan"], f"--temperature nan: {TEMPERATURE}"),
    (["sample", EMBEDDED, "hi", "--temperature", "inf"], f"--temperature inf: {TEMPERATURE}"),
    (["sample", EMBEDDED, "hi", "--temperature", "1e-320"], TEMPERATURE),
    (["sample", EMBEDDED, "hi", "--samples", "0"], f"--samples 0: {COUNT}"),
    (["sample", EMBEDDED, "hi", "--seed", str(2**31)], f"--seed {2**31}"),
    (["sample", EMBEDDED, "hi", "--device", "meta"], "--device 'meta' cannot be used here"),
    (["sample", EMBEDDED, "film \udcff"], r"'film \udcff': not in UTF-8"),
    (["sample", EMBEDDED, "hi", "--runs", ""], "--runs '': expected a path"),
    (["gatt", "./none_here"], "'./none_here': does not exist"),
    (["gatt", "file", "--test-dialogues", "1"], "--test-dialogues 1: expected a whole number of 2 or more"),
    (["gatt", "file", "--turns", "0"], f"--turns 0: {COUNT}"),
    (["gatt", "file", "--temperature", "-1"], "--temperature -1"),
    (["gatt", "file", "--lr", "2"], "--lr 2"),
    (["gatt", "file", "--instructions", ""], "--instructions '': expected a path"),
    (["own-data", "--pairs", "./none_here"], "--pairs './none_here': does not exist"),
    (["own-data", "--pairs", "file", "--reward", ""], "--reward '': expected a name or a path"),
    (["own-data", "--pairs", "file", "--methods", ","], "--methods ','"),
    (["own-data", "--pairs", "file", "--samples", "-3"], "--samples -3"),
    (["own-data", "--pairs", "file", "--max-new-tokens", "0"], f"--max-new-tokens 0: {COUNT}"),
    (["own-data", "--pairs", "file", "--train-pairs", "-1"], f"--train-pairs -1: {COUNT}"),
    (["own-data", "--pairs", "file", "--temperatures", "1,1000"], "--temperatures '1,1000': 1000"),
    (["compare", "--method", ""], "--method ''"),
    (["compare", "--method", "cdpo", "--reuse-records", "file"], "--reuse-records file: is a file"),
    (["compare", "--method", "cdpo", "--rates", "0"], "--rates '0'"),
    (["export", "0", f"{LONG}.jsonl"], "has more than 255 bytes"),
    (["export", "0", "file/x.jsonl"], "file/x.jsonl: file is a file, and a folder is meant"),
    (["export", "folder", "out", "--best", "--kl", "nan"], "--kl nan"),
    (["check-method", ""], "'': expected a name or a path"),
]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    Path("file").write_text("")
    for name, table in {"folder": None, "empty": None, "other": "method,value\nDPO,1\n", "torn": ""}.items():
        Path(name).mkdir()
        if table is not None:
            Path(name, "records.csv").write_text(table)
    return set(tmp_path.rglob("*"))


def assert_one_line(code, out, err, words):
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert words in err


@pytest.mark.parametrize(("script", "arguments", "words"), SCRIPTS)
def test_a_script_refuses_it_and_has_done_nothing(monkeypatch, capsys, here, script, arguments, words):
    path = EXPERIMENTS / f"{script}.py"
    dry = ["--dry-run"] if script.startswith(HAS_PLAN) else []
    monkeypatch.setattr(sys, "argv", [str(path), *arguments, *dry])
    monkeypatch.syspath_prepend(path.parent)
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(path), run_name="__main__")
    assert_one_line(stop.value.code, *capsys.readouterr(), words)
    assert set(Path.cwd().rglob("*")) == here


@pytest.mark.parametrize(("arguments", "words"), COMMANDS)
def test_a_command_refuses_it_and_has_done_nothing(monkeypatch, capsys, here, arguments, words):
    monkeypatch.setattr(sys, "argv", ["suite", *arguments])
    assert_one_line(main(), *capsys.readouterr(), words)
    assert set(Path.cwd().rglob("*")) == here


@pytest.mark.parametrize(
    "text", ["[1]", "5", "{", '{"a": NaN}', '{"a": 1e999}', '{"a": -Infinity}', "[" * 100_000, f'{{"a": {"9" * 5000}}}']
)
def test_parameters_that_are_no_object_are_refused(text):
    with pytest.raises(UserError, match="--parameters"):
        parse_parameters(text)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_seeds, "1,"), (parse_seeds, "0.5"), (parse_seeds, "inf"), (parse_rates, "0"), (parse_rates, "1e-5,1e-5"),
        (parse_temperatures, "-1"), (parse_temperatures, "0.001"), (parse_temperatures, ","),
        (lambda text: parse_numbers(text, "--x"), "9" * 5000), (lambda text: parse_numbers(text, "--x"), "nan"),
        (lambda text: parse_integers(text, "--x", example="1", most=8), "9"),
    ],
)  # fmt: skip
def test_lists_have_ranges_too(parse, text):
    with pytest.raises(UserError, match="expected"):
        parse(text)


@dataclass(frozen=True)
class Some:
    count: Count = -5  # a default is not typed, and is left alone
    seed: Seed = 0
    temperature: Temperature = 1.0
    share: Share | None = None
    workers: Workers = 0
    name: Name = "x"
    names: Names = ""
    out: Folder | None = None
    file: File = Path("x")
    place: Place = Path("x")
    pairs: tuple[Count, Count] = (1, 1)
    files: Annotated[tuple[File, ...], tyro.conf.Positional] = ()


@pytest.mark.parametrize(
    "typed",
    [
        [], ["--count", "1"], ["--seed", str(2**31 - 1)], ["--temperature", "0"], ["--temperature", "0.01"],
        ["--temperature", "100"], ["--share", "0"], ["--share", "0.4999"], ["--workers", "0"], ["--name", "owner/model"],
        ["--name", "gpt2"], ["--name", "."], ["--name", "pkg.module:Class"], ["--name", "a,b"], ["--names", ""],
        ["--names", "dpo,ppo"], ["--out", "new/folder"], ["--out", "folder"], ["--out", "."], ["--out", "None"],
        ["--file", "file"], ["--file", "new/file"], ["--place", "file"], ["--place", "folder"], ["--pairs", "2", "3"],
        ["file", "new"],
    ],
)  # fmt: skip
def test_what_is_in_range_is_left_alone(typed):
    found = tyro.cli(Some, args=typed)
    check_options(Some, vars(found))


@pytest.mark.parametrize(
    "typed",
    [
        ["--count", "0"], ["--count", str(2**31)], ["--seed", "-1"], ["--temperature", "0.009"], ["--temperature", "101"],
        ["--share", "0.5"], ["--share", "-0.1"], ["--workers", "-1"], ["--name", " "], ["--names", ","],
        ["--out", ""], ["--out", "file"], ["--file", "folder"], ["--file", "file/in"], ["--place", "file/in"],
        ["--place", LONG], ["--pairs", "2", "0"], ["file", "folder"], ["--out=~nobody_here/x"],
    ],
)  # fmt: skip
def test_what_is_out_of_range_is_refused(typed):
    with pytest.raises(UserError):
        check_options(Some, vars(tyro.cli(Some, args=typed)))


def test_a_home_folder_is_found_wherever_it_stands_in_the_word(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tyro.cli(Some, args=["--out=~/runs"]).out == tmp_path / "runs"


def test_a_function_is_not_called_with_what_is_out_of_range():
    calls = []

    def command(options: Some, count: Count = 1) -> int:
        calls.append((options, count))
        return 0

    checked = in_range(command)
    assert checked(Some(), count=3) == 0
    for arguments, named in (((Some(seed=-1),), "--seed -1"), ((Some(), 0), "--count 0")):
        with pytest.raises(UserError, match=named):
            checked(*arguments)
    assert calls == [(Some(), 3)]


def test_a_prompt_may_begin_with_dashes(monkeypatch, capsys):
    arguments = ["sample", EMBEDDED, "--samples", "1", "--max-new-tokens", "2", "--", "--title"]
    monkeypatch.setattr(sys, "argv", ["suite", *arguments])
    assert main() == 0
    assert "\n--title" in capsys.readouterr().out
