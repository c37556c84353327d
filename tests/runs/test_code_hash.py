import importlib
import sys

import pytest

from suite.runs.code_hash import _digest_and_imports, code_hash
from suite.runs.stages import STAGES

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


@pytest.mark.parametrize(
    ("edited", "stages"),
    [
        ("suite.maths.sequence_log_probs", {"sft", "prompts", "completions", "reward_model", "scores", "train", "evaluation"}),
        ("suite.policies.sampling", {"sft", "prompts", "completions", "reward_model", "scores", "train", "evaluation"}),
        ("suite.evaluation.reward_kl", {"completions", "evaluation"}),
        ("suite.maths.kl", {"completions", "evaluation"}),
        ("suite.training.loop", {"sft", "completions", "reward_model", "scores"}),
        ("suite.rewards.reward_model", {"reward_model", "scores"}),
        ("suite.data.labelling", {"pairs"}),
        ("suite.data.tasks.imdb_sentiment", {"sft", "prompts"}),
    ],
)
def test_an_edit_changes_the_stages_it_decides_and_no_others(monkeypatch, edited, stages):
    original = _digest_and_imports
    before = {name: stage.code() for name, stage in STAGES.items()}
    monkeypatch.setattr(
        "suite.runs.code_hash._digest_and_imports",
        lambda name: ("edited", original(name)[1]) if name == edited else original(name),
    )
    assert {name for name, stage in STAGES.items() if stage.code() != before[name]} == stages


@pytest.mark.parametrize("module", ["suite.training.dpo", "baselines.unlikelihood", "baselines.preferred_ft"])
@pytest.mark.parametrize("edited", ["suite.maths.losses", "suite.training.loop"])
def test_an_edited_loss_or_loop_is_never_answered_from_an_old_run(monkeypatch, module, edited):
    original = _digest_and_imports
    before = STAGES["train"].code((module,))
    monkeypatch.setattr(
        "suite.runs.code_hash._digest_and_imports",
        lambda name: ("edited", original(name)[1]) if name == edited else original(name),
    )
    assert STAGES["train"].code((module,)) != before
