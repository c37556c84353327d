"""Each broken method fails the check that is about its fault, in one line, without a traceback."""

import sys

import pytest

from suite.check.checks import check_method
from suite.cli.main import main


@pytest.mark.parametrize(
    ("name", "check", "words"),
    [
        ("WrongSign", "promise", ["follows_optimum", "KL(π‖π*)"]),
        ("WrongBeta", "promise", ["follows_optimum", "seems to follow"]),
        ("NoGain", "promise", ["improves_reward", "+0.00"]),
        ("TrainsTheReference", "reference_untouched", ["train reference.copy()"]),
        ("GlobalSeed", "same_seed", ["run.seed"]),
        ("ForgetsTheOptimizer", "resume", ["ends elsewhere"]),
        ("NoSnapshots", "kept_snapshots", ["0 snapshots", "run.snapshot"]),
        ("MeanLogProb", "measurement", ["not to 1"]),
        ("FlippedKL", "measurement", ["kl_k1", "by enumeration"]),
        ("Unsigned", "measurement", ["sampler_log_prob"]),
        ("SameSnapshotTwice", "kept_snapshots", ["all of one policy"]),
        ("DemandingConfig", "contract", ["beta", "without arguments"]),
        ("ConfigWithoutOptim", "contract", ["optim: OptimConfig"]),
        ("NeedsAList", "contract", ["frozenset"]),
        ("Exits", "training", ["SystemExit: bye", "broken_methods.py:"]),
        ("SavesSomethingElse", "save_and_load", ["differs"]),
        ("Crashes", "training", ["RuntimeError: the loss broke", "broken_methods.py:"]),
        ("ThawedConfig", "contract", ["frozen"]),
        ("UnknownNeed", "contract", ["pears"]),
        ("OddPromise", "contract", ["'wins'", "follows_optimum"]),
        ("PromisesWithoutBeta", "contract", ["no beta"]),
        ("NoPolicy", "training", ["str", "no Policy"]),
        ("MeanLoss", "training", ["the loss", "one value per example, shape (100,)", "got ()"]),
        ("LossOfSides", "training", ["the loss", "got (100, 2)"]),
        ("MeanMetric", "training", ["metric 'mine'", "got ()"]),
        ("MetricOfNumbers", "training", ["metric 'mine'", "got float"]),
        ("MetricWithGradient", "training", ["metric 'mine'", "detach it"]),
        ("TensorInConfig", "contract", ["'weights'", "torch.Tensor", "numbers, strings"]),
    ],
)
def test_the_fault_is_found(name, check, words):
    failed = {result.name: result.why for result in check_method(f"broken_methods:{name}") if not result.ok}
    assert check in failed
    assert all(word in failed[check] for word in words), failed[check]
    assert "\n" not in failed[check]


IMPORTED_BADLY = {
    "parses": "import argparse\np = argparse.ArgumentParser()\np.add_argument('--data', required=True)\np.parse_args([])\n",
    "exits": "import sys\nsys.exit('this is a script')\n",
    "raises": "raise LookupError('no GPU')\n",
}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("broken_methods:TypeThatIsNotThere", ["field 'optim'", "OnlyForCheckers", "if TYPE_CHECKING"]),
        ("broken_methods:TwoLines", [r"'two\nlines'", "one line"]),
        ("broken_methods:NoName", ["' '", "one line"]),
        ("broken_methods:NumberForAName", ["its name is 3"]),
        ("parses:M", ["parses a command line when it is imported", "--data", "__main__"]),
        ("exits:M", ["SystemExit", "this is a script"]),
        ("raises:M", ["LookupError", "no GPU"]),
    ],
)
def test_what_cannot_be_a_method_is_refused_in_one_line(monkeypatch, capsys, tmp_path, name, words):
    for module, text in IMPORTED_BADLY.items():
        (tmp_path / f"{module}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "argv", ["suite", "check-method", name])
    assert main() == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert all(word in err for word in words), err


def test_a_method_that_ignores_the_seed_is_told_so():
    (why,) = [result.why for result in check_method("broken_methods:FixedSeed") if result.name == "same_seed"]
    assert "nothing in it is random" in why


def test_the_command_prints_and_exits(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["suite", *arguments])
        return main(), *capsys.readouterr()

    code, out, _ = call("check-method", "broken_methods:ThawedConfig")
    assert code == 1
    assert "FAILED contract" in out
    assert "1 of 1 checks failed" in out
    code, out, _ = call("check-method", "sft")
    assert code == 0
    assert "all 9 checks passed" in out
    code, _, err = call("check-method", "dpoo")
    assert code == 2
    assert err.startswith("error: ")
    assert "did you mean 'dpo'" in err
