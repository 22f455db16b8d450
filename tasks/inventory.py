"""What is in a database: every table's exact rows and content, taken in a dump's own snapshot.

A row's hash does not depend on where the row is, in which order its columns stand, or how many workers counted: tables
are equal if they hold the same rows, each as often.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from blocks.errors import DatabaseRefused
from tasks import catalog, cluster, snapshot
from tasks.manifest import Contents, LargeObjects, Table
from tasks.postgres import SETTINGS, Server

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.sql import Composed

# Beside what every session has set. Somebody may be altering a table: pg_dump waits as long.
PINNED = {"client_encoding": "UTF8", "quote_all_identifiers": "off", "lock_timeout": "60s"}

# Types that PostgreSQL hashes twice as fast as their text, and as exactly, on every server. Not so float (0 is -0),
# numeric without a scale and jsonb (1.0 is 1.00), enums (hashed by oid), interval (1 month is 30 days).
TEXT = {"text", "character varying"}
EXACT = {
    "smallint", "integer", "bigint", "oid", "boolean", "bytea", "uuid", "date", "timestamp without time zone",
    "timestamp with time zone", "time without time zone",
}  # fmt: skip
# Quoted text, which counts as it is; casts, parentheses and space, which do not.
_LOOSE = re.compile(
    r"""('(?:[^']|'')*')|::(?:"(?:[^"]|"")*"|[\w.])+(?: varying| precision| with(?:out)? time zone)?"""
    r"""(?:\([\d,]+\))?(?:\[\])*|[()\s]+|("(?:[^"]|"")*")"""
)


def pin(connection: Connection[Any]) -> None:
    """Let a session write values and definitions down as every other session of Guardia does."""
    for name, value in (SETTINGS | PINNED).items():
        connection.execute("SELECT set_config(%s, %s, false)", (name, value))


def hold(connection: Connection[Any]) -> dict[str, int | None]:
    """Keep every table from being emptied or altered until the transaction ends; returns the sequences as they are.

    To be called before pg_dump starts: sequences and TRUNCATE are in no snapshot, so that what pg_dump finds later
    is then at least what is returned here.
    """
    from psycopg.sql import SQL, Identifier

    pin(connection)
    tables = connection.execute(catalog.TABLES).fetchall()
    if tables:
        names = SQL(", ").join(SQL("ONLY {}").format(Identifier(schema, name)) for schema, name, *_ in tables)
        connection.execute(SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(names))
    return dict(_sequences(connection))


def of(server: Server, database: str) -> Contents:
    """What is in a database now, counted and hashed by several sessions that see the same state.

    Raises DatabaseUnreachable, DatabaseRefused.
    """
    with snapshot.shared(server, database) as state:
        return take(*state.sessions)


def take(*connections: Connection[Any], held: dict[str, int | None] | None = None) -> Contents:
    """What is in the database, in the caller's REPEATABLE READ transactions, which all see the same snapshot.

    The tables are shared out among the connections, biggest first. `held` is what `hold` returned, if it was called.
    """
    first = connections[0]
    held = hold(first) if held is None else held
    objects = _objects(first)  # at once: definitions come out of caches, and a function may be replaced at any time
    for connection in connections:
        pin(connection)
    todo = deque(first.execute(catalog.TABLES))
    with ThreadPoolExecutor(len(connections)) as pool:
        parts = list(pool.map(lambda connection: _some(connection, todo), connections))
    locale = cluster.locale(first, first.info.dbname)._asdict()
    count, pages = _one(first, catalog.LARGE_OBJECTS)
    return Contents(
        server_version=first.info.server_version, **locale,
        tables={name: table for part in parts for name, table in part.items()},
        sequences=held, objects=objects, extensions=dict(first.execute(catalog.EXTENSIONS).fetchall()),
        roles=tuple(name for (name,) in first.execute(catalog.ROLES)),
        large_objects=LargeObjects(count=count, content=pages),
    )  # fmt: skip


def refuse_inexact(connection: Connection[Any]) -> None:
    """Raise DatabaseRefused, naming what could only be backed up in part or not be compared."""
    if connection.info.parameter_status("server_encoding") == "SQL_ASCII":
        raise DatabaseRefused(
            f"{connection.info.dbname} has the encoding SQL_ASCII: nothing says what its text means.",
            "Move it into a database with the encoding UTF8.",
        )
    if connection.info.server_version < 140000:
        raise DatabaseRefused("PostgreSQL before 14 cannot hash a row.", "Update to 14 or newer.")
    rows = connection.execute(catalog.UNREADABLE).fetchall()
    hidden, barred = [name for name, active in rows if active], [name for name, active in rows if not active]
    user = connection.info.user
    if hidden:
        raise DatabaseRefused(
            f"Row level security hides rows of {', '.join(hidden)} from {user}: a backup would be incomplete.",
            f"Back up as a superuser, or: ALTER ROLE {user} BYPASSRLS.",
        )
    if barred:
        raise DatabaseRefused(
            f"{user} may not read {', '.join(barred)}: a backup would be incomplete.", "Back up as a superuser."
        )


def _some(connection: Connection[Any], todo: deque[Any]) -> dict[str, Table]:
    """Count and hash tables until none is left; after a failure nobody begins another."""
    done: dict[str, Table] = {}
    while True:
        try:
            schema, table, name, key, columns, condition = todo.popleft()
        except IndexError:
            return done
        try:
            rows, content = _one(connection, _hashed(schema, table, columns, condition))
        except BaseException:
            todo.clear()
            raise
        done[name] = Table(rows=rows, content=content, key=tuple(key))


def _hashed(schema: str, table: str, columns: list[tuple[str, str, str]], condition: str) -> Composed:
    """Count and sum of hashes in one scan.

    The sum of a row's hashes would not notice two rows that swapped a value: each is therefore hashed once more.
    """
    from psycopg.sql import SQL, Identifier

    plain, others = [], []
    for name, type_, modifier in columns:
        column = SQL("t.{}").format(Identifier(name))
        if type_ in TEXT:
            plain.append(SQL('{} COLLATE "C"').format(column))
        elif type_ in EXACT or (type_ == "numeric" and modifier != "-1"):
            plain.append(column)
        else:
            others.append(column)
    if others or not plain:
        plain.append(SQL('ROW({})::text COLLATE "C"').format(SQL(", ").join(others)))
    return SQL(
        "SELECT count(*), coalesce(sum(hashint8extended(hash_record_extended(ROW({}), 0), 0)), 0)::text "
        "FROM ONLY {} AS t {}"
    ).format(SQL(", ").join(plain), Identifier(schema, table), SQL(condition))


def _sequences(connection: Connection[Any]) -> Iterator[tuple[str, int | None]]:
    from psycopg.sql import SQL, Identifier

    for schema, sequence, name, start, step, cycles in connection.execute(catalog.SEQUENCES).fetchall():
        last, called = _one(
            connection, SQL("SELECT last_value, is_called FROM {}").format(Identifier(schema, sequence))
        )
        unused = cycles or (not called and last == start)
        yield name, None if unused else (last if called else last - step) * (1 if step > 0 else -1)


def _objects(connection: Connection[Any]) -> dict[str, str]:
    """The MD5 of each object's definition; of several that have one name, of all."""
    parts: dict[str, list[str]] = {}
    for name, exact, expression in connection.execute(catalog.OBJECTS):
        parts.setdefault(name, []).append(f"{exact} {loose(expression or '')}")
    return {
        name: hashlib.md5("\n".join(sorted(parts[name])).encode(), usedforsecurity=False).hexdigest()
        for name in sorted(parts)
    }


def loose(expression: str) -> str:
    """An expression without casts, parentheses and space, which a dump and its restore may change.

    PostgreSQL writes `(ARRAY['a'::varchar])::text[]`, reads that and writes `ARRAY[('a'::varchar)::text]`.
    """
    return _LOOSE.sub(lambda match: match[1] or match[2] or "", expression)


def _one(connection: Connection[Any], query: str | Composed) -> tuple[Any, ...]:
    row = connection.execute(query).fetchone()
    assert row is not None
    return tuple(row)
