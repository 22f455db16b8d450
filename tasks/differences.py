"""One table: what differs between the live database and a backup restored beside it.

Both sides are counted and hashed at once. If they differ, the keys and hashes of all live rows go into the restored
database, where SQL compares them and writes down in `guardia.damaged` what differs. Nothing but streams passes here.
What the live server cannot read from its disk is told, and the rows that it may have held are counted by nobody.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from blocks.database import Tenants
from tasks import tables
from tasks.tables import Schema, Table

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.sql import Composed

KEYS = 100_000  # changed rows whose columns are compared at a time, by their keys
# SQLSTATEs of what lies broken on the disk: damaged data or index, an error in input or output, a file that is gone.
# The first class is PostgreSQL's "internal error": so ends what reads a row whose lengths are garbage.
_BROKEN = ("XX", "58030", "58P01")

SCRATCH = """
DROP SCHEMA IF EXISTS guardia CASCADE;
CREATE SCHEMA guardia;
CREATE TABLE guardia.damaged (  -- logged: what a rescue rests on outlives a crash of the server
    tab text, kind text, key text COLLATE "C", tenant text, row_hash bigint, live_hash bigint, copies bigint
);
CREATE UNLOGGED TABLE guardia.live_rows (key text COLLATE "C", tenant text, hash bigint);
CREATE UNLOGGED TABLE guardia.live_columns (key text COLLATE "C", hashes bigint[]);
"""

_DIFFERENT = """
INSERT INTO guardia.damaged
SELECT {title}, d.kind, coalesce(b.key, l.key), d.tenant, d.row_hash, d.live_hash, 1
FROM ({rows}) b FULL JOIN guardia.live_rows l ON l.key = b.key
CROSS JOIN LATERAL (VALUES
    ('missing', b.tenant, b.hash, NULL::bigint, l.key IS NULL OR b.tenant <> l.tenant),
    ('new', l.tenant, NULL::bigint, l.hash, b.key IS NULL OR b.tenant <> l.tenant),
    ('changed', coalesce(b.tenant, l.tenant), b.hash, l.hash,
     b.key IS NOT NULL AND l.key IS NOT NULL AND (b.tenant <> l.tenant) IS NOT TRUE)
) d (kind, tenant, row_hash, live_hash, so)
WHERE b.hash IS DISTINCT FROM l.hash AND d.so"""

_DIFFERENT_COPIES = """
INSERT INTO guardia.damaged
SELECT {title}, CASE WHEN coalesce(b.n, 0) > coalesce(l.n, 0) THEN 'missing' ELSE 'new' END, NULL,
    coalesce(b.tenant, l.tenant), hash, NULL, abs(coalesce(b.n, 0) - coalesce(l.n, 0))
FROM (SELECT hash, min(tenant) AS tenant, count(*) AS n FROM ({rows}) r GROUP BY hash) b
FULL JOIN (SELECT hash, min(tenant) AS tenant, count(*) AS n FROM guardia.live_rows GROUP BY hash) l USING (hash)
WHERE b.n IS DISTINCT FROM l.n"""

_ONLY_LIVE = """
INSERT INTO guardia.damaged (tab, kind, tenant, copies)
SELECT %s, 'new', tenant, count(*) FROM guardia.live_rows GROUP BY tenant"""

_BY_TENANT = """
SELECT coalesce(tenant, ''), coalesce(sum(copies) FILTER (WHERE kind = 'missing'), 0)::bigint,
    coalesce(sum(copies) FILTER (WHERE kind = 'changed'), 0)::bigint,
    coalesce(sum(copies) FILTER (WHERE kind = 'new'), 0)::bigint
FROM guardia.damaged WHERE tab = %s GROUP BY tenant ORDER BY length(tenant), tenant"""


class TableDamage(BaseModel):
    """How one table differs, in rows; `by_tenant` and `columns` say whose and which, `note` what else.

    `missing` rows are in the backup and not in live, `changed` ones have the same primary key and other content, `new`
    ones are in live only. A key that another tenant's row has by now is both: that tenant's is new, this one's missing.
    Without a `key`, rows are told apart by their whole content, and none is ever "changed". Of a table that live cannot
    read (`unreadable` says why, in the server's words) nothing is counted: its zeros mean nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: str
    key: tuple[str, ...] = ()
    compared: tuple[str, ...] = ()  # columns, in the order in which a row is hashed
    missing: int = 0
    changed: int = 0
    new: int = 0
    by_tenant: dict[str, tuple[int, int, int]] = {}  # tenant's key, "" for none: missing, changed, new
    columns: dict[str, int] = {}  # changed rows in which the column differs
    note: str = ""
    dropped: bool = False  # live has no such table
    unreadable: str = ""


class Unreadable(Exception):
    """A server cannot read from its disk what a statement asks for, in the first line of its own words."""


@contextmanager
def reading() -> Iterator[None]:
    """Raise Unreadable for a statement in the block that fails over what lies broken on the server's disk."""
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        if not (error.sqlstate or "").startswith(_BROKEN):
            raise
        raise Unreadable((error.diag.message_primary or str(error)).partition("\n")[0]) from error


@dataclass(frozen=True)
class Side:
    """A database, and its tables."""

    connection: Connection[Any]
    schema: Schema
    tenants: Tenants | None

    def rows(self, table: Table, columns: Iterable[str], key: Collection[str]) -> Composed:
        """A query for the rows of a table as (key, tenant, hash)."""
        from psycopg.sql import SQL

        source, tenant = tables.owned(self.schema, table, self.tenants)
        name = tables.as_text("t", key) if key else SQL("NULL::text")
        return SQL("SELECT {} AS key, {} AS tenant, {} AS hash FROM {}").format(
            name, tenant, tables.row_hash("t", columns), source
        )


def compare_table(live: Side, beside: Side, title: str) -> TableDamage | None:
    """Write down in `guardia.damaged` what differs, and count it; None if nothing does.

    Live is in a transaction, which goes on with the same snapshot when the table cannot be read. If only those cannot
    that would tell whose its rows are, it is compared all the same: whose new rows are is then not known.
    """
    words = ""
    for side in (live, replace(live, tenants=None)):
        try:
            with live.connection.transaction():  # a savepoint
                found = _compared(side, beside, title)
            return _owned_by_nobody_known(found, words) if found and words else found
        except Unreadable as error:
            words = str(error)
            beside.connection.execute("DELETE FROM guardia.damaged WHERE tab = %s", (title,))
    return TableDamage(table=title, unreadable=words)


def _owned_by_nobody_known(found: TableDamage, why: str) -> TableDamage:
    note = f"whose the new rows are cannot be told: {why}"
    return found.model_copy(update={"note": "; ".join(filter(None, (found.note, note)))})


def _compared(live: Side, beside: Side, title: str) -> TableDamage | None:
    """As `compare_table`. Raises Unreadable for what live cannot read."""
    now, then = live.schema.tables.get(title), beside.schema.tables.get(title)
    if now is None or then is None:
        return _one_sided(live, beside, title)
    columns, key, note = common(now, then), key_of(now, then), _schema_note(now, then)
    found = TableDamage(table=title, key=key, compared=columns, note=note)
    with ThreadPoolExecutor(2) as pool:  # a processor each
        here = pool.submit(_total, live.connection, now, columns)
        there = _total(beside.connection, then, columns)
        with reading():
            same = here.result() == there
    if same:
        return found if note else None
    _transfer(live, beside, live.rows(now, columns, key), "live_rows")
    beside.connection.execute("ANALYZE guardia.live_rows")
    beside.connection.execute(_differences(beside.rows(then, columns, key), title, keyed=bool(key)))
    found = _summed(beside, found)
    if not found.changed:
        return found
    return found.model_copy(update={"columns": _columns_changed(live, beside, now, then)})


def _one_sided(live: Side, beside: Side, title: str) -> TableDamage:
    """A table that was dropped, or made, since the backup."""
    from psycopg.sql import SQL, Literal

    if table := live.schema.tables.get(title):
        _transfer(live, beside, live.rows(table, (), ()), "live_rows")
        beside.connection.execute(_ONLY_LIVE, (title,))
        return _summed(beside, TableDamage(table=title, key=tuple(table.key), note="the backup has no such table"))
    table = beside.schema.tables[title]
    query = "INSERT INTO guardia.damaged SELECT {}, 'missing', key, tenant, hash, NULL, 1 FROM ({}) r"
    rows = beside.rows(table, table.columns, tuple(table.key))
    beside.connection.execute(SQL(query).format(Literal(title), rows))
    return _summed(beside, TableDamage(table=title, key=tuple(table.key), note="dropped in live", dropped=True))


def _total(connection: Connection[Any], table: Table, columns: Iterable[str]) -> tuple[Any, ...] | None:
    """How many rows, and the sum of their hashes."""
    from psycopg.sql import SQL

    query = SQL("SELECT count(*), sum({}) FROM {} t").format(tables.row_hash("t", columns), table.source)
    return connection.execute(query).fetchone()


def _differences(rows: Composed, title: str, *, keyed: bool) -> Composed:
    """Write down what differs between the restored rows and those in `guardia.live_rows`."""
    from psycopg.sql import SQL, Literal

    return SQL(_DIFFERENT if keyed else _DIFFERENT_COPIES).format(rows=rows, title=Literal(title))


def _transfer(live: Side, beside: Side, query: Composed, into: str) -> None:
    """Stream a query's rows from live into a scratch table of the restored database, in the place of what it holds."""
    from psycopg.sql import SQL, Identifier

    beside.connection.execute(SQL("TRUNCATE {}").format(Identifier("guardia", into)))
    copy_out = SQL("COPY ({}) TO STDOUT").format(query)
    copy_in = SQL("COPY {} FROM STDIN").format(Identifier("guardia", into))
    with closing(_copied(live.connection, copy_out)) as source, beside.connection.cursor().copy(copy_in) as target:
        for data in source:
            target.write(data)


def _copied(connection: Connection[Any], query: Composed) -> Generator[bytes | bytearray | memoryview, None, None]:
    """What a COPY sends. Only its own errors are Unreadable, not those of whoever takes it."""
    with reading(), connection.cursor().copy(query) as source:
        yield from source


def _summed(beside: Side, table: TableDamage) -> TableDamage:
    """Count what was written down of a table."""
    by_tenant = {
        tenant: (missing, changed, new)
        for tenant, missing, changed, new in beside.connection.execute(_BY_TENANT, (table.table,))
    }
    missing, changed, new = (
        (sum(counts) for counts in zip(*by_tenant.values(), strict=True)) if by_tenant else (0, 0, 0)
    )
    told = by_tenant if any(by_tenant) else {}
    return table.model_copy(update={"missing": missing, "changed": changed, "new": new, "by_tenant": told})


def _columns_changed(live: Side, beside: Side, now: Table, then: Table) -> dict[str, int]:
    """In how many changed rows each column differs. Their keys go to live a part at a time."""
    from psycopg.sql import SQL, Literal

    columns, key = common(now, then), tables.as_text("t", key_of(now, then))
    hashes = {name: SQL("hashtextextended({}::text, 0)").format(tables.column("t", name)) for name in columns}
    fetch = SQL("SELECT {}, ARRAY[{}] FROM {} t WHERE {} = ANY({})")
    counts = SQL(", ").join(
        SQL("count(*) FILTER (WHERE {} IS DISTINCT FROM l.hashes[{}])").format(expression, Literal(n))
        for n, expression in enumerate(hashes.values(), 1)
    )
    count = SQL("SELECT {} FROM {} t JOIN guardia.live_columns l ON l.key = {}").format(counts, then.source, key)
    total = dict.fromkeys(columns, 0)
    with beside.connection.transaction(), beside.connection.cursor(name="changed") as cursor:
        cursor.execute("SELECT key FROM guardia.damaged WHERE tab = %s AND kind = 'changed'", (then.title,))
        while keys := [row[0] for row in cursor.fetchmany(KEYS)]:
            part = fetch.format(key, SQL(", ").join(hashes.values()), now.source, key, Literal(keys))
            _transfer(live, beside, part, "live_columns")
            differing = beside.connection.execute(count).fetchone()
            total = {name: total[name] + n for name, n in zip(columns, differing or (), strict=True)}
    return {name: n for name, n in total.items() if n}


def _schema_note(now: Table, then: Table) -> str:
    """How the table itself changed since the backup; its rows are compared by the columns that both have."""
    added, dropped = set(now.columns) - set(then.columns), set(then.columns) - set(now.columns)
    types = {n for n in common(now, then) if now.columns[n].type != then.columns[n].type}
    parts = [
        f"{what} since the backup: {', '.join(sorted(names))}"
        for what, names in (("columns added", added), ("columns dropped", dropped), ("types changed", types))
        if names
    ]
    if key_of(now, then) != tuple(then.key):
        parts.append("the primary key is another one: compared by whole rows")
    return "; ".join(parts)


def common(now: Table, then: Table) -> tuple[str, ...]:
    """The columns that a table has on both sides, in the backup's order."""
    return tuple(name for name in then.columns if name in now.columns)


def key_of(now: Table, then: Table) -> tuple[str, ...]:
    """The primary key by which rows are compared: none unless it is the same on both sides."""
    return tuple(then.key) if set(now.key) == set(then.key) else ()
