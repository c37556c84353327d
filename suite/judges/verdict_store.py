"""Verdicts in SQLite: written the moment they arrive, never lost, never asked twice, shared by processes."""

import json
import os
import socket
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

from suite.common.errors import UserError
from suite.data.comparisons import Answer, Comparison, Question, Verdict
from suite.judges.judging import text_hash

SCHEMA = """
CREATE TABLE IF NOT EXISTS verdicts (
  key TEXT PRIMARY KEY, judge TEXT NOT NULL, identity TEXT NOT NULL, prompt_id TEXT NOT NULL, prompt TEXT NOT NULL,
  a TEXT NOT NULL, b TEXT NOT NULL, swapped INTEGER NOT NULL,
  verdict TEXT NOT NULL CHECK (verdict IN ('A', 'B', 'tie', 'invalid')), reply TEXT NOT NULL,
  served_model TEXT NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, created_at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS in_flight (key TEXT PRIMARY KEY, host TEXT NOT NULL, pid INTEGER NOT NULL, since REAL NOT NULL);
"""
LEASE_S = 900.0
"""A question that a process of another machine claimed is taken over after this long without a verdict."""


class VerdictStore:
    """One file. Safe against SIGKILL (WAL, one transaction a verdict) and for several processes of one machine at once.
    Raises UserError if the file cannot be opened or is not a store.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=60, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.executescript(SCHEMA)
        except (sqlite3.DatabaseError, OSError) as error:
            raise UserError(f"verdict store {path}: cannot be opened ({error}); name another file") from error
        self._me = (socket.gethostname(), os.getpid())
        self.left_in_flight = 0
        """Questions that killed processes had sent: they may be paid for twice."""

    def verdicts(self, keys: list[str]) -> dict[str, Verdict]:
        """The stored ones among `keys`."""
        asked = "SELECT key, verdict FROM verdicts WHERE key IN (SELECT value FROM json_each(?))"
        return dict(self._connection.execute(asked, (json.dumps(keys),)))

    def claim(self, key: str) -> bool:
        """Say that this process asks `key` now. False if a living one does already, or the verdict is there."""
        with self._transaction():
            if self._connection.execute("SELECT 1 FROM verdicts WHERE key = ?", (key,)).fetchone():
                return False
            row = self._connection.execute("SELECT host, pid, since FROM in_flight WHERE key = ?", (key,)).fetchone()
            if row and self._lives(*row):
                return False
            self.left_in_flight += row is not None
            self._connection.execute("INSERT OR REPLACE INTO in_flight VALUES (?, ?, ?, ?)", (key, *self._me, time.time()))
            return True

    def release(self, key: str) -> None:
        """The question was not answered; anybody may ask it."""
        self._connection.execute("DELETE FROM in_flight WHERE key = ? AND host = ? AND pid = ?", (key, *self._me))

    def put(self, key: str, judge: str, identity: Mapping[str, Any], question: Question, answer: Answer) -> None:
        """Store a verdict; the first one of a key stays."""
        comparison = question.comparison
        row = (
            key, judge, json.dumps(identity, sort_keys=True), comparison.id, comparison.prompt, question.a, question.b,
            int(question.swapped), answer.verdict, answer.reply, answer.served_model, answer.prompt_tokens,
            answer.completion_tokens, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )  # fmt: skip
        with self._transaction():
            self._connection.execute(f"INSERT OR IGNORE INTO verdicts VALUES ({','.join('?' * len(row))})", row)
            self._connection.execute("DELETE FROM in_flight WHERE key = ?", (key,))

    def table(self) -> pd.DataFrame:
        """All verdicts with their texts, in the order of arrival; what `export` writes.

        `winner` and `comparison` (a hash) say which side won, as in the tables of `suite.evaluation.win_rate`. Where both
        answers are the same text the two orders are one question.
        """
        table = pd.read_sql_query("SELECT * FROM verdicts ORDER BY rowid", self._connection)
        winners, names = [], []
        for row in table.itertuples():
            policy, opponent = (row.b, row.a) if row.swapped else (row.a, row.b)
            question = Question(Comparison(row.prompt_id, row.prompt, policy, opponent), bool(row.swapped))
            winners.append(question.winner(row.verdict))
            names.append(text_hash(row.prompt, policy, opponent)[:12])
        return table.assign(winner=winners, comparison=names)

    def _lives(self, host: str, pid: int, since: float) -> bool:
        if host != self._me[0]:
            return time.time() - since < LEASE_S
        return pid != self._me[1] and psutil.pid_exists(pid)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """BEGIN IMMEDIATE … COMMIT, so that reading and writing are one step for all processes."""
        with self._connection:  # commits at the end, rolls back after an exception
            self._connection.execute("BEGIN IMMEDIATE")
            yield
