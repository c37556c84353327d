"""A plan is written without being carried out, and read for what it will take on machines that are not here."""

import re
from pathlib import Path

import pytest
from doors import through_doors

FRONTIER = str(Path(__file__).parents[2] / "experiments" / "run_imdb_frontier.py")


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plans")
    here = ["--profile", "smoke", "--runs", folder / "runs", "--out", folder / "out", "--precision", "float32"]
    planned = [
        (FRONTIER, *here, "--methods", methods, "--engine", "workers", "--dry-run") for methods in ("dpo", "dpo,preferred_ft")
    ]
    results = through_doors("run", [*planned, (FRONTIER, *here, "--methods", "unlikelihood", "--dry-run")], cwd=folder)
    plans = [re.search(r"the plan, for suite work and suite forecast: (\S+)", printed) for _, printed, _ in results]
    return folder, results, [found and folder / found[1] for found in plans]


def test_a_dry_run_writes_the_plan_for_workers_alone(ended):
    folder, results, plans = ended
    assert [code for code, *_ in results] == [0, 0, 0]
    assert plans[0].exists()
    assert plans[1].exists()
    assert plans[2] is None
    assert len(list((folder / "runs" / "plans").iterdir())) == 2
    assert not (folder / "out").exists()


def test_the_forecast_of_several_plans_counts_what_they_share_once(ended):
    folder, _, plans = ended
    lines = [("suite", "forecast", plans[0]), ("suite", "forecast", *plans[:2]), ("suite", "forecast", plans[1]),
             ("suite", "forecast", folder / "none.json")]  # fmt: skip
    *told, (code, _, complaint) = through_doors("run", lines, cwd=folder)
    assert [one[0] for one in told] == [0, 0, 0]
    one, both, second = (printed for _, printed, _ in told)
    assert both == second  # the second has all of the first
    trained = {name: int(re.search(r"^policy +(\d+)", text, re.M)[1]) for name, text in (("one", one), ("both", both))}
    assert trained == {"one": 2, "both": 3}
    for words in ("1 × A100, 80 GB: ", "8 × H100, 80 GB: ", "Memory, largest run, ", "Time, longest run, "):
        assert words in one
    assert code == 2
    assert "none.json: cannot be read" in complaint
    assert "Traceback" not in complaint
