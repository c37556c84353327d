"""RLHF in Llama 2's order on made-up dialogues, as a user starts it: the whole folder, and a second start that makes nothing."""

import pandas as pd
import pytest
from doors import run_script


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("llama2")
    started = run_script("run_llama2_rlhf.py", "--no-gatt", "--runs", where / "runs", "--out", where / "out")
    return where, started
