"""The file of verdicts: claims that end, errors of one line, and other people's files left as they are."""

import contextlib
import os
import re
import socket
import sqlite3
import subprocess
import sys
import time

import psutil
import pytest

from suite.common.errors import UserError
from suite.data.comparisons import Answer, Comparison, Question
from suite.evaluation import win_rate
from suite.judges import verdict_store
from suite.judges.reward_judge import RewardJudge
from suite.judges.verdict_store import LEASE_S, VerdictStore

QUESTION = Question(Comparison("p", "How?", "So.", "Not so."), swapped=False)
HERE, ME = socket.gethostname(), os.getpid()


def filled(path, reply="long " * 100):
    store = VerdictStore(path)
    for number in range(200):
        store.put(f"k{number}", "judge", {}, QUESTION, Answer("A", reply))
    return store


def claimed(path, *, host=HERE, pid=ME, started=0.0, since=0.0):
    """A store in which another process, as described, has claimed `key`; times are from now."""
    VerdictStore(path)
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO in_flight VALUES ('key', ?, ?, ?, ?)", (host, pid, started, time.time() + since))
    connection.close()
    return VerdictStore(path)


@pytest.fixture
def other():
    """A process that lives, and when it began."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process.pid, psutil.Process(process.pid).create_time()
    process.communicate()


def test_a_claim_of_a_living_process_is_kept_and_of_any_other_taken_over(tmp_path, other):
    pid, started = other
    cases = {
        "lives": ({"pid": pid, "started": started}, False),
        "the number is another's now": ({"pid": pid, "started": started - 100}, True),
        "of the first process of the machine": ({"pid": 1, "started": started}, True),
        "no such process": ({"pid": 2**22 + 5, "started": started}, True),
        "lives, for too long": ({"pid": pid, "started": started, "since": -LEASE_S - 1}, True),
        "elsewhere": ({"host": "elsewhere"}, False),
        "elsewhere, long ago": ({"host": "elsewhere", "since": -LEASE_S - 1}, True),
        "elsewhere, tomorrow": ({"host": "elsewhere", "since": 86400}, False),
        "one of ours from before": ({"pid": ME, "started": psutil.Process().create_time()}, True),
    }
    for name, (claim, free) in cases.items():
        store = claimed(tmp_path / f"{name}.sqlite", **claim)
        assert store.claim("key") == free, name
        assert store.left_in_flight == free, name


def test_a_claim_from_the_future_ends_too(tmp_path, monkeypatch):
    store = claimed(tmp_path / "v.sqlite", host="elsewhere", since=86400)
    assert not store.claim("key")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + LEASE_S + 1)
    assert store.claim("key")


def test_a_process_that_was_killed_and_not_yet_reaped_holds_nothing(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = psutil.Process(process.pid).create_time()
    process.kill()
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert claimed(tmp_path / "v.sqlite", pid=process.pid, started=started).claim("key")
    process.communicate()


def test_claims_of_an_older_version_are_dropped_and_verdicts_kept(tmp_path):
    path = tmp_path / "v.sqlite"
    filled(path)
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE in_flight")
        connection.execute("CREATE TABLE in_flight (key TEXT PRIMARY KEY, host TEXT, pid INTEGER, since REAL)")
        connection.execute("INSERT INTO in_flight VALUES ('key', ?, ?, ?)", (HERE, 1, time.time()))
    store = VerdictStore(path)
    assert store.claim("key")
    assert len(store.table()) == 200


def test_who_is_waited_for_is_said_once(tmp_path, other, monkeypatch, capsys):
    store = VerdictStore(tmp_path / "v.sqlite")
    looks = []

    def sleep(seconds):
        looks.append(seconds)
        if len(looks) == 3:
            store._connection.execute("DELETE FROM in_flight")

    claim = "INSERT INTO in_flight SELECT value, ?, ?, ?, ? FROM json_each(?)"
    judge = RewardJudge("reward:x", lambda prompts, answers: [float(len(answer)) for answer in answers], digest="")
    keys = [win_rate.question_key(judge, Question(QUESTION.comparison, swapped)) for swapped in (False, True)]
    store._connection.execute(claim, (HERE, *other, time.time(), f'["{keys[0]}", "{keys[1]}"]'))
    monkeypatch.setattr(win_rate.time, "sleep", sleep)
    assert win_rate.ask(judge, [QUESTION.comparison], store)["winner"].tolist() == ["opponent"] * 2
    assert capsys.readouterr().err.count(f"waiting for the verdicts of process {other[0]}") == 1


@pytest.mark.parametrize("method", ["claim", "put"])
def test_a_full_disk_is_one_line_and_what_is_stored_stays(tmp_path, method):
    store = filled(tmp_path / "v.sqlite")
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    more = {"claim": store.claim, "put": lambda key: store.put(key, "judge", {}, QUESTION, Answer("A", "long " * 2000))}[method]
    with pytest.raises(UserError, match=r"verdict store .*v\.sqlite: database or disk is full; free some space"):
        list(map(more, (f"new {number} " + "k" * 500 for number in range(10_000))))
    assert len(store.table()) >= 200


def test_a_store_that_others_hold_is_one_line(tmp_path):
    path = tmp_path / "v.sqlite"
    store = filled(path)
    store._connection.execute("PRAGMA busy_timeout = 1")
    with sqlite3.connect(path, isolation_level=None) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(UserError, match="is locked; end the program that holds it"):
            store.claim("key")
        holder.execute("ROLLBACK")


def flipped(path):
    content = bytearray(path.read_bytes())
    for at in range(4096 * 3, len(content), 97):
        content[at] ^= 0xFF
    path.write_bytes(content)


def run_sql(*statements):
    def damage(path):
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA ignore_check_constraints = 1")
            for statement in statements:
                connection.execute(statement)
        connection.close()

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        flipped,
        run_sql("UPDATE verdicts SET reply = CAST(x'ff41' AS TEXT)"),
        run_sql("UPDATE verdicts SET reply = x'ff41'"),
        run_sql("UPDATE verdicts SET verdict = 'C'"),
        run_sql("UPDATE verdicts SET prompt_tokens = 'many'"),
        run_sql("DROP TABLE verdicts", "CREATE TABLE verdicts (id TEXT)"),
        lambda path: path.write_bytes(path.read_bytes()[:5000]),
        lambda path: path.write_text("no database, but long enough to be looked at as one" * 20),
    ],
)
def test_a_damaged_store_is_one_line(tmp_path, damage):
    path = tmp_path / "v.sqlite"
    filled(path)._connection.close()
    damage(path)
    for read_only in (True, False):
        with pytest.raises(UserError, match=r"verdict store .*v\.sqlite: .*; (it is damaged|name another)") as caught:
            VerdictStore(path, read_only=read_only).table()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 600


@pytest.mark.parametrize("log", ["delete", "wal"])
def test_another_programs_file_is_not_altered(tmp_path, log):
    path = tmp_path / "photos.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA journal_mode = {log}")
        connection.execute("CREATE TABLE photos (name TEXT)")
    connection.close()
    before = path.read_bytes()
    for read_only in (True, False):
        with pytest.raises(UserError, match="its tables are photos, and not those of a store"):
            VerdictStore(path, read_only=read_only)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["v" * 300, "folder", "file/v.sqlite", "\x1b[31m" + "v" * 300])
def test_a_place_where_no_store_can_be_is_one_line(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="verdict store") as caught:
        VerdictStore(tmp_path / name)
    assert not re.search(r"[\x00-\x1f]", str(caught.value))


def test_reading_needs_no_writing(tmp_path, monkeypatch):
    """A store in a folder of which nothing can be written, as on a disk that is mounted so."""
    path = tmp_path / "v.sqlite"
    filled(path)._connection.close()
    monkeypatch.setattr(os, "access", lambda *_: False)
    store = VerdictStore(path, read_only=True)
    assert len(store.table()) == 200
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(UserError, match="make it writable, or name another file"):
        store.claim("key")


def test_a_store_that_is_being_written_can_be_read(tmp_path):
    writer = filled(tmp_path / "v.sqlite")
    assert len(VerdictStore(tmp_path / "v.sqlite", read_only=True).table()) == 200
    writer.put("one more", "judge", {}, QUESTION, Answer("A", ""))
    assert len(VerdictStore(tmp_path / "v.sqlite", read_only=True).table()) == 201


def journal_of(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA journal_mode").fetchone()[0]


def test_where_machines_share_the_file_there_is_no_log_that_they_would_have_to_share(tmp_path, monkeypatch):
    path = tmp_path / "verdicts.sqlite"
    store = VerdictStore(path)
    store.put("one", "judge", {}, QUESTION, Answer("A", "A"))
    store._connection.close()
    assert journal_of(path) == "wal"
    monkeypatch.setattr(verdict_store, "is_shared", lambda place: place == path)
    store = VerdictStore(path)
    assert journal_of(path) == "delete"
    store.put("two", "judge", {}, QUESTION, Answer("B", "B"))
    assert set(VerdictStore(path, read_only=True).verdicts(["one", "two"])) == {"one", "two"}
    assert {file.name for file in tmp_path.iterdir()} == {path.name}


NO_SHARED_MEMORY = """
import resource, sys
from pathlib import Path
from suite.data.comparisons import Answer, Comparison, Question
from suite.judges.verdict_store import VerdictStore
resource.setrlimit(resource.RLIMIT_FSIZE, (31_000, 31_000))  # the log's memory would take 32 KiB
for key in ("one", "two"):
    store = VerdictStore(Path(sys.argv[1]))
    store.put(key, "judge", {}, Question(Comparison("p", "How?", "So.", "Not so."), swapped=False), Answer("A", "A"))
    print(sorted(store.verdicts(["one", "two"])))
"""


def test_a_file_system_that_cannot_have_a_log_gets_none(tmp_path):
    path = tmp_path / "verdicts.sqlite"
    done = subprocess.run([sys.executable, "-c", NO_SHARED_MEMORY, str(path)], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["['one']", "['one', 'two']"], done.stderr
    assert journal_of(path) == "delete"
    assert set(VerdictStore(path).verdicts(["one", "two"])) == {"one", "two"}  # here there is such memory again
    assert journal_of(path) == "wal"


KILLED = """
import sqlite3, sys, os
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
assert connection.execute("PRAGMA journal_mode=DELETE").fetchone() == ("delete",)
connection.execute("PRAGMA cache_size=1")
connection.execute("PRAGMA cache_spill=1")
connection.execute("BEGIN IMMEDIATE")
for number in range(2000):
    connection.execute("UPDATE verdicts SET reply = ? WHERE key = ?", ("x" * 400, f"k{number % 200}"))
os.kill(os.getpid(), 9)
"""


def test_what_a_killed_process_had_half_written_is_taken_back(tmp_path, monkeypatch):
    path = tmp_path / "verdicts.sqlite"
    filled(path)._connection.close()
    subprocess.run([sys.executable, "-c", KILLED, str(path)])
    assert (tmp_path / "verdicts.sqlite-journal").stat().st_size
    monkeypatch.setattr(verdict_store, "is_shared", lambda place: True)
    store = VerdictStore(path)
    assert len(store.verdicts([f"k{number}" for number in range(200)])) == 200
    replies = {reply for (reply,) in store._connection.execute("SELECT reply FROM verdicts")}
    assert replies == {"long " * 100}
