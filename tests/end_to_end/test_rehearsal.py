"""Everything of the paper's profile, on a Hub of this machine."""

import subprocess
import sys
from pathlib import Path

import pytest

REPRODUCE = Path(__file__).parents[2] / "experiments" / "reproduce_paper.py"


@pytest.mark.slow
def test_the_whole_paper_is_rehearsed(tmp_path):
    command = [sys.executable, str(REPRODUCE), "--profile", "paper", "--rehearse", "--out", str(tmp_path / "paper")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    table = done.stdout.partition("paper                   experiment")[2]
    assert table.count(" done ") == 11
    told = (tmp_path / "paper" / "forecast.txt").read_text()
    assert "6,051 million weights" in told  # GPT-J's, though none of its weights are here
    assert told.strip() in done.stdout


def test_it_is_of_the_papers_profile_alone(tmp_path):
    done = subprocess.run([sys.executable, str(REPRODUCE), "--rehearse"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip().endswith("--rehearse is for --profile paper, not for smoke")
    asked = [sys.executable, str(REPRODUCE), "--profile", "paper", "--rehearse", "--runs", "elsewhere"]
    done = subprocess.run(asked, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "leave out --runs and --judge" in done.stderr
