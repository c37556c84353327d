"""What is read off a finished study's samples."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from suite.analysis import gather
from suite.analysis.gather import kl_of_answers
from suite.interfaces import Contender, Point


def answers(monkeypatch, logps, reference, *, n=1, temperature=1.0):
    """KL by prompt of answers with these log-probs."""
    frame = pd.DataFrame({
        "split": "test", "prompt_id": [f"p{k}" for k in range(len(logps))], "sample": 0, "sampler_log_prob": logps,
        "reference_logps": reference,
    })  # fmt: skip
    monkeypatch.setattr(gather, "samples_of", lambda root, planned: frame)
    point = Point("temperature", temperature, temperature)
    found = kl_of_answers(None, SimpleNamespace(contender=Contender("A", n=n), point=point))
    return None if found.empty else list(found["value"])


def test_kl_of_answers_is_that_of_whole_answers_at_temperature_one(monkeypatch):
    assert answers(monkeypatch, [-1.0, -2.0], [-3.0, -2.5]) == [2.0, 0.5]
    assert answers(monkeypatch, [-1.0, -2.0], [-3.0, -2.5], temperature=0.5) is None
    assert answers(monkeypatch, [-1.0, -2.0], [-3.0, np.nan]) is None


def test_answers_that_were_cut_at_a_stop_have_no_kl(monkeypatch):
    """As prompting cuts them: their log-probability is not known, and no mean can be taken over the others."""
    assert answers(monkeypatch, [-1.0, np.nan], [-3.0, -2.5]) is None
    bound = np.log(4) - 3 / 4
    assert answers(monkeypatch, [-1.0, np.nan], [-3.0, -2.5], n=4) == pytest.approx([bound, bound])  # a formula
