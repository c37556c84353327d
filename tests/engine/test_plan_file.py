"""A plan that another process, in another folder, reads is the plan: the same keys, or a line that says why not."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

import suite
from suite.common.errors import UserError
from suite.engine import plan_file
from suite.engine.making import closure
from suite.engine.plan_file import enter_plan, write_plan
from suite.engine.store import RunSpec
from suite.study.profiles import sentiment_study
from suite.study.specs import Specs

RUNS = Path("results/runs")


@pytest.fixture(scope="module")
def specs():
    study = sentiment_study("smoke", device="cpu", precision="float32", micro_batch_size=None)
    _, dpo = Specs(study).policy("dpo", {}, 0)
    _, ppo = Specs(study).policy("ppo", {}, 0)
    return [dpo, ppo]


@pytest.fixture
def there(tmp_path, monkeypatch):
    """The folder in which the command is given."""
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    return tmp_path / "there"


def test_every_run_is_read_as_it_was_planned_from_anywhere(specs, there, monkeypatch):
    plan = write_plan(RUNS, specs)
    monkeypatch.chdir("/")
    root, found = enter_plan(there / plan)
    assert (root, Path.cwd()) == (there / RUNS, there)
    assert [spec.key for spec in found] == [spec.key for spec in specs]
    for ours, theirs in zip(closure(specs), closure(found), strict=True):
        for name in ("key", "stage", "title", "function", "work", "where"):
            assert getattr(theirs, name) == getattr(ours, name), name
        assert json.loads(json.dumps(ours.as_json())) == theirs.as_json()


def test_no_path_in_it_is_of_one_machine_alone(specs, there):
    own = RunSpec("stage", {}, where={
        "source": f"{there}/a.jsonl,{there}/b, c.jsonl", "model": str(Path(suite.__file__).parent / "assets" / "imdb-gpt2"),
        "judge": "openai:gpt-4", "near": "./x",
    })  # fmt: skip
    plan = write_plan(RUNS, [*specs, own])
    text = plan.read_text()
    assert str(there) not in text
    assert str(Path(suite.__file__).parent) not in text
    kept = json.loads(text)["runs"][-1]["where"]
    assert kept["source"] == "a.jsonl,b, c.jsonl"
    assert (kept["judge"], kept["near"]) == ("openai:gpt-4", "./x")
    assert enter_plan(plan)[1][-1].where["model"] == own.where["model"]


def test_runs_behind_a_link_lead_back_to_the_folder_of_the_command(specs, there, tmp_path, monkeypatch):
    deep = tmp_path / "scratch" / "deep" / "runs"
    deep.mkdir(parents=True)
    RUNS.parent.mkdir()
    RUNS.symlink_to(deep)
    plan = write_plan(RUNS, specs)
    for path in (there / plan, deep / plan.relative_to(RUNS)):
        monkeypatch.chdir("/")
        enter_plan(path)
        assert Path.cwd() == there


def test_a_file_beside_the_package_is_no_part_of_it(there):
    beside = Path(suite.__file__).parents[1] / "pairs.jsonl"
    plan = write_plan(RUNS, [RunSpec("stage", {}, where={"source": str(beside)})])
    kept = json.loads(plan.read_text())["runs"][0]["where"]["source"]
    assert kept == os.path.relpath(beside, there)


def test_other_code_is_refused_by_name(specs, there, monkeypatch):
    plan = write_plan(RUNS, specs)
    real = plan_file.code_hash
    changed = "suite.methods.dpo"
    monkeypatch.setattr(plan_file, "code_hash", lambda m, f: "0" * 16 if changed in m else real(m, f))
    with pytest.raises(UserError, match=r"plans/\w+\.json: policy 'DPO.*': the code here is not that which planned it"):
        enter_plan(plan)


def test_a_method_that_is_not_here_is_one_line(there):
    spec = RunSpec("policy", {}, code="c", title="mine", made_of=(("nowhere_at_all",), ("nowhere_at_all:train",)))
    plan = write_plan(RUNS, [spec])
    with pytest.raises(UserError, match=r"plans/\w+\.json: policy 'mine'.*nowhere_at_all"):
        enter_plan(plan)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, r"cannot be read \(No such file or directory\)"),
        ("{", "is no plan"),
        ("[]", "is no plan"),
        ("{}", "is no plan"),
        ('{"format": 99}', "is a plan of another version"),
    ],
)
def test_what_is_no_plan_is_one_line(there, text, words):
    if text is not None:
        Path("a.json").write_text(text)
    with pytest.raises(UserError, match=rf"a\.json: {words}"):
        enter_plan(Path("a.json"))


def test_a_key_does_not_depend_on_what_its_code_is_made_of(specs):
    assert replace(specs[0], made_of=((), ())).key == specs[0].key
    assert os.path.isabs(specs[0].where["model"])
