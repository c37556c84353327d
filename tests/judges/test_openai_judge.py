"""The real openai client against a server that misbehaves."""

import gzip
import json
import os
import random
import shutil
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
from suite.judges.judging import question_key
from suite.judges.open_judge import parse_parameters
from suite.judges.openai_judge import OpenAIJudge
from suite.judges.server import retry_after
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


def said(status, error):
    """The fault of a server that answers with this error."""
    return lambda reply: (status, json.dumps({"error": error}))


def changed(**changes):
    """The fault of a reply with other values."""
    return lambda reply: (200, json.dumps({**reply, **changes}))


def spoken(content, **more):
    """The fault of a reply of another content."""
    return changed(choices=[{"message": {"role": "assistant", "content": content, **more}, "finish_reason": "stop"}])


def redirect(to):
    """The fault of a server that sends the request elsewhere."""
    return lambda reply: (307, "", {"location": to})


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
        ("parameter", ["refuses the parameter temperature", "--parameters"]),
        (said(402, {"message": "Insufficient Balance"}), ["no credit", "Insufficient Balance"]),
        (said(200, {"message": "Insufficient credits"}), ["no credit", "Insufficient credits"]),
        (said(200, {"message": "No auth", "code": 401}), ["key is not accepted", "No auth"]),
        (said(405, "no POST here"), ["refuses the request", "no POST here"]),
        (redirect("http://localhost:9/v1/x"), ["redirects to localhost, where nothing is sent"]),
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


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("context", "longer than the model's context (400: maximum context length is 8192 tokens)"),
        ("400", "refuses the request (400: bad request of [key])"),
        (said(400, {"message": "filtered", "code": "content_filter"}), "refuses the prompt (400: filtered)"),
        (said(403, {"message": "Your input was flagged"}), "refuses the prompt (403: Your input was flagged)"),
        (lambda reply: (413, "<html>too much"), "refuses the request (413: <html>too much)"),
        (lambda reply: (422, json.dumps({"detail": [{"loc": ["body"]}]})), 'refuses the request (422: [{"loc": ["body"]}])'),
        (said(200, {"message": "\x1b[31mno\u202e"}), r"refuses the request (400: \x1b[31mno\u202e)"),
        (said(200, "strange"), "refuses the request (400: strange)"),
        (lambda reply: (400, b"\xff\xfe" * 9), "refuses the request (400"),
        (lambda reply: (400, "[" * 200_000), "refuses the request (400: [[["),
    ],
)
def test_one_prompt_that_is_refused_is_a_named_failure_and_the_others_are_answered(tmp_path, serve, fault, words):
    server = serve(fault=lambda number, text: fault if "Post 3\n" in text else "")
    table = ask(judge(concurrency=2), comparisons(8), VerdictStore(tmp_path / "v.sqlite"))
    failed = table[table["winner"] == "failed"]
    assert set(failed["prompt_id"]) == {"p3"}
    assert all(words in reason and len(reason) < 400 for reason in failed["failure"])
    assert (server.sent, (table["winner"] == "policy").sum()) == (16, 14)


def test_a_server_that_refuses_everything_is_asked_a_few_times_only(tmp_path, serve):
    numbers = iter(range(1000))
    server = serve(fault=lambda number, text: said(400, {"message": f"bad field (request {next(numbers)})"}))
    with pytest.raises(UserError, match=r"openai:m refuses every question so far, the last with: .*bad field"):
        ask(judge(concurrency=2), comparisons(40), VerdictStore(tmp_path / "v.sqlite"))
    assert 5 <= server.sent <= 6


def test_what_is_left_after_the_others_were_answered_may_all_be_refused(tmp_path, serve):
    serve(fault=lambda number, text: "400" if "Post 0\n" not in text else "")
    store = VerdictStore(tmp_path / "v.sqlite")
    ask(judge(), comparisons(1), store)
    table = ask(judge(), comparisons(8), store)
    assert table["winner"].value_counts().to_dict() == {"failed": 14, "policy": 2}


NO_COMPLETIONS = {
    "content is an object": spoken({"a": 1}), "content is a number": spoken(3), "content is true": spoken(True),
    "a part is a number": spoken([1]), "a text is a number": spoken([{"type": "text", "text": 1}]),
    "choices are an object": changed(choices={"a": 1}), "choices are a number": changed(choices=7),
    "a choice is a word": changed(choices=["A"]), "the message is a list": changed(choices=[{"message": ["A"]}]),
    "deep": lambda reply: (200, '{"choices":' + "[" * 100_000 + "]" * 100_000 + "}"),
    "a list": lambda reply: (200, json.dumps([reply])), "another encoding": lambda reply: (200, b"\xff{}"),
    "broken off": changed(choices=[{"message": {"content": "Preferred: A"}, "finish_reason": "error"}]),
}  # fmt: skip


@pytest.mark.parametrize("fault", NO_COMPLETIONS.values(), ids=NO_COMPLETIONS)
def test_what_is_no_chat_completion_fails_its_question_and_counts_as_paid(tmp_path, serve, fault):
    server = serve(fault=lambda number, text: fault if "Post 1\n" in text else "")
    asking = judge(attempts=2, price=(1.0, 1.0))
    table = ask(asking, comparisons(3), VerdictStore(tmp_path / "v.sqlite"))
    assert table["winner"].tolist() == ["policy"] * 2 + ["failed"] * 2 + ["policy"] * 2
    assert table["failure"][2].startswith("2 attempts: ")
    assert (server.sent, asking.bill.maybe_paid) == (8, 4)
    assert asking.bill.cost * 1e6 > asking.bill.prompt_tokens + asking.bill.completion_tokens + 4 * 50


@pytest.mark.parametrize(
    ("fault", "reply", "model"),
    [
        (spoken(["Both.\n", {"type": "thinking"}, {"type": "text", "text": "Preferred: A"}]), "Both.\nPreferred: A", None),
        (changed(model=["x"], system_fingerprint={"a": 1}), None, ""),
        (changed(model="\x1b[31mm"), None, r"\x1b[31mm fp_1"),
        (changed(error=None), None, None),
    ],
)  # fmt: skip
def test_odd_but_readable_replies_are_read(tmp_path, serve, fault, reply, model):
    serve(fault=lambda number, text: fault, choose=lambda text: "Preferred: A")
    store = VerdictStore(tmp_path / "v.sqlite")
    assert ask(judge(), comparisons(1), store)["verdict"].tolist() == ["A", "A"]
    assert store.table()["reply"][0] == (reply or "Preferred: A")
    assert store.table()["served_model"][0] == ("m-2026-01-01 fp_1" if model is None else model)


HUGE, NAN = 10**25, float("nan")
USAGES = {
    "negative": {"prompt_tokens": -(10**9), "completion_tokens": -5}, "none": None, "a list": [1, 2], "empty": {},
    "huge": {"prompt_tokens": HUGE, "completion_tokens": HUGE}, "words": {"prompt_tokens": "many", "completion_tokens": "few"},
    "true": {"prompt_tokens": True, "completion_tokens": True}, "no number": {"prompt_tokens": NAN, "completion_tokens": NAN},
    "a half": {"prompt_tokens": 10**9}, "nothing": {"prompt_tokens": 0, "completion_tokens": 0},
}  # fmt: skip


@pytest.mark.parametrize("usage", USAGES.values(), ids=USAGES)
def test_an_impossible_usage_counts_as_the_most_it_can_be_and_the_verdict_is_kept(tmp_path, serve, usage):
    serve(fault=lambda number, text: changed(usage=usage))
    asking, store = judge(price=(1.0, 1.0)), VerdictStore(tmp_path / "v.sqlite")
    assert ask(asking, comparisons(1), store)["winner"].tolist() == ["policy"] * 2
    sizes = [len(asking.request(Question(comparisons(1)[0], swapped)).encode()) + 64 + 50 for swapped in (False, True)]
    assert asking.bill.cost * 1e6 == pytest.approx(sum(sizes))


def test_ten_thousand_digits_are_no_number_of_tokens(tmp_path, serve):
    def fault(reply):
        return 200, json.dumps({**reply, "usage": {"prompt_tokens": 1, "completion_tokens": 2}}).replace(
            ": 2}", f": {'7' * 10_000}}}"
        )

    serve(fault=lambda number, text: fault)
    store = VerdictStore(tmp_path / "v.sqlite")
    assert ask(judge(), comparisons(1), store)["winner"].tolist() == ["policy"] * 2
    assert store.table()["completion_tokens"].tolist() == [50, 50]


def test_a_limit_on_cost_holds_whatever_the_server_reports(tmp_path, serve):
    server = serve(fault=lambda number, text: changed(usage={"prompt_tokens": -(10**9), "completion_tokens": -(10**9)}))
    asking = judge(max_cost=0.005, price=(1.0, 1.0))
    with pytest.raises(UserError, match="--max-cost"):
        ask(asking, comparisons(50), VerdictStore(tmp_path / "v.sqlite"))
    assert 0 < asking.bill.cost <= 0.005
    assert server.sent < 10


def zipped(body):
    return 200, gzip.compress(body), {"content-encoding": "gzip"}


def test_a_reply_without_end_fails_its_question(tmp_path, serve):
    faults = iter(
        [lambda reply: (200, "x" * 5_000_000), lambda reply: zipped(b" " * 50_000_000), lambda reply: (500, "y" * 5_000_000)]
    )
    serve(fault=lambda number, text: next(faults, lambda reply: zipped(json.dumps(reply).encode())))
    asking = judge(attempts=3, concurrency=1, timeout_s=20)
    table = ask(asking, comparisons(1), VerdictStore(tmp_path / "v.sqlite"))
    assert table["failure"].tolist() == ["3 attempts: the reply is longer than 2 MB", ""]
    assert table["winner"].tolist() == ["failed", "policy"]
    assert asking.bill.maybe_paid == 3


def test_a_redirect_on_the_same_host_is_followed(tmp_path, serve):
    server = serve(fault=lambda number, text: redirect("/elsewhere") if number % 2 == 0 else "")
    assert ask(judge(concurrency=1), comparisons(2), VerdictStore(tmp_path / "v.sqlite"))["winner"].tolist() == ["policy"] * 4
    assert server.sent == 8


@pytest.mark.parametrize("odd", [["temperature"], {"a": 1}, 3, None])
@pytest.mark.parametrize("field", ["param", "code", "message", "type"])
def test_an_odd_error_loses_no_paid_reply(tmp_path, serve, field, odd):
    """One question is refused oddly while seven good replies are under way."""
    error = {"message": "x", "code": "y", "param": "messages", field: odd}
    server = serve(
        fault=lambda number, text: said(400, error) if "Post 0\n" in text else "",
        choose=lambda text: time.sleep(0.1) or good_wins(text),
    )
    store = VerdictStore(tmp_path / "v.sqlite")
    table = ask(judge(), comparisons(4), store)
    assert len(store.table()) == server.answered.total() == 6
    assert (table["winner"] == "failed").sum() == 2


@pytest.mark.parametrize("where", ["claim", "put", "release", "request"])
def test_whatever_goes_wrong_ends_the_run_and_what_is_in_flight_is_stored(tmp_path, serve, monkeypatch, where):
    server = serve(
        choose=lambda text: time.sleep(0.1) or good_wins(text), fault=lambda n, text: "400" if "Post 4\n" in text else ""
    )
    store, asking = VerdictStore(tmp_path / "v.sqlite"), judge(concurrency=4)
    broken = asking if where == "request" else store
    real, calls = getattr(broken, where), []

    def breaks_once(*arguments):
        calls.append(None)
        if len(calls) == (1 if where == "release" else 7):
            raise KeyError("strange")
        return real(*arguments)

    monkeypatch.setattr(broken, where, breaks_once)
    with pytest.raises(KeyError, match="strange"):
        ask(asking, comparisons(40), store)
    assert len(store.table()) == server.answered.total() - (where == "put")
    assert server.sent < 20
    if where in ("claim", "request"):
        assert store.holders([question_key(asking, Question(c, s)) for c in comparisons(40) for s in (True, False)]) == []


def test_nothing_more_is_sent_when_the_disk_is_full(tmp_path, serve):
    server = serve(choose=lambda text: "x" * 2000 + "\n" + good_wins(text))
    store = VerdictStore(tmp_path / "v.sqlite")
    store._connection.execute("PRAGMA max_page_count = 20")
    with pytest.raises(UserError, match="disk is full; free some space"):
        ask(judge(concurrency=4), comparisons(100), store)
    assert server.sent - len(store.table()) <= 4


def test_nothing_is_sent_whose_reply_could_not_be_kept(tmp_path, serve, monkeypatch):
    server, free = serve(), iter([10**9] * 10)
    usage = type(shutil.disk_usage(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 10**12, next(free, 10**6)))
    store = VerdictStore(tmp_path / "v.sqlite")
    with pytest.raises(UserError, match=r"disk full, less than 16 MB are left; free some space and start again"):
        ask(judge(concurrency=4), comparisons(100), store)
    assert server.sent == len(store.table()) == 10


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


def test_the_name_of_a_model_is_shown_and_steers_no_terminal(tmp_path, serve):
    serve(fault=lambda number, text: "401")
    asking = OpenAIJudge("m\x1b[31m\n", load_template("summarization_c"), parameters=PARAMETERS, limits=Limits(**QUICK))
    with pytest.raises(UserError, match=r"openai:m\\x1b\[31m at http") as caught:
        ask(asking, comparisons(1), VerdictStore(tmp_path / "v.sqlite"))
    assert str(caught.value).isprintable()


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


@pytest.mark.parametrize("price", [(float("nan"), 1.0), (1.0, -1.0), (float("inf"), 0.0)])
def test_a_price_is_a_number_of_zero_or_more(price):
    with pytest.raises(UserError, match=r"--price .*: expected numbers of 0 or more"):
        judge(price=price)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("value", [True, 0, -5, 1.5, "200", None, [1], 10**30])
def test_a_longest_reply_is_a_whole_number(name, value):
    with pytest.raises(UserError, match=f"--parameters, {name}: expected a whole number from 1 to"):
        OpenAIJudge("m", load_template("summarization_c"), parameters={name: value})


def test_the_larger_of_two_longest_replies_is_reserved(tmp_path, serve):
    server = serve()
    both = {"max_completion_tokens": 1, "max_tokens": 100_000}
    asking = OpenAIJudge(
        "m", load_template("summarization_c"), parameters=both, limits=Limits(max_cost=0.05, **QUICK), price=(1.0, 1.0)
    )
    with pytest.raises(UserError, match="--max-cost"):
        ask(asking, comparisons(3), VerdictStore(tmp_path / "v.sqlite"))
    assert server.sent == 0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("[" * 100_000, "not JSON"), ('{"max_tokens": ' + "9" * 5000 + "}", "not JSON"), ('{"temperature": NaN}', "not JSON"),
        ('{"temperature": 1e999}', "not JSON"), ('{"x": ' + "[" * 100 + "]" * 100 + "}", "nested too deeply"),
        ("[1]", "expected an object"), ("5", "expected an object"), ('{"a": "\x1b[31m', "not JSON"),
    ],
)  # fmt: skip
def test_odd_parameters_are_one_short_line(given, words):
    with pytest.raises(UserError, match=words) as caught:
        parse_parameters(given)
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ALL_PROXY", "socks9://user:secret@localhost:1"), ("HTTP_PROXY", "http://localhost:abc"),
        ("SSL_CERT_FILE", "/no/such/file"), ("OPENAI_API_KEY", "sk-one\nsk-two"), ("OPENAI_API_KEY", "schlüssel"),
        ("OPENAI_API_KEY", " "),
    ],
)  # fmt: skip
def test_a_mistake_in_the_environment_is_one_line(tmp_path, serve, monkeypatch, variable, value):
    server = serve()
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=variable) as caught:
        ask(judge(), comparisons(1), VerdictStore(tmp_path / "v.sqlite"))
    assert "secret" not in str(caught.value)
    assert server.sent == 0


@pytest.mark.slow
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
