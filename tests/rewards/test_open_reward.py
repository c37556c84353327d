"""Rewards by name: models, and functions of anybody's."""

import sys

import pytest
from classifiers import classifier

from suite.common.errors import UserError
from suite.rewards.ngram_reward import NgramReward
from suite.rewards.open_reward import is_function, open_reward
from suite.rewards.text_rewards import ClassifierReward
from suite.study.profiles import ASSETS
from suite.study.specs import resolve_reward


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "my_rewards.py").write_text(
        "LIMIT = 3\n"
        "def length(prompts, completions):\n    return [len(c) for c in completions]\n"
        "def one(prompts, completions):\n    return [1.0]\n"
        "def nan(prompts, completions):\n    return [float('nan')] * len(completions)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "my_rewards.py"
    sys.modules.pop("my_rewards", None)


def test_a_function(module):
    assert open_reward("my_rewards:length")(["a", "b"], ["xx", ""]) == [2.0, 0.0]
    assert is_function("my_pkg.rewards:politeness")
    assert not is_function("owner/model")
    assert not is_function("/folder:x")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_rewards:one", "returned 1 values for 2 completions"),
        ("my_rewards:nan", "returned nan for 'x'"),
    ],
)
def test_what_it_returns_is_checked(module, name, message):
    with pytest.raises(UserError, match=message):
        open_reward(name)(["a", "b"], ["x", "y"])


def test_what_is_no_reward_is_said_in_one_line(module):
    for name, message in (
        ("my_rewards:LIMIT", "expected a function"),
        ("my_rewards:gone", "cannot be loaded"),
        ("nowhere:f", "cannot be loaded"),
    ):
        with pytest.raises(UserError, match=message):
            open_reward(name)


def test_folders_open_as_what_they_are(tmp_path):
    assert isinstance(open_reward(str(ASSETS / "imdb-sentiment")), NgramReward)
    classifier(tmp_path)
    assert isinstance(open_reward(str(tmp_path)), ClassifierReward)


def test_a_changed_function_is_another_reward(module):
    _, before = resolve_reward("my_rewards:length")
    module.write_text(module.read_text().replace("len(c)", "2 * len(c)"))
    from suite.engine import code_hash

    code_hash._digest_and_imports.cache_clear()
    assert resolve_reward("my_rewards:length")[1] != before


def test_so_is_one_whose_neighbour_changed(module):
    """What a reward imports from beside it decides its result too."""
    (module.parent / "lexicon_of_mine.py").write_text("WORDS = ['good']\n")
    module.write_text("import lexicon_of_mine\n" + module.read_text())
    from suite.engine import code_hash

    _, before = resolve_reward("my_rewards:length")
    (module.parent / "lexicon_of_mine.py").write_text("WORDS = ['bad']\n")
    code_hash._digest_and_imports.cache_clear()
    assert resolve_reward("my_rewards:length")[1] != before
