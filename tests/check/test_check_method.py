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
    ],
)
def test_the_fault_is_found(name, check, words):
    failed = {result.name: result.why for result in check_method(f"broken_methods:{name}") if not result.ok}
    assert check in failed
    assert all(word in failed[check] for word in words), failed[check]
    assert "\n" not in failed[check]


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
