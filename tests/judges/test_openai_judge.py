"""The real openai client against a server that misbehaves."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fault_server import TRANSIENT, FaultServer

from suite.common.errors import UserError
from suite.data.comparisons import Comparison, Question
from suite.evaluation.win_rate import ask, win_rate
from suite.judges.bill import Limits
from suite.judges.openai_judge import OpenAIJudge, retry_after
from suite.judges.templates import load_template
from suite.judges.verdict_store import VerdictStore

KEY = "sk-a-very-secret-key"
PARAMETERS = {"temperature": 0, "max_tokens": 50}
QUICK = {"backoff_s": 0.01, "timeout_s": 0.5}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def comparisons(count, *, prompts=None):
    return [Comparison(f"p{i % (prompts or count)}", f"Post {i}", f"good {i}", f"bad answer {i}") for i in range(count)]


def judge(**settings):
    limits = Limits(**{**QUICK, **{k: v for k, v in settings.items() if k != "price"}})
    return OpenAIJudge("m", load_template("summarization_c"), parameters=PARAMETERS, limits=limits, price=settings.get("price"))


def good_wins(text):
    """Reads the fenced texts as a judge would, and prefers the good one."""
    first = text.split(" A\n", 1)[1]
    return f"One is good.\nPreferred: {'A' if first.startswith('good') else 'B'}"


@pytest.fixture
def serve(monkeypatch):
    servers = []

    def start(**settings):
        server = FaultServer(**{"choose": good_wins, **settings})
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        servers.append(server.__enter__())
        return server

    yield start
    for server in servers:
        server.__exit__()


def test_both_orders_are_asked_and_remembered(tmp_path, serve):
    server = serve()
    store = VerdictStore(tmp_path / "v.sqlite")
    table = ask(judge(), comparisons(5), store)
    result = win_rate(table)
    assert (result.win_rate.mean, result.n_asked, result.n_valid, result.flips.mean) == (1.0, 10, 10, 0.0)
    assert server.sent == 10
    again = ask(judge(), comparisons(5), store)
    assert server.sent == 10
    assert again["stored"].all()
    rows = store.table()
    assert set(rows["served_model"]) == {"m-2026-01-01 fp_1"}
    assert json.loads(rows["identity"][0])["parameters"] == PARAMETERS


def test_another_template_parameter_seed_or_text_is_another_question(tmp_path, serve):
    server = serve()
    store, one = VerdictStore(tmp_path / "v.sqlite"), comparisons(1)
    template = load_template("summarization_c")
    limits = Limits(**QUICK)
    ask(OpenAIJudge("m", template, parameters=PARAMETERS, limits=limits), one, store)
    others = [
        OpenAIJudge("m", load_template("summarization_s"), parameters=PARAMETERS, limits=limits),
        OpenAIJudge("m", template, parameters={**PARAMETERS, "temperature": 1}, limits=limits),
        OpenAIJudge("m", template, parameters=PARAMETERS, seed=1, limits=limits),
        OpenAIJudge("n", template, parameters=PARAMETERS, limits=limits),
    ]
    for count, other in enumerate(others, start=2):
        ask(other, one, store)
        assert server.sent == 2 * count


@pytest.mark.parametrize("fault", TRANSIENT)
def test_after_a_fault_the_question_is_asked_again(tmp_path, serve, fault):
    server = serve(fault=lambda number, text: fault if number == 0 else "")
    store = VerdictStore(tmp_path / "v.sqlite")
    asking = judge(concurrency=1)
    table = ask(asking, comparisons(1), store)
    assert table["winner"].tolist() == ["policy", "policy"]
    assert server.sent == 3
    assert asking.bill.maybe_paid == (fault in ("hang", "reset", "truncated", "empty choices", "not json", "drip"))
    if fault == "429 later":
        assert server.times[1] - server.times[0] >= 0.3


def test_a_question_that_never_succeeds_is_a_counted_failure_and_asked_by_the_next_run(tmp_path, serve):
    broken = [True]
    server = serve(fault=lambda number, text: "500" if broken[0] and "Post 0\n" in text else "")
    store = VerdictStore(tmp_path / "v.sqlite")
    table = ask(judge(attempts=3), comparisons(2), store)
    assert table["winner"].tolist() == ["failed", "failed", "policy", "policy"]
    assert "3 attempts: status 500" in table["failure"][0]
    result = win_rate(table)
    assert (result.n_failed, result.n_valid, result.n_comparisons, result.n_compared) == (2, 2, 1, 2)
    assert len(store.table()) == 2
    broken[0] = False
    before = server.sent
    assert ask(judge(), comparisons(2), store)["winner"].tolist() == ["policy"] * 4
    assert server.sent == before + 2


def test_a_refusal_and_a_reply_without_a_choice_are_invalid_not_guessed(tmp_path, serve):
    server = serve(fault=lambda number, text: "refusal" if "Post 0\n" in text else "", choose=lambda text: "Hard to say.")
    table = ask(judge(), comparisons(2), VerdictStore(tmp_path / "v.sqlite"))
    assert table["winner"].tolist() == ["invalid"] * 4
    assert server.sent == 4
    with pytest.raises(ValueError, match="no comparison has a valid verdict"):
        win_rate(table)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("401", ["key is not accepted", "401"]),
        ("403", ["may not use"]),
        ("404", ["no such model"]),
        ("quota", ["no credit"]),
        ("context", ["'p3'", "context"]),
        ("parameter", ["refuses the parameter temperature", "--parameters"]),
        ("400", ["refuses the request"]),
    ],
)
def test_what_cannot_get_better_stops_at_once_with_one_line(tmp_path, serve, fault, words):
    server = serve(fault=lambda number, text: fault if "Post 3\n" in text else "")
    store = VerdictStore(tmp_path / "v.sqlite")
    with pytest.raises(UserError) as caught:
        ask(judge(concurrency=2), comparisons(40), store)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert KEY not in message
    assert server.sent <= 12
    assert len(store.table()) == server.answered.total()  # what was in flight is paid and kept


def test_the_key_is_nowhere(tmp_path, serve, capfd):
    serve(choose=lambda text: "Your key is {key}.\nPreferred: A", fault=lambda number, text: "500" if number < 3 else "")
    store = VerdictStore(tmp_path / "v.sqlite")
    table = ask(judge(), comparisons(3), store)
    del store
    for path in tmp_path.iterdir():
        assert KEY.encode() not in path.read_bytes()
    assert KEY not in table.to_csv()
    assert KEY not in "".join(capfd.readouterr())
    assert "[key]" in VerdictStore(tmp_path / "v.sqlite").table()["reply"][0]


def test_a_failure_does_not_hold_the_key(serve):
    serve(fault=lambda number, text: "401")
    with pytest.raises(UserError) as caught:
        judge().answer([Question(comparisons(1)[0], False)], lambda *_: None, lambda _: True)
    error = caught.value
    while error is not None:
        assert KEY not in repr(error) + repr(vars(error))
        assert not hasattr(error, "request")
        error = error.__cause__ or error.__context__


def test_half_a_character_is_stored_all_the_same(tmp_path, serve):
    serve(choose=lambda text: "It is \ud83d\nPreferred: A")
    store = VerdictStore(tmp_path / "v.sqlite")
    assert ask(judge(), comparisons(4), store)["winner"].isin(["policy", "opponent"]).all()
    assert store.table()["reply"][0].startswith("It is ?")


def test_a_reply_that_was_cut_has_no_verdict(tmp_path, serve):
    serve(fault=lambda number, text: "cut", choose=lambda text: "On balance\nA")
    assert ask(judge(), comparisons(1), VerdictStore(tmp_path / "v.sqlite"))["winner"].tolist() == ["invalid"] * 2


def test_parameters_of_other_servers_are_sent(tmp_path, serve):
    server = serve()
    parameters = {"max_tokens": 50, "top_k": 5}
    one = OpenAIJudge("m", load_template("summarization_c"), parameters=parameters, limits=Limits(**QUICK))
    ask(one, comparisons(1), VerdictStore(tmp_path / "v.sqlite"))
    assert server.last["top_k"] == 5
    assert server.last["max_tokens"] == 50
    with pytest.raises(UserError, match="extra_body cannot be set"):
        OpenAIJudge("m", load_template("summarization_c"), parameters={"extra_body": {"n": 2}})


def test_a_server_that_is_not_there_is_one_line_and_costs_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    asking = judge(attempts=2, price=(1.0, 1.0))
    with pytest.raises(UserError, match="cannot be reached"):
        ask(asking, comparisons(20), VerdictStore(tmp_path / "v.sqlite"))
    assert (asking.bill.cost, asking.bill.maybe_paid) == (0, 0)


def test_a_store_that_fails_stops_the_run_and_the_others_hand_over(serve):
    serve()
    kept = []

    def keep(question, answer):
        if not kept:
            kept.append(None)
            raise OSError("disk full")
        kept.append(answer)

    with pytest.raises(OSError, match="disk full"):
        judge(concurrency=4).answer([Question(c, False) for c in comparisons(40)], keep, lambda _: True)
    assert 1 < len(kept) <= 1 + 4


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2), ({"retry-after-ms": "500"}, 0.5), ({"retry-after": "nan"}, None), ({}, None),
        ({"retry-after": "99999"}, 600), ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0), ({"retry-after": "soon"}, None),
    ],
)  # fmt: skip
def test_retry_after_is_read(headers, seconds):
    assert retry_after(headers) == seconds


def test_a_stop_wakes_those_who_wait(tmp_path, serve):
    """One question's server asks for ten minutes; another's refusal ends the run at once."""
    serve(fault=lambda number, text: "429 long" if "Post 0\n" in text else "401" if number > 2 else "")
    with pytest.raises(UserError, match="not accepted"):
        ask(judge(concurrency=3), comparisons(10), VerdictStore(tmp_path / "v.sqlite"))


@pytest.mark.parametrize("url", ["localhost:8000/v1", "http://h:abc", "ftp://x"])
def test_a_bad_address_is_one_line(monkeypatch, url):
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(UserError, match="OPENAI_BASE_URL"):
        judge()


def test_no_key_is_one_line(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UserError, match="OPENAI_API_KEY is not set"):
        ask(judge(), comparisons(1), VerdictStore(tmp_path / "v.sqlite"))


def test_max_calls_is_never_passed(tmp_path, serve):
    server = serve(fault=lambda number, text: "500" if number % 3 == 0 else "")
    store = VerdictStore(tmp_path / "v.sqlite")
    with pytest.raises(UserError, match="--max-calls 7 of this run is reached"):
        ask(judge(max_calls=7), comparisons(20), store)
    assert server.sent == 7
    assert len(store.table()) == server.answered.total()


def test_max_cost_is_never_passed_and_nearly_used(tmp_path, serve):
    server = serve()
    store = VerdictStore(tmp_path / "v.sqlite")
    asking = judge(max_cost=0.02, price=(1.0, 1.0))
    with pytest.raises(UserError, match="--max-cost"):
        ask(asking, comparisons(100), store)
    rows = store.table()
    paid = (rows["prompt_tokens"].sum() + rows["completion_tokens"].sum()) / 1e6
    assert paid == pytest.approx(asking.bill.cost)
    assert 0.017 < paid <= 0.02
    assert server.sent == len(rows)


def test_what_may_have_been_paid_counts_as_paid(tmp_path, serve):
    serve(fault=lambda number, text: "hang" if number < 2 else "")
    asking = judge(concurrency=1, price=(1.0, 1.0))
    ask(asking, comparisons(1), VerdictStore(tmp_path / "v.sqlite"))
    replies = asking.bill.prompt_tokens + asking.bill.completion_tokens
    assert asking.bill.maybe_paid == 2
    assert asking.bill.cost * 1e6 > replies + 2 * 50


def test_a_cost_limit_needs_a_price_and_a_longest_reply():
    template = load_template("summarization_c")
    with pytest.raises(UserError, match="--price"):
        OpenAIJudge("unheard-of", template, parameters=PARAMETERS, limits=Limits(max_cost=1))
    with pytest.raises(UserError, match="max_tokens"):
        OpenAIJudge("gpt-4o", template, parameters={}, limits=Limits(max_cost=1))


def test_two_thousand_comparisons_at_twenty_percent_faults(tmp_path, serve):
    """Each ends as one stored verdict or a counted failure; nothing that is stored is asked again."""
    draw = random.Random(0)
    server = serve(fault=lambda number, text: draw.choice(TRANSIENT) if draw.random() < 0.2 else "", hang_s=4.0)
    store, all_of_them = VerdictStore(tmp_path / "v.sqlite"), comparisons(2000, prompts=500)
    limits = {"concurrency": 64, "attempts": 3, "timeout_s": 3.0}
    asking = judge(**limits)
    table = ask(asking, all_of_them, store, order="random")
    failed = (table["winner"] == "failed").sum()
    assert (table["winner"] == "policy").sum() + failed == 2000
    assert len(store.table()) == 2000 - failed
    assert failed > 0
    assert min(server.faults[fault] for fault in TRANSIENT) > 10
    before, maybe_paid = server.asked.copy(), asking.bill.maybe_paid
    while (table["winner"] == "failed").any():
        asking = judge(**limits)
        table = ask(asking, all_of_them, store, order="random")
        maybe_paid += asking.bill.maybe_paid
    assert len(store.table()) == 2000
    assert len(server.asked - before) == failed
    assert server.answered.total() - 2000 <= maybe_paid  # whole replies that came too late are counted as perhaps paid


WORKER = """
import json, sys
from pathlib import Path
sys.path.insert(0, {here!r})
from test_openai_judge import comparisons, judge
from suite.evaluation.win_rate import ask
from suite.judges.verdict_store import VerdictStore
store = VerdictStore(Path({store!r}))
table = ask(judge(concurrency=8, timeout_s=20.0), comparisons({count}), store, order="random")
print(json.dumps({{"left": store.left_in_flight, "winners": table["winner"].value_counts().to_dict()}}))
"""


def start(store, count):
    code = WORKER.format(here=str(Path(__file__).parent), store=str(store), count=count)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=dict(os.environ))


def stored(path):
    try:
        with sqlite3.connect(path, timeout=30) as connection:
            return connection.execute("SELECT count(*) FROM verdicts").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


def test_sigkill_at_ten_moments_loses_no_verdict(tmp_path, serve):
    """At most the requests in flight are paid for twice, and that count is reported."""
    server = serve(choose=lambda text: time.sleep(0.02) or good_wins(text))
    path, count, draw = tmp_path / "v.sqlite", 600, random.Random(1)
    goals = sorted(draw.sample(range(1, count - 20), 10))
    for goal in goals:
        process = start(path, count)
        while stored(path) < goal and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = stored(path)
        assert kept >= goal
    last = start(path, count)
    report = json.loads(last.communicate()[0])
    assert report["winners"] == {"policy": count}
    assert stored(path) == count >= kept
    twice = server.answered.total() - count
    assert 0 <= twice <= 8 * len(goals)
    assert report["left"] <= 8


def test_what_a_killed_run_had_sent_is_counted(tmp_path, serve):
    hanging = threading.Event()
    server = serve(choose=lambda text: hanging.wait(60) and good_wins(text))
    process = start(tmp_path / "v.sqlite", 20)
    while server.sent < 8:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    hanging.set()
    last = start(tmp_path / "v.sqlite", 20)
    assert json.loads(last.communicate()[0]) == {"left": 8, "winners": {"policy": 20}}


def test_two_processes_share_the_store_and_ask_nothing_twice(tmp_path, serve):
    server = serve(choose=lambda text: time.sleep(0.01) or good_wins(text))
    both = [start(tmp_path / "v.sqlite", 200) for _ in range(2)]
    for process in both:
        assert json.loads(process.communicate()[0])["winners"] == {"policy": 200}
    assert server.answered.total() == 200


def test_ctrl_c_keeps_what_is_in_flight(tmp_path, serve):
    server = serve(choose=lambda text: time.sleep(0.1) or good_wins(text))
    process = start(tmp_path / "v.sqlite", 500)
    while stored(tmp_path / "v.sqlite") < 10:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.wait()
    assert process.returncode != 0
    assert stored(tmp_path / "v.sqlite") == server.answered.total() < 500
