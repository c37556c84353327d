import ast
import importlib
import sys
from dataclasses import replace

import pytest

from suite.engine.code_hash import _digest_and_imports, _function_digest, _written, code_hash
from suite.engine.making import closure
from suite.evaluation.reward_kl_evaluator import RewardKLEvaluator
from suite.interfaces import Contender
from suite.study.plan import plan_study
from suite.study.profiles import ASSETS, sentiment_study, text_study
from suite.study.study import SupervisedSettings
from suite.training.settings import OptimConfig

METHOD = '''
"""A method."""
from helper_of_test import twice
from suite.maths.losses import dpo_loss

def loss(x):
    """Twice x."""
    return twice(x)  # why not
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "kto_of_test"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "method.py").write_text(METHOD.replace("helper_of_test", "kto_of_test.helper"))
    (folder / "helper.py").write_text("def twice(x):\n    return 2 * x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for name in [n for n in sys.modules if n.startswith("kto_of_test")]:
        del sys.modules[name]


def digest():
    importlib.invalidate_caches()
    _digest_and_imports.cache_clear()
    return code_hash(["kto_of_test.method"])


def test_what_runs_counts_and_what_is_only_read_does_not(package):
    before = digest()
    path = package / "method.py"
    path.write_text(path.read_text().replace("# why not", "# because").replace("Twice x.", "Two x."))
    assert digest() == before
    path.write_text(path.read_text().replace("return twice(x)", "return -twice(x)"))
    assert digest() != before


def test_the_hash_is_the_same_in_every_locale(package, monkeypatch):
    from pathlib import Path

    (package / "helper.py").write_text("def twice(x):\n    return {'β': 2 * x}['β']\n", encoding="utf-8")
    _function_digest.cache_clear()
    before, function = digest(), _function_digest("kto_of_test.helper:twice")
    read = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path, encoding="latin-1", errors=None: read(path, encoding, errors))
    _function_digest.cache_clear()
    assert digest() == before
    assert _function_digest("kto_of_test.helper:twice") == function


def test_an_outside_methods_own_helpers_count(package):
    before = digest()
    (package / "helper.py").write_text("def twice(x):\n    return 3 * x\n")
    assert digest() != before


def test_every_way_of_importing_an_own_helper_counts(package):
    path = package / "method.py"
    for line in (
        "from kto_of_test import helper",
        "from . import helper",
        "import kto_of_test.helper",
        "from .helper import twice",
    ):
        path.write_text(f"{line}\n")
        (package / "helper.py").write_text("x = 1\n")
        before = digest()
        (package / "helper.py").write_text("x = 2\n")
        assert digest() != before, line


def test_of_a_function_its_own_body_counts_alone(package):
    path = package / "method.py"

    def of_function():
        _function_digest.cache_clear()
        return code_hash([], ["kto_of_test.method:loss"])

    before = of_function()
    path.write_text(path.read_text().replace("Twice x.", "Two x.") + "\n\ndef other():\n    return 1\n")
    assert of_function() == before
    path.write_text(path.read_text().replace("return twice(x)", "return -twice(x)"))
    assert of_function() != before


@pytest.mark.parametrize("name", ["kto_of_test.method:gone", "kto_of_test.gone:loss", "kto_of_test.method"])
def test_a_function_that_does_not_exist_is_named(package, name):
    with pytest.raises(ValueError, match=f"{name}: there is no such function"):
        code_hash([], [name])


def test_every_version_of_python_reads_the_same():
    """Syntax trees differ between versions in their empty fields: the text is that of 3.11, 3.12 and 3.13."""
    tree = ast.parse("class A:\n    def f(self, x=1):\n        return f'{x:{w}}'\n")
    assert _written(tree) == (
        "Module(body=[ClassDef(body=[FunctionDef(args=arguments(args=[arg(arg='self'), arg(arg='x')], "
        "defaults=[Constant(value=1)]), body=[Return(value=JoinedStr(values=[FormattedValue(conversion=-1, "
        "format_spec=JoinedStr(values=[FormattedValue(conversion=-1, value=Name(ctx=Load(), id='w'))]), "
        "value=Name(ctx=Load(), id='x'))]))], name='f')], name='A')])"
    )
    early_312 = ast.JoinedStr([ast.Constant("a"), ast.Constant("")])  # its parser left an empty part behind
    assert _written(early_312) == "JoinedStr(values=[Constant(value='a')])"
    assert _written(ast.parse("return_none = None")) != _written(ast.parse("return_none = ''"))


SFT = SupervisedSettings(OptimConfig(num_snapshots=1), texts=4, max_tokens=8)


def codes(study, grid):
    """Stage → hash of the code of each of its runs."""
    plan = plan_study(study, grid, RewardKLEvaluator(), reference=Contender("reference"))
    found = {}
    for spec in closure(plan.targets):
        found.setdefault(spec.stage, {})[spec.title] = spec.code
    return found


def sentiment_codes(grid):
    return codes(sentiment_study("smoke", source="stanfordnlp/imdb", sft=SFT), grid)


def edit(monkeypatch, edited):
    original = _digest_and_imports
    monkeypatch.setattr(
        "suite.engine.code_hash._digest_and_imports",
        lambda name: ("edited", original(name)[1]) if name == edited else original(name),
    )


SAMPLED = {"sft", "data", "samples", "reward_model", "scores", "policy", "measurements"}


@pytest.mark.parametrize(
    ("edited", "stages"),
    [
        ("suite.maths.sequence_log_probs", SAMPLED),
        ("suite.policies.sampling", SAMPLED),
        ("suite.evaluation.reward_kl", {"samples", "measurements"}),
        ("suite.maths.kl", {"samples", "measurements"}),
        ("suite.training.loop", SAMPLED - {"data"}),
        ("suite.rewards.reward_model", {"reward_model", "scores", "measurements"}),
        ("suite.data.labelling", {"pairs"}),
        ("suite.tasks.imdb_sentiment", {"sft", "data"}),
    ],
)
def test_an_edit_changes_the_stages_it_decides_and_no_others(monkeypatch, edited, stages):
    grid = {"dpo": [{}], "best_of_n": [{"n": 2}]}
    before = sentiment_codes(grid)
    edit(monkeypatch, edited)
    after = sentiment_codes(grid)
    assert {stage for stage in before if after[stage] != before[stage]} == stages


@pytest.mark.parametrize(
    ("edited", "stages"),
    [
        ("suite.policies.sampling", {"data", "sft", "reference_log_probs", "policy", "samples", "scores", "measurements"}),
        ("suite.tasks.tldr_summarization", {"data"}),
        ("suite.tasks.splits", {"data"}),
        ("suite.data.labelling", set()),
    ],
)
def test_an_edit_changes_the_stages_of_given_preferences_that_it_decides(monkeypatch, edited, stages):
    study = text_study("tldr_summarization", "smoke", own_judge=False)
    study = replace(study, gold_reward=str(ASSETS / "imdb-sentiment"), validation_prompts=4)
    before = codes(study, {"dpo": [{}]})
    edit(monkeypatch, edited)
    after = codes(study, {"dpo": [{}]})
    assert {stage for stage in before if after[stage] != before[stage]} == stages


@pytest.mark.parametrize(
    "module", ["suite.methods.dpo:DPO", "baselines.unlikelihood:Unlikelihood", "baselines.preferred_ft:PreferredFT"]
)
@pytest.mark.parametrize("edited", ["suite.maths.losses", "suite.training.loop"])
def test_an_edited_loss_or_loop_is_never_answered_from_an_old_run(monkeypatch, module, edited):
    before = sentiment_codes({module: [{}]})["policy"]
    edit(monkeypatch, edited)
    assert sentiment_codes({module: [{}]})["policy"] != before
