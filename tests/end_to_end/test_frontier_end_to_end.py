"""The README's smoke command, whole; then started again; then killed in the middle and started again."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "experiments" / "run_imdb_frontier.py"
VARIABLE = ["run_seconds", "worker_peak_memory_mib", "created_at", "git_sha"]


def command(folder, *more):
    return [
        sys.executable,
        str(SCRIPT),
        "--profile",
        "smoke",
        "--runs",
        str(folder / "runs"),
        "--out",
        str(folder / "out"),
        *more,
    ]


def run(folder, *more):
    done = subprocess.run(command(folder, *more), capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def records(folder):
    return pd.read_csv(folder / "out" / "records.csv").drop(columns=VARIABLE)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smoke")
    return folder, run(folder)


def test_the_same_policies_at_other_temperatures(finished):
    """Only samples and their measurements are left to do; at temperature 1 they repeat the frontier's."""
    folder, _ = finished
    script = SCRIPT.with_name("run_temperature.py")
    arguments = [
        "--profile",
        "smoke",
        "--methods",
        "dpo",
        "--temperatures",
        "0,1",
        "--workers",
        "1",
        "--runs",
        folder / "runs",
        "--out",
        folder / "t",
    ]
    done = subprocess.run([sys.executable, script, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert " cached, 12 to run" in done.stdout
    table = pd.read_csv(folder / "t" / "records.csv", keep_default_na=False)
    table = table[table["metric"] == "reward"]
    assert table["temperature"].tolist() == [0.0, 1.0] * 3
    assert {path.name for path in (folder / "t").iterdir()} == {
        "records.csv", "measurements.parquet", "health.csv", "study.json", "runs.json", "training.parquet", "comparisons.csv",
        "curves.svg", "summary.md", "report.html",
    }  # fmt: skip
    numbers = pd.read_parquet(folder / "out" / "measurements.parquet")
    dpo = numbers[(numbers["method"] == "DPO") & (numbers["split"] == "test") & (numbers["step"] == numbers["step"].max())]
    dpo = dpo[dpo["metric"] == "reward"]
    for setting, rows in dpo.groupby("setting", observed=True):
        at_one = table[(table["setting"] == setting) & (table["temperature"] == 1)]["value"].item()
        assert at_one == pytest.approx(rows["value"].mean(), abs=1e-4)
    health = pd.read_csv(folder / "t" / "health.csv", keep_default_na=False).set_index(["method", "setting"])
    cold = health[health["temperature"] == 0]
    assert len(cold) == 3
    assert (cold["distinct_1"] < health[health["temperature"] == 1]["distinct_1"]).all()


@pytest.mark.slow
def test_a_study_grows_by_a_seed_from_its_records(finished, tmp_path):
    """Only what is not recorded is run, also where no run of the first seed is left; and the whole is what both seeds give."""
    folder, _ = finished
    grow = ["--methods", "dpo,best_of_n", "--seeds", "0,1", "--reuse-records", str(folder / "out")]
    runs, elsewhere = tmp_path / "runs", tmp_path / "out"
    arguments = ["--profile", "smoke", *grow, "--runs", runs, "--out", elsewhere]
    done = subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "9 of 17 contenders are recorded" in done.stdout  # the reference, DPO twice and six N, of each seed
    made = [json.loads(path.read_text())["config"] for path in (runs / "policy").glob("*/spec.json")]
    assert sorted((config["config"]["beta"], config["seed"]) for config in made) == [(0.1, 1), (1.0, 1)]
    whole = run(folder, *grow[:-2], "--out", str(tmp_path / "whole"))
    assert "nothing to run" not in whole
    ours, theirs = (
        pd.read_parquet(place / "measurements.parquet").astype({"method": str, "setting": str, "split": str, "metric": str})
        for place in (elsewhere, tmp_path / "whole")
    )
    keys = ["method", "setting", "seed", "step", "panel", "split", "prompt_id", "sample", "metric"]
    ours, theirs = (table.astype({"panel": str}).set_index(keys)["value"].sort_index() for table in (ours, theirs))
    assert ours.index.equals(theirs.index)
    assert ours.to_numpy() == pytest.approx(theirs.to_numpy(), abs=1e-6)
    about = json.loads((elsewhere / "study.json").read_text())
    assert (about["seeds"], sorted(about["pairs"]), about["trained_runs"]) == ([0, 1], ["0", "1"], 4)
    command = [sys.executable, SCRIPT, *map(str, [*arguments[:-1], tmp_path / "again"]), "--reuse-records", str(elsewhere)]
    dry = subprocess.run([*command, "--dry-run"], capture_output=True, text=True)
    assert "there is nothing to run" in dry.stdout
    assert not (tmp_path / "again").exists()
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "there was nothing to run" in again.stdout
    assert pd.read_parquet(tmp_path / "again" / "measurements.parquet").equals(
        pd.read_parquet(elsewhere / "measurements.parquet")
    )


def test_the_best_policy_leaves_as_a_plain_model_with_a_card(finished, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, _ = finished
    out = tmp_path / "model"

    def export(*more):
        words = ["export", folder / "out", *more, "--best", "--runs", folder / "runs"]
        return subprocess.run(
            [sys.executable, "-m", "suite.cli.main", *map(str, words)], capture_output=True, text=True, cwd=tmp_path
        )

    done = export(out, "--kl", "1", "--method", "DPO")
    assert done.returncode == 0, done.stderr
    table = records(folder)
    table = table[(table["split"] == "validation") & (table["method"] == "DPO")]
    rows = table.pivot_table(index=["setting", "step"], columns="metric", values="value")
    setting, step = rows[rows["kl"] <= 1]["reward"].idxmax()
    card = (out / "README.md").read_text()
    assert card.startswith(f"# DPO {setting}, seed 0, step {step}\n")
    assert "| test prompts " in card
    assert "| lr " in card
    AutoTokenizer.from_pretrained(out)
    (key,) = re.findall(r"\| run +\| (\w+)", card)
    kept = folder / "runs" / "policy" / key / "snapshots" / f"step-{step:06d}"
    mine, theirs = (AutoModelForCausalLM.from_pretrained(place).state_dict() for place in (out, kept))
    assert all(bool((mine[name] == theirs[name]).all()) for name in theirs)
    for more, words in (
        ([out], "exists already"), ([tmp_path / "x", "--kl", "0.0001"], "no policy of any method spends so little"),
        ([tmp_path / "x", "--method", "KTO"], "these results have DPO"),
    ):  # fmt: skip
        done = export(*more)
        assert done.returncode == 2
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_it_leaves_everything_it_promises(finished):
    folder, printed = finished
    out = folder / "out"
    names = {path.name for path in out.iterdir()}
    assert names == {
        "records.csv",
        "measurements.parquet",
        "frontier.png",
        "frontier.svg",
        "budgets.svg",
        "training.parquet",
        "steps.svg",
        "training.svg",
        "study.json",
        "runs.json",
        "health.csv",
        "ideal.csv",
        "comparisons.csv",
        "summary.md",
        "samples.md",
        "samples.parquet",
        "report.html",
        "deviations.md",
    }
    assert (out / "frontier.png").read_bytes().startswith(b"\x89PNG")
    assert not [name for name in pd.read_parquet(out / "training.parquet") if name.startswith("seconds_")]  # never the same
    assert any("seconds_update" in path.read_text() for path in (folder / "runs" / "policy").glob("*/metrics.jsonl"))
    assert "Reward at equal KL" in printed
    for method in ("DPO", "Unlikelihood", "Preferred-FT", "PPO", "PPO-GT", "Best-of-N"):
        assert method in (out / "summary.md").read_text()
    assert (out / "frontier.svg").read_text().count('<g id="PolyCollection') + (out / "frontier.svg").read_text().count(
        '<g id="LineCollection'
    ) >= 4  # error bars of every method
    deviations = (out / "deviations.md").read_text()
    assert re.search(r"base model\s+\| gpt2-large .*differs", deviations)
    assert re.search(r"labels\s+\| hard\s+\| hard\s+\| same", deviations)


def test_every_mean_has_an_interval_and_an_n(finished):
    table = records(finished[0])
    assert (table["n"] > 0).all()
    assert (table["ci_low"] <= table["value"] + 1e-6).all()
    assert (table["value"] <= table["ci_high"] + 1e-6).all()
    kl = table[(table["metric"] == "kl") & (table["method"] == "DPO")]
    assert (kl["value"] > 0).all()
    assert set(kl["split"]) == {"validation", "test"}
    assert (kl.groupby("setting")["step"].nunique() == 2).all()
    assert (table[table["method"] == "Best-of-N-GT"]["privileged"]).all()
    assert not (table[table["method"] == "Best-of-N"]["privileged"]).any()
    assert set(table[(table["method"] == "Best-of-N") & (table["metric"] == "kl")]["estimator"]) == {"upper_bound"}


def test_every_figure_is_redrawn_from_the_records_without_torch(finished, tmp_path):
    folder, _ = finished
    (tmp_path / "results").mkdir()
    shutil.copytree(folder / "out", tmp_path / "results" / "smoke")
    arguments = ["make_figures.py", "--results", str(tmp_path / "results"), "--out", str(tmp_path / "figures")]
    code = (
        f"import runpy, sys; sys.argv = {arguments!r}\n"
        f"try: runpy.run_path({str(ROOT / 'experiments' / 'make_figures.py')!r}, run_name='__main__')\n"
        "except SystemExit as stop: assert stop.code == 0, stop.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("frontier.png", "frontier.svg", "budgets.svg", "steps.svg", "training.svg"):
        assert (tmp_path / "figures" / "smoke" / name).read_bytes() == (folder / "out" / name).read_bytes()


def test_health_and_the_ideal_are_there_for_every_policy(finished):
    out = finished[0] / "out"
    health = pd.read_csv(out / "health.csv", keep_default_na=False)
    assert health["method"].iloc[0] == "SFT (reference)"
    assert len(health) == 1 + 7 * 2
    assert (health["distinct_1"] <= health["distinct_2"]).all()
    assert health["reference_perplexity"].between(10, 1000).all()
    ideal = pd.read_csv(out / "ideal.csv")
    assert ideal["kl"].iloc[0] == 0
    assert ideal["kl"].iloc[-1] <= math.log(128) - 2 + 1e-9
    assert (ideal["reward"].diff().dropna() > 0).all()
    comparisons = pd.read_csv(out / "comparisons.csv", keep_default_na=False)
    assert set(comparisons["verdict"]) <= {"", "no policy there", "one seed: these policies"}
    bests = comparisons[comparisons["method"] == "Best-of-N-GT"].set_index("kl_budget")
    assert float(bests.loc["1", "optimality_high"]) < 1.1  # selecting by the gold reward comes near the ideal, not past it


def test_per_prompt_numbers_hold_no_text_and_give_the_records_back(finished):
    numbers = pd.read_parquet(finished[0] / "out" / "measurements.parquet")
    assert not {"text", "prompt", "prompt_text", "ids"} & set(numbers.columns)
    table = records(finished[0])
    wanted = table[(table["method"] == "DPO") & (table["metric"] == "reward") & (table["split"] == "test")]
    own = numbers[(numbers["method"] == "DPO") & (numbers["split"] == "test") & (numbers["metric"] == "reward")]
    again = own.groupby(["setting", "step"], observed=True)["value"].mean()
    for _, row in wanted.iterrows():
        assert again[row["setting"], row["step"]] == pytest.approx(row["value"], abs=1e-5)


def test_started_again_it_recomputes_nothing_and_redraws(finished):
    folder, _ = finished

    def stamps_of_runs():
        files = [path for path in (folder / "runs").rglob("*") if path.is_file() and path.parent.name != "studies"]
        return {path: path.stat().st_mtime_ns for path in files}

    stamps = stamps_of_runs()
    figure = (folder / "out" / "frontier.png").read_bytes()
    before = records(folder)
    (folder / "out" / "frontier.png").unlink()
    printed = run(folder)
    assert re.search(r"(\d+) runs: \1 cached", printed)
    assert stamps == stamps_of_runs()
    assert (folder / "out" / "frontier.png").read_bytes() == figure
    pd.testing.assert_frame_equal(records(folder), before)


def children_of(pid):
    return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_killed_at_every_stage_it_ends_with_the_same_records(finished, tmp_path):
    """SIGKILL of one sweep three times, each while another stage is at work: its workers die too, and what a last start leaves
    is the records of the run that was never killed.
    """
    more = ["--methods", "dpo"]
    for stage in ("samples", "policy", "measurements"):
        began = time.time()
        process = subprocess.Popen(command(tmp_path, *more), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 300
        leases = (tmp_path / "runs" / stage).glob
        while not any(lease.stat().st_mtime > began for lease in leases("*/lease-*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert process.poll() is None
        workers = children_of(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert workers
        while any(Path(f"/proc/{w}").exists() and "Z" not in Path(f"/proc/{w}/stat").read_text().split()[2] for w in workers):
            assert time.monotonic() < deadline, "workers outlived the sweep"
            time.sleep(0.05)
        assert not (tmp_path / "out" / "records.csv").exists()
    run(tmp_path, *more)
    whole = records(finished[0])
    same = whole[whole["method"].isin(["DPO", "SFT (reference)"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(records(tmp_path).reset_index(drop=True), same)


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """The example package, installed as a stranger's would be."""
    target = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source") / "package"
    shutil.copytree(ROOT / "tests" / "example_package", source)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(source)]
    done = subprocess.run(install, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return os.environ | {"PYTHONPATH": str(target), "HF_HUB_OFFLINE": "1"}


def compare(folder, environment, *more, out="compared"):
    arguments = [
        "-m",
        "suite.cli.main",
        "compare",
        "--profile",
        "smoke",
        "--workers",
        "1",
        "--runs",
        folder / "runs",
        "--out",
        folder / out,
        *more,
    ]
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, env=environment)


def test_a_method_from_outside_is_compared_with_recorded_baselines(finished, outside):
    """By its entry-point name: checked, searched, swept over its own grid, with the baselines' numbers as they were."""
    folder, _ = finished
    before = {path.name: path.read_bytes() for path in (folder / "out").iterdir()}
    recorded = ["--against", "dpo,ppo,best_of_n", "--reuse-records", folder / "out"]
    done = compare(folder, outside, "--method", "slic", "--rates", "1e-5,1e-4", *recorded)
    assert done.returncode == 0, done.stderr[-3000:]
    out = folder / "compared"
    page = (out / "verdict.md").read_text()
    assert re.search(r"\*\*These policies, not these methods\*\*: SLiC has .* DPO, .* PPO and .* Best-of-N", page)
    assert "1 training seed, paired, intervals simultaneous for" in page
    assert "of 2 candidates" in page
    assert page.count("- ok: ") == 9
    assert "Settings swept: slic 2, dpo 2, ppo 1, best_of_n 6" in page
    key = ["method", "setting", "seed", "step", "split", "metric"]
    ours, theirs = (
        pd.read_csv(folder / name / "records.csv", keep_default_na=False).set_index(key) for name in ("compared", "out")
    )
    assert {"SLiC", "DPO", "PPO", "Best-of-N", "SFT (reference)"} == set(ours.index.get_level_values("method"))
    assert {"delta = 1.0", "delta = 5.0"} == set(ours.loc["SLiC"].index.get_level_values("setting"))
    for method in ("DPO", "PPO", "Best-of-N", "SFT (reference)"):
        assert (ours.loc[method]["value"] == theirs.loc[method]["value"]).all()
    assert "SLiC" in (out / "summary.md").read_text()
    assert before == {path.name: path.read_bytes() for path in (folder / "out").iterdir()}  # read, not written


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--seeds", "3"], r"data 'imdb_sentiment, train, draw 3' is not among the recorded runs"),
        (["--micro-batch-size", "4"], r"micro_batch_size is 4 here, \d+ in the records"),
        (["--against", "ipo_sum"], r"'IPO \(sum\) beta = 0.1 seed 0' is not among the recorded runs"),
    ],
)
def test_records_of_other_runs_are_refused_with_the_reason(finished, outside, more, reason):
    folder, _ = finished
    done = compare(folder, outside, "--method", "slic", "--reuse-records", folder / "out", *more, "--dry-run")
    assert done.returncode != 0
    assert re.search(reason, done.stderr)
    assert "Leave the option out" in done.stderr
    assert "Traceback" not in done.stderr


def test_records_are_reused_in_their_own_arithmetic_and_other_pairs_are_told(finished, tmp_path):
    """Profiles choose bf16 where the machine has it; and another machine draws a few other completions for the same prompts."""
    from suite.analysis.reuse import in_recorded_precision, read_reusable, same_pairs
    from suite.evaluation.reward_kl_evaluator import RewardKLEvaluator
    from suite.interfaces import Contender
    from suite.study.plan import REFERENCE, plan_study
    from suite.study.profiles import GRIDS, sentiment_study

    folder, _ = finished
    study = sentiment_study("smoke")
    plan = plan_study(study, GRIDS["default"], RewardKLEvaluator(), reference=Contender(REFERENCE))
    recorded = read_reusable(folder / "out")
    assert in_recorded_precision(study, recorded) == study
    assert same_pairs(folder / "runs", plan, folder / "out", recorded)
    other = {"optim": "float64", "reward_model": "float32", "sampler_dtype": "float16"}
    changed = {**recorded.runs, "precision": other, "drawn": {**recorded.runs["drawn"], "pairs-0": "0"}}
    elsewhere = shutil.copytree(folder / "out", tmp_path / "recorded")
    (elsewhere / "runs.json").write_text(json.dumps(changed))
    theirs = read_reusable(elsewhere)
    taken = in_recorded_precision(study, theirs)
    assert (taken.optim.precision, taken.reward_model.precision, taken.sampler_dtype) == ("float64", "float32", "float16")
    assert not same_pairs(folder / "runs", plan, elsewhere, theirs)


def test_a_changed_loss_or_other_prompts_are_refused_too(finished, outside, tmp_path):
    folder, _ = finished
    shutil.copytree(folder / "out", tmp_path / "recorded")
    path = tmp_path / "recorded" / "runs.json"
    runs = json.loads(path.read_text())
    path.write_text(json.dumps({**runs, "drawn": {**runs["drawn"], "test": "0"}}))
    command = ["--method", "slic", "--rates", "1e-5", "--reuse-records", tmp_path / "recorded"]
    done = compare(folder, outside, *command)
    assert done.returncode != 0
    assert "test prompts drawn on this machine are not those of the records" in done.stderr
    (train,) = [run for run in runs["runs"].values() if run["title"] == "DPO beta = 0.1 seed 0"]
    others = {name: run for name, run in runs["runs"].items() if "beta = 0.1" not in run["title"]}
    path.write_text(json.dumps({**runs, "runs": {**others, "other": {**train, "code": "older"}}}))
    done = compare(folder, outside, *command, "--dry-run")
    assert "policy 'DPO beta = 0.1 seed 0': the code has changed since the records were made" in done.stderr


def test_the_live_page_shows_what_is_made(finished, tmp_path, monkeypatch):
    """Of a finished sweep what its results have; without some of its runs the rest, and curves of all that has logged."""
    from suite.report.html.live import Sweep
    from suite.study.plan_file import enter_studies

    folder, printed = finished
    monkeypatch.chdir(tmp_path)
    path = Path(re.search(r"suite watch (\S+)", printed)[1])
    whole = Sweep(*enter_studies(path)).look()
    every = whole["progress"]["runs"]
    assert whole["progress"] == {"runs": every, "done": every, "now": [], "failed": []}
    (study,) = whole["studies"]
    wanted = records(folder)
    places = ["method", "setting", "seed", "step"]
    assert len(study["policies"]["step"]) == len(wanted[places].drop_duplicates())
    assert len(study["training"]["runs"]) == len(wanted.loc[wanted["step"] > 0, places[:3]].drop_duplicates())
    copy = tmp_path / "copy"
    shutil.copytree(folder / "runs", copy, ignore=shutil.ignore_patterns("*.safetensors"))
    gone = 0
    for made in (copy / "measurements").glob("*/DONE"):
        if "PPO beta" in json.loads(made.read_text())["title"]:
            made.unlink()
            gone += 1
    monkeypatch.chdir(tmp_path)
    part = Sweep(*enter_studies(copy / "studies" / path.name)).look()
    assert gone
    assert part["progress"]["done"] == every - gone
    assert part["version"] != whole["version"]
    methods = {part["studies"][0]["methods"][k]["name"] for k in part["studies"][0]["policies"]["method"]}
    assert "DPO" in methods
    assert "PPO" not in methods
    assert len(part["studies"][0]["training"]["runs"]) == len(study["training"]["runs"])
    for made in (copy / "pairs").glob("*/DONE"):
        made.unlink()
    (damaged,) = list((copy / "measurements").glob("*/measurements.parquet"))[:1]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in copy.rglob("*")}
    start = Sweep(*enter_studies(copy / "studies" / path.name)).look()
    assert start["studies"][0]["policies"]["method"] == []
    assert start["studies"][0]["training"]["runs"]
    assert start["studies"][0]["budgets"] == []
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in copy.rglob("*")} == before  # it only reads
