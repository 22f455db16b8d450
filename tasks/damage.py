"""Assess the damage: the live database against a proven backup that was restored beside it, row by row.

Serves the guide's "Data Loss / Corruption". Tables are first compared by count and hash, both sides at once; of those
that differ the keys and hashes of all rows go from the live snapshot into the restored database, where SQL compares
them. What differs stays there, in `guardia.damaged`, for a rescue. Nothing but streams passes through here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from blocks.database import Tenants
from tasks import tables
from tasks.tables import Schema, Table

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.sql import Composed

KEYS = 100_000  # changed rows whose columns are compared at a time, by their keys
ROWS, WIDTH = 20, 40  # what is shown of a query's answer, rows and characters a cell

_SCRATCH = """
DROP SCHEMA IF EXISTS guardia CASCADE;
CREATE SCHEMA guardia;
CREATE UNLOGGED TABLE guardia.damaged (
    tab text, kind text, key text COLLATE "C", tenant text, row_hash bigint, live_hash bigint, copies bigint
);
CREATE UNLOGGED TABLE guardia.live_rows (key text COLLATE "C", tenant text, hash bigint);
CREATE UNLOGGED TABLE guardia.live_columns (key text COLLATE "C", hashes bigint[]);
"""

_DIFFERENT = """
INSERT INTO guardia.damaged
SELECT {title}, CASE WHEN l.key IS NULL THEN 'missing' WHEN b.key IS NULL THEN 'new' ELSE 'changed' END,
    coalesce(b.key, l.key), coalesce(b.tenant, l.tenant), b.hash, l.hash, 1
FROM ({rows}) b FULL JOIN guardia.live_rows l ON l.key = b.key WHERE b.hash IS DISTINCT FROM l.hash"""

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


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TableDamage(_Part):
    """How one table differs, in rows; `by_tenant` and `columns` say whose and which, `note` what else.

    `missing` rows are in the backup and not in live, `changed` ones have the same primary key and other content, `new`
    ones are in live only. Without a `key`, rows are told apart by their whole content, and none is ever "changed".
    """

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


class Damage(_Part):
    """What differs between the live database and a backup restored beside it; equal tables are left out.

    `at` is the moment of the live snapshot; `tenants` names all that `by_tenant` counts.
    """

    live: str
    beside: str
    at: datetime
    tables: tuple[TableDamage, ...]
    tenants: dict[str, str]
    compared: int  # tables

    @property
    def ok(self) -> bool:
        """Whether nothing that the backup has is gone or different."""
        return not any(t.missing or t.changed or t.dropped for t in self.tables)

    @property
    def affected(self) -> list[str]:
        """Tenants with rows missing or changed."""
        return [i for i in self.tenants if any(sum(t.by_tenant.get(i, (0, 0, 0))[:2]) for t in self.tables)]

    @property
    def summary(self) -> str:
        """One line for the timeline."""
        missing, changed, new = (sum(getattr(t, kind) for t in self.tables) for kind in ("missing", "changed", "new"))
        if not self.tables:
            return f"all {self.compared} tables are as in the backup"
        whose = ", ".join(self.tenants[i] for i in self.affected[:5]) or "no tenant in particular"
        more = f" and {len(self.affected) - 5} more" if len(self.affected) > 5 else ""
        dropped = [t.table for t in self.tables if t.dropped]
        gone = f"; dropped: {', '.join(dropped)}" if dropped else ""
        return f"rows: {missing:,} missing, {changed:,} changed, {new:,} new{gone}; of {whose}{more}"

    @property
    def text(self) -> str:
        """A table for people: each damaged table, and in it each tenant."""
        rows: list[tuple[str, ...]] = [("table", "missing", "changed", "new", "columns changed")]
        for t in self.tables:
            columns = ", ".join(f"{name} {count:,}" for name, count in t.columns.items())
            rows.append((t.table, f"{t.missing:,}", f"{t.changed:,}", f"{t.new:,}", columns))
            for tenant, counts in t.by_tenant.items():
                rows.append((f"  {self.called(tenant)}", *(f"{n:,}" for n in counts), ""))
        notes = [f"{t.table}: {t.note}" for t in self.tables if t.note]
        return "\n".join([grid(rows), *notes]) if self.tables else self.summary

    def called(self, tenant: str) -> str:
        """A tenant's name and key; or that the rows belong to none."""
        return f"{self.tenants[tenant]} ({tenant})" if tenant in self.tenants else "of no tenant"


def compare(
    live: Connection[Any],
    beside: Connection[Any],
    tenants: Tenants | None,
    report: Callable[[float], None] = lambda _: None,
) -> Damage:
    """Compare all tables that either side has. `report` is told the fraction done, by tables.

    Both connections are in autocommit mode and print values the same way; `beside` is written to, in the schema
    `guardia`, which a further comparison empties and `forget` drops.
    """
    beside.execute(_SCRATCH)
    with _snapshot(live) as at:
        now, then = _Side(live, tables.schema(live), tenants), _Side(beside, tables.schema(beside), tenants)
        titles, found = sorted(now.schema.tables | then.schema.tables), []
        for n, title in enumerate(titles):
            if differs := _compare_table(now, then, title):
                found.append(differs)
            report((n + 1) / len(titles))
        wanted = sorted({i for table in found for i in table.by_tenant if i})
        named = {i: name for side in (beside, live) for i, name, _ in owners(side, tenants, wanted)}
    beside.execute("TRUNCATE guardia.live_rows, guardia.live_columns; ANALYZE guardia.damaged")
    beside.execute(f"COMMENT ON TABLE guardia.damaged IS '{at.isoformat()}'")
    return Damage(
        live=live.info.dbname, beside=beside.info.dbname, at=at, tables=tuple(found), compared=len(titles),
        tenants={i: named.get(i, f"tenant {i}") for i in wanted},
    )  # fmt: skip


def forget(beside: Connection[Any]) -> None:
    """Drop what a comparison left in the restored database, so that it can take the live one's place."""
    beside.execute("DROP SCHEMA IF EXISTS guardia CASCADE")


def recent(live: Connection[Any], queries: list[str]) -> str:
    """The guide's queries for a look at recent data, as tables of a few rows; their errors are shown, not raised."""
    import psycopg
    from psycopg.sql import SQL

    shown = []
    for query in queries:
        try:
            with live.transaction():
                live.execute("SET TRANSACTION READ ONLY")
                live.execute("""SET LOCAL search_path = "$user", public; SET LOCAL statement_timeout = '15s'""")
                with live.cursor(name="recent") as cursor:  # sends one statement only, and fetches no more than shown
                    cursor.execute(SQL(query))
                    rows = cursor.fetchmany(ROWS)
                    head = tuple(c.name for c in cursor.description or ())
                    answer = grid([head, *(tuple(map(_cell, row)) for row in rows)]) if rows else "no rows"
        except psycopg.OperationalError as error:
            if live.broken:
                raise
            answer = f"failed: {error}".strip()
        except psycopg.Error as error:
            answer = f"failed: {error}".strip()
        shown.append(f"{query}\n\n{answer}")
    return "\n\n".join(shown)


def owners(connection: Connection[Any], tenants: Tenants | None, ids: list[str]) -> list[tuple[str, str, str]]:
    """Key, name and owner's address ("" if none) of those of the tenants that this database has."""
    from psycopg.sql import SQL, Identifier

    table = tables.tenant_table(tables.schema(connection), tenants)
    if tenants is None or table is None or not {tenants.key, tenants.title} <= set(table.columns):
        return []
    email = Identifier(tenants.email) if tenants.email in table.columns else SQL("''")
    query = SQL(
        "SELECT {key}::text, {title}::text, coalesce({email}::text, '') FROM {table} t "
        "WHERE {key}::text = ANY(%s) ORDER BY {key}"
    )
    return connection.execute(
        query.format(key=Identifier(tenants.key), title=Identifier(tenants.title), email=email, table=table.source),
        (ids,),
    ).fetchall()


def common(now: Table, then: Table) -> tuple[str, ...]:
    """The columns that a table has on both sides, in the backup's order."""
    return tuple(name for name in then.columns if name in now.columns)


def key_of(now: Table, then: Table) -> tuple[str, ...]:
    """The primary key by which rows are compared: none unless it is the same on both sides."""
    return tuple(then.key) if set(now.key) == set(then.key) else ()


@contextmanager
def _snapshot(live: Connection[Any]) -> Iterator[datetime]:
    """One state of the live database for all that is read within."""
    with live.transaction():
        live.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        row = live.execute("SELECT now()").fetchone()
        assert row is not None
        yield row[0].astimezone(UTC)


@dataclass(frozen=True)
class _Side:
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


def _compare_table(live: _Side, beside: _Side, title: str) -> TableDamage | None:
    """Write down in `guardia.damaged` what differs, and count it; None if nothing does."""
    now, then = live.schema.tables.get(title), beside.schema.tables.get(title)
    if now is None or then is None:
        return _one_sided(live, beside, title)
    columns, key, note = common(now, then), key_of(now, then), _schema_note(now, then)
    found = TableDamage(table=title, key=key, compared=columns, note=note)
    with ThreadPoolExecutor(2) as pool:  # a processor each
        one = pool.submit(_total, live.connection, now, columns)
        if one.result() == _total(beside.connection, then, columns):
            return found if note else None
    _transfer(live, beside, live.rows(now, columns, key), "live_rows")
    beside.connection.execute("ANALYZE guardia.live_rows")
    beside.connection.execute(_differences(beside.rows(then, columns, key), title, keyed=bool(key)))
    found = _summed(beside, found)
    if not found.changed:
        return found
    return found.model_copy(update={"columns": _columns_changed(live, beside, now, then)})


def _one_sided(live: _Side, beside: _Side, title: str) -> TableDamage:
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


def _transfer(live: _Side, beside: _Side, query: Composed, into: str) -> None:
    """Stream a query's rows from live into a scratch table of the restored database, in the place of what it holds."""
    from psycopg.sql import SQL, Identifier

    beside.connection.execute(SQL("TRUNCATE {}").format(Identifier("guardia", into)))
    copy_out = SQL("COPY ({}) TO STDOUT").format(query)
    copy_in = SQL("COPY {} FROM STDIN").format(Identifier("guardia", into))
    with live.connection.cursor().copy(copy_out) as source, beside.connection.cursor().copy(copy_in) as target:
        for data in source:
            target.write(data)


def _summed(beside: _Side, table: TableDamage) -> TableDamage:
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


def _columns_changed(live: _Side, beside: _Side, now: Table, then: Table) -> dict[str, int]:
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


def grid(rows: Sequence[Sequence[str]]) -> str:
    """A text table: the first column to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if n and cell.replace(",", "").isdigit() else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _cell(value: object) -> str:
    text = "" if value is None else " ".join(str(value).split())
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"
