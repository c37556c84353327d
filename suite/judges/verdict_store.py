"""Verdicts in SQLite: written the moment they arrive, never lost, never asked twice, shared by processes."""

import errno
import json
import os
import shutil
import socket
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import psutil

from suite.common.errors import FULL, UserError
from suite.common.file_systems import is_shared
from suite.common.processes import lives
from suite.data.comparisons import Answer, Comparison, Question, Verdict
from suite.judges.judging import shown, text_hash

VERDICTS = {
    "key": "TEXT PRIMARY KEY", "judge": "TEXT NOT NULL", "identity": "TEXT NOT NULL", "prompt_id": "TEXT NOT NULL",
    "prompt": "TEXT NOT NULL", "a": "TEXT NOT NULL", "b": "TEXT NOT NULL", "swapped": "INTEGER NOT NULL",
    "verdict": "TEXT NOT NULL CHECK (verdict IN ('A', 'B', 'tie', 'invalid'))", "reply": "TEXT NOT NULL",
    "served_model": "TEXT NOT NULL", "prompt_tokens": "INTEGER NOT NULL", "completion_tokens": "INTEGER NOT NULL",
    "created_at": "TEXT NOT NULL",
}  # fmt: skip
IN_FLIGHT = {
    "key": "TEXT PRIMARY KEY", "host": "TEXT NOT NULL", "pid": "INTEGER NOT NULL",
    "started": "REAL NOT NULL",  # when the process began: another one may have its number later
    "since": "REAL NOT NULL",
}  # fmt: skip
LEASE_S = 900.0
"""A question that another process claimed is taken over after this long without a verdict, even if that seems to live."""
ROOM = 16_000_000
"""Bytes on the disk without which nothing is claimed, and so nothing is asked whose answer could not be kept."""
ADVICE = {
    "SQLITE_FULL": "free some space and start again",
    "SQLITE_IOERR": "look at the disk, free some space and start again",
    "SQLITE_BUSY": "end the program that holds it and start again",
    "SQLITE_LOCKED": "end the program that holds it and start again",
    "SQLITE_READONLY": "make it writable, or name another file",
    "SQLITE_CANTOPEN": "name a file in a folder that can be written",
    "SQLITE_NOTADB": "name another file",
}
NO_WAL = ("SQLITE_PROTOCOL", "SQLITE_IOERR_SHM", "SQLITE_IOERR_LOCK")
"""Names of errors with which a file system says that it cannot have a log of SQLite's."""
DAMAGED = "it is damaged or no store of verdicts: move it away, or name another file"


class VerdictStore:
    """One file. Safe against SIGKILL (one transaction a verdict) and for several processes of one machine at once.

    Every method raises UserError, which names the file and what to do, if it cannot be read or written, is damaged, or is some
    other program's; that is never altered.

    Args:
        path: The file; it is made if it is not there.
        read_only: Only read, from a folder that cannot be written too; the file must be there.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._path = path
        self._me = (socket.gethostname(), os.getpid(), psutil.Process().create_time())
        self._seen: dict[tuple[str, float], float] = {}  # claims, and when they were first met
        self.left_in_flight = 0
        """Questions that killed processes had sent: they may be paid for twice."""
        with self._one_line():
            there = os.path.lexists(path) and path.stat().st_size > 0
            if there:
                self._check()
            if read_only:
                self._connection = _connect_to_read(path)
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = _connect(path)
            self._connection.execute("PRAGMA synchronous=FULL")
            with self._transaction():
                if self._columns(self._connection, "in_flight") not in ([], list(IN_FLIGHT)):
                    self._connection.execute("DROP TABLE in_flight")  # claims of an older version: of processes that are gone
                for name, columns in {"verdicts": VERDICTS, "in_flight": IN_FLIGHT}.items():
                    wanted = ", ".join(f"{column} {kind}" for column, kind in columns.items())
                    self._connection.execute(f"CREATE TABLE IF NOT EXISTS {name} ({wanted})")

    def verdicts(self, keys: list[str]) -> dict[str, Verdict]:
        """The stored ones among `keys`."""
        with self._one_line():
            asked = "SELECT key, verdict FROM verdicts WHERE key IN (SELECT value FROM json_each(?))"
            found = dict(self._connection.execute(asked, (json.dumps(keys),)))
            self._check_verdicts(found.values())
            return found

    def replies(self, keys: list[str]) -> dict[str, str]:
        """What the judge said, whole, of the stored ones among `keys`."""
        with self._one_line():
            asked = "SELECT key, reply FROM verdicts WHERE key IN (SELECT value FROM json_each(?))"
            return {key: str(reply) for key, reply in self._connection.execute(asked, (json.dumps(keys),))}

    def claim(self, key: str) -> bool:
        """Say that this process asks `key` now. False if a living one does already, or the verdict is there."""
        with self._one_line(), self._transaction():
            disk = shutil.disk_usage(self._path.absolute().parent)
            if disk.total and disk.free < ROOM:  # some file systems do not count
                raise OSError(errno.ENOSPC, f"disk full, less than {ROOM // 10**6} MB are left")
            if self._connection.execute("SELECT 1 FROM verdicts WHERE key = ?", (key,)).fetchone():
                return False
            row = self._connection.execute("SELECT host, pid, started, since FROM in_flight WHERE key = ?", (key,)).fetchone()
            if row and self._lives(key, *row):
                return False
            self.left_in_flight += row is not None
            claim = (key, *self._me, time.time())
            self._connection.execute("INSERT OR REPLACE INTO in_flight VALUES (?, ?, ?, ?, ?)", claim)
            return True

    def release(self, key: str) -> None:
        """The question was not answered; anybody may ask it."""
        with self._one_line():
            mine = "DELETE FROM in_flight WHERE key = ? AND host = ? AND pid = ? AND started = ?"
            self._connection.execute(mine, (key, *self._me))

    def holders(self, keys: list[str]) -> list[str]:
        """The processes that ask any of `keys` now, in words."""
        with self._one_line():
            asked = "SELECT DISTINCT host, pid FROM in_flight WHERE key IN (SELECT value FROM json_each(?)) ORDER BY host, pid"
            rows = self._connection.execute(asked, (json.dumps(keys),)).fetchall()
        return [f"process {pid}" + (f" of {shown(host)}" if host != self._me[0] else "") for host, pid in rows]

    def put(self, key: str, judge: str, identity: Mapping[str, Any], question: Question, answer: Answer) -> None:
        """Store a verdict; the first one of a key stays."""
        comparison = question.comparison
        row = (
            key, judge, json.dumps(identity, sort_keys=True), comparison.id, comparison.prompt, question.a, question.b,
            int(question.swapped), answer.verdict, answer.reply, answer.served_model, answer.prompt_tokens,
            answer.completion_tokens, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )  # fmt: skip
        with self._one_line(), self._transaction():
            self._connection.execute(f"INSERT OR IGNORE INTO verdicts VALUES ({','.join('?' * len(row))})", row)
            self._connection.execute("DELETE FROM in_flight WHERE key = ?", (key,))

    def table(self) -> pd.DataFrame:
        """All verdicts with their texts, in the order of arrival; what `export` writes.

        `winner` and `comparison` (a hash) say which side won, as in the tables of `suite.evaluation.win_rate`. Where both
        answers are the same text the two orders are one question.
        """
        with self._one_line():
            rows = self._connection.execute(f"SELECT {', '.join(VERDICTS)} FROM verdicts ORDER BY rowid").fetchall()
            table = pd.DataFrame(rows, columns=list(VERDICTS))
            self._check_verdicts(table["verdict"])
            for name, kind in VERDICTS.items():
                if not all(isinstance(value, str if kind.startswith("TEXT") else int) for value in table[name]):
                    raise sqlite3.DatabaseError(f"column {name} holds what does not belong there")
        winners, names = [], []
        for row in table.itertuples():
            policy, opponent = (row.b, row.a) if row.swapped else (row.a, row.b)
            question = Question(Comparison(row.prompt_id, row.prompt, policy, opponent), bool(row.swapped))
            winners.append(question.winner(row.verdict))
            names.append(text_hash(row.prompt, policy, opponent)[:12])
        return table.assign(winner=winners, comparison=names)

    def _lives(self, key: str, host: str, pid: int, started: float, since: float) -> bool:
        now = time.time()
        first = self._seen.setdefault((key, since), now)  # the other clock may be ahead
        if now - min(since, first) >= LEASE_S:
            return False
        return host != self._me[0] or (pid != self._me[1] and lives(pid, started))

    def _check(self) -> None:
        """Raise an error, before anything is written, if the file is another program's."""
        connection = _connect_to_read(self._path, leave_nothing=True)
        try:
            names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            if names and self._columns(connection, "verdicts") != list(VERDICTS):
                raise sqlite3.DatabaseError(f"its tables are {', '.join(map(shown, names[:5]))}, and not those of a store")
        finally:
            connection.close()

    @staticmethod
    def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
        return [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]

    @staticmethod
    def _check_verdicts(found: Any) -> None:
        if unknown := set(found) - set(get_args(Verdict)):
            raise sqlite3.DatabaseError(f"a verdict is {shown(unknown.pop(), 20)!r}")

    @contextmanager
    def _one_line(self) -> Iterator[None]:
        """SQLite's errors as the user's to mend."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            of_system = "SQLITE_FULL" if getattr(error, "errno", None) in FULL else "SQLITE_CANTOPEN"
            kind = getattr(error, "sqlite_errorname", of_system if isinstance(error, OSError) else "")
            advice = next((words for name, words in ADVICE.items() if kind.startswith(name)), DAMAGED)
            said = error.strerror if isinstance(error, OSError) else error
            raise UserError(f"verdict store {shown(self._path)}: {shown(said)}; {advice}") from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """BEGIN IMMEDIATE … COMMIT, so that reading and writing are one step for all processes."""
        with self._connection:  # commits at the end, rolls back after an exception
            self._connection.execute("BEGIN IMMEDIATE")
            yield


def _connect(path: Path) -> sqlite3.Connection:
    """The file, to be written. SQLite keeps transactions whole by a log beside it (WAL), which needs memory that all who have
    it open share; where several machines may have it, or the file system gives none, by a copy of what is overwritten.
    """

    def opened() -> sqlite3.Connection:
        return sqlite3.connect(path, timeout=60, isolation_level=None)

    connection = opened()
    if not is_shared(path):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            return connection
        except sqlite3.OperationalError as error:
            if not getattr(error, "sqlite_errorname", "").startswith(NO_WAL):
                raise
    if _has_log(path):
        connection.close()
        connection = opened()
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")  # a log that only one has open needs no shared memory
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.close()
        connection = opened()
    connection.execute("PRAGMA journal_mode=DELETE")
    return connection


def _has_log(path: Path) -> bool:
    """Whether the file says of itself that there is a log beside it (bytes 18 and 19, "file format versions")."""
    with path.open("rb") as file:
        return file.read(20)[18:] == b"\x02\x02"


def _connect_to_read(path: Path, *, leave_nothing: bool = False) -> sqlite3.Connection:
    """The file as it is. Readers make files beside it, unless there is no log to be read and they cannot or must not."""
    journal, log = (path.with_name(f"{path.name}-{name}") for name in ("journal", "wal"))
    unfinished = [file for file in (journal, log) if file.is_file() and file.stat().st_size]
    alone = not unfinished and (leave_nothing or not os.access(path.parent, os.W_OK))
    mode = "rw" if journal in unfinished else "ro"  # what was half written by a killed process is taken back by who reads next
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}{'&immutable=1' if alone else ''}", uri=True, timeout=60)
