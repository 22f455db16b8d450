"""One state of a database, seen by several sessions at once and, by its name, by pg_dump."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tasks import postgres
from tasks.postgres import Server

if TYPE_CHECKING:
    from psycopg import Connection

SESSIONS = 2  # that count and hash tables side by side: one a core of a small VPS


@dataclass(frozen=True)
class Snapshot:
    """Sessions in read-only transactions that all see the state of the moment `at`; it is held while they last."""

    sessions: list[Connection[Any]]
    name: str
    at: datetime


@contextmanager
def shared(server: Server, database: str, *, application: str = "guardia") -> Iterator[Snapshot]:
    """Open sessions that see the same state, until the block ends.

    Raises DatabaseUnreachable, DatabaseRefused, also when a session was lost by the end: then nobody can say that
    they saw the same.
    """
    begin = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"
    with postgres.connections(server, database, SESSIONS, application=application) as sessions:
        first, *others = sessions
        first.execute(begin)
        row = first.execute("SELECT pg_export_snapshot(), statement_timestamp()").fetchone()
        assert row is not None
        for session in others:
            session.execute(begin)
            session.execute(f"SET TRANSACTION SNAPSHOT '{row[0]}'")
        yield Snapshot(sessions, str(row[0]), row[1])
        for session in sessions:
            session.execute("COMMIT")
