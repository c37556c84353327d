"""What a judge said stands in results only for the prompts whose texts may."""

from types import SimpleNamespace

import pytest

from suite.data.comparisons import Comparison
from suite.evaluation.win_rate import ask
from suite.judges.judging import Answer
from suite.judges.verdict_store import VerdictStore
from suite.report.curves import _with_replies
from suite.study.run import VERDICTS, Options


class Talkative:
    """Chooses what stands first, and says so."""

    name, identity = "talkative", {"judge": "talkative"}

    def answer(self, questions, receive, claim):
        for question in questions:
            if claim(question):
                receive(question, Answer("A", f"I choose {question.a}"))


@pytest.mark.parametrize("many", [0, 1, 2])
def test_replies_of_so_many_prompts(tmp_path, many):
    comparisons = [Comparison(f"p{k}", "prompt", f"policy {k}", f"reference {k}") for k in range(3)]
    table = ask(Talkative(), comparisons, VerdictStore(tmp_path / VERDICTS))
    told = _with_replies(table, SimpleNamespace(options=Options(tmp_path, page_samples=many)))
    assert "key" not in told
    if not many:
        assert "reply" not in told
        return
    for row in told.to_dict("records"):
        number = int(row["prompt_id"][1:])
        first = f"reference {number}" if row["swapped"] else f"policy {number}"
        assert row["reply"] == (f"I choose {first}" if number < many else "")
