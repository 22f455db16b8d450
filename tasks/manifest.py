"""What a backup must contain: every table's exact rows and content, taken in the dump's own snapshot.

A row's hash does not depend on where the row is, in which order its columns stand, or how many workers counted: tables
are equal if they hold the same rows, each as often.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from blocks.errors import DatabaseRefused
from tasks import catalog, cluster
from tasks.postgres import SETTINGS

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.sql import Composed

T = TypeVar("T")

FORMAT = 1  # of the manifest file; a newer one is refused
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


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Table(_Part):
    """A table's content. `content` is the decimal sum of the 64-bit hashes of its rows; `key` its primary key."""

    rows: int
    content: str
    key: tuple[str, ...] = ()


class LargeObjects(_Part):
    """How many there are, and the sum of the hashes of their pages."""

    count: int = 0
    content: str = "0"


class Contents(_Part):
    """What is in a database, as far as a restored one must be the same.

    Names are qualified and quoted as PostgreSQL writes them, e.g. `public.sale`. `objects` maps each constraint,
    index, column list, view, function, trigger, type, policy, e.g. `index public.sale_by_time`, to the MD5 of its
    definition. `sequences` maps to the number given out last, negated where it counts down (None: never used, or it
    begins again at its end). `roles` own something or were granted it.
    """

    server_version: int  # e.g. 150018, as server_version_num says
    encoding: str
    collate: str
    ctype: str
    provider: str = "c"  # as in cluster.Locale
    locale: str = ""
    rules: str = ""
    tables: dict[str, Table]
    sequences: dict[str, int | None]
    objects: dict[str, str]
    extensions: dict[str, str]
    roles: tuple[str, ...]
    large_objects: LargeObjects = LargeObjects()


class Archive(_Part):
    """The archive in the bucket: of what it is made, and the SHA-256 of it before and after encryption.

    `compression` is what the stream went through after pg_dump; `none` where pg_dump itself compressed.
    """

    key: str
    compression: Literal["zstd", "none"]
    sha256: str
    bytes: int
    stored_sha256: str
    stored_bytes: int


class Manifest(_Part):
    """The commit mark of a backup: one without it does not exist. `snapshot_at` is the moment of its data.

    A `safety` backup holds the live data from right before a restore, damage and all: it is never offered first.
    """

    format: int = FORMAT
    kind: Literal["daily", "safety"] = "daily"
    site: str
    name: str
    database: str
    snapshot_at: datetime
    seconds: float
    database_bytes: int
    contents: Contents
    archive: Archive
    globals_sql: str  # roles and their memberships without passwords, as pg_dumpall --roles-only writes them
    encrypted: bool = False


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


def take(
    connection: Connection[Any], *, tables: Sequence[str] | None = None, held: dict[str, int | None] | None = None
) -> Contents:
    """What is in the database, in the caller's REPEATABLE READ transaction.

    `tables` are the quoted names of the only ones to count and hash, `held` is what `hold` returned, if it was called.
    """
    return take_parallel([connection], tables=tables, held=held)


def take_parallel(
    connections: list[Connection[Any]],
    *,
    tables: Sequence[str] | None = None,
    held: dict[str, int | None] | None = None,
) -> Contents:
    """As `take`, with the tables shared out, biggest first. The first connection's snapshot is the others' too."""
    first = connections[0]
    held = hold(first) if held is None else held
    objects = _objects(first)  # at once: definitions come out of caches, and a function may be replaced at any time
    for connection in connections:
        pin(connection)
    todo = deque(row for row in first.execute(catalog.TABLES) if tables is None or row[2] in tables)
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


def differences(expected: Contents, found: Contents) -> list[str]:
    """What is not as it must be, a sentence each; none if the database found is exactly the one expected.

    A sequence may be ahead: it is in no snapshot. Versions of the server are not compared.
    """
    return [
        *(
            f"The {name} is {now}, {before} expected."
            for name in cluster.Locale._fields
            if (now := getattr(found, name)) != (before := getattr(expected, name))
        ),
        *_compared("table ", expected.tables, found.tables, _table_differs),
        *_compared("sequence ", expected.sequences, found.sequences, _sequence_differs),
        *_compared(
            "", {"large objects": expected.large_objects}, {"large objects": found.large_objects}, _pages_differ
        ),
        *_compared("extension ", expected.extensions, found.extensions, _version_differs),
        *(f"role {name}: missing." for name in expected.roles if name not in found.roles),
        *_compared("", expected.objects, found.objects, _definition_differs),
    ]


# Every new database has it, also one that is restored from a database without it.
_ALWAYS = "rights on schema public"


def _compared(
    what: str, expected: Mapping[str, T], found: Mapping[str, T], differs: Callable[[T, T], str]
) -> list[str]:
    names = dict.fromkeys((*expected, *found))
    return [f"{what}{name}: {words}." for name in names if (words := _words(name, expected, found, differs))]


def _words(name: str, expected: Mapping[str, T], found: Mapping[str, T], differs: Callable[[T, T], str]) -> str:
    if name not in found:
        return "missing"
    if name not in expected:
        return "" if name == _ALWAYS else "not expected"
    return "" if expected[name] == found[name] else differs(expected[name], found[name])


def _table_differs(expected: Table, found: Table) -> str:
    if expected.rows != found.rows:
        return f"{found.rows:,} rows, {expected.rows:,} expected"
    if expected.content != found.content:
        return f"{found.rows:,} rows as expected, but not the same"
    return "another primary key"


def _sequence_differs(expected: int | None, found: int | None) -> str:
    if expected is None or (found is not None and found >= expected):
        return ""
    return f"behind: at {'its start' if found is None else found}, {expected} expected"


def _pages_differ(expected: LargeObjects, found: LargeObjects) -> str:
    if expected.count != found.count:
        return f"{found.count:,}, {expected.count:,} expected"
    return f"{found.count:,} as expected, but not the same"


def _version_differs(expected: str, found: str) -> str:
    return f"version {found}, {expected} expected"


def _definition_differs(_expected: str, _found: str) -> str:
    return "defined otherwise"


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
