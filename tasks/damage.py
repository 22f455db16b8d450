"""Assess the damage: the live database against a proven backup that was restored beside it, row by row.

Serves the guide's "Data Loss / Corruption". What differs stays in the restored database, in `guardia.damaged`, for a
rescue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from blocks.database import Tenants
from tasks import differences, tables
from tasks.differences import Side, TableDamage, Unreadable

if TYPE_CHECKING:
    from psycopg import Connection

ROWS, WIDTH = 20, 40  # what is shown of a query's answer, rows and characters a cell


class Damage(BaseModel):
    """What differs between the live database and a backup restored beside it; equal tables are left out.

    `at` is the moment of the live snapshot; `tenants` names all that `by_tenant` counts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    live: str
    beside: str
    at: datetime
    tables: tuple[TableDamage, ...]
    tenants: dict[str, str]
    compared: int  # tables

    @property
    def ok(self) -> bool:
        """Whether nothing that the backup has is gone, different or not to be read."""
        return not any(t.missing or t.changed or t.dropped or t.unreadable for t in self.tables)

    @property
    def unreadable(self) -> dict[str, str]:
        """The tables that live cannot read, and that in words: their rows cannot be counted, and live not be dumped."""
        return {t.table: f"{t.table} cannot be read ({t.unreadable})" for t in self.tables if t.unreadable}

    @property
    def affected(self) -> list[str]:
        """Tenants with rows missing or changed."""
        return [i for i in self.tenants if any(sum(t.by_tenant.get(i, (0, 0, 0))[:2]) for t in self.tables)]

    @property
    def summary(self) -> str:
        """One line for the timeline."""
        missing, changed, new = (sum(getattr(t, kind) for t in self.tables) for kind in ("missing", "changed", "new"))
        if not self.compared:
            return "no table was compared"
        if not self.tables:
            return f"all {self.compared} tables are as in the backup"
        whose = ", ".join(self.tenants[i] for i in self.affected[:5]) or "no tenant in particular"
        more = f" and {len(self.affected) - 5} more" if len(self.affected) > 5 else ""
        dropped = [t.table for t in self.tables if t.dropped]
        gone = f"; dropped: {', '.join(dropped)}" if dropped else ""
        counts = f"{missing:,} missing, {changed:,} changed, {new:,} new{gone}; of {whose}{more}"
        if self.unreadable:
            return f"{'; '.join(self.unreadable.values())}: rows cannot be counted there; elsewhere: {counts}"
        return f"rows: {counts}"

    @property
    def text(self) -> str:
        """A table for people: each damaged table, and in it each tenant."""
        rows: list[tuple[str, ...]] = [("table", "missing", "changed", "new", "columns changed")]
        for t in self.tables:
            columns = ", ".join(f"{name} {count:,}" for name, count in t.columns.items())
            counted = ("unknown",) * 3 if t.unreadable else (f"{t.missing:,}", f"{t.changed:,}", f"{t.new:,}")
            rows.append((t.table, *counted, columns))
            for tenant, counts in t.by_tenant.items():
                rows.append((f"  {self.called(tenant)}", *(f"{n:,}" for n in counts), ""))
        notes = [f"{t.table}: {t.note}" for t in self.tables if t.note]
        return "\n".join([grid(rows), *self.unreadable.values(), *notes]) if self.tables else self.summary

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

    A table that live cannot read is told as such, and the others are compared, in one snapshot of live.

    Both connections are in autocommit mode and print values the same way; `beside` is written to, in the schema
    `guardia`, which a further comparison empties and `forget` drops.
    """
    beside.execute(differences.SCRATCH)
    with _snapshot(live) as at:
        now, then = Side(live, tables.schema(live), tenants), Side(beside, tables.schema(beside), tenants)
        titles, found = sorted(now.schema.tables | then.schema.tables), []
        for n, title in enumerate(titles):
            if differs := differences.compare_table(now, then, title):
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


def brought_back(found: Damage, beside: Connection[Any], tenants: Tenants | None) -> Damage:
    """The same with all rows missing that the backup has of the tables that live cannot read.

    That is what a whole restore brings back of them, whatever live may have held; whose they are, the backup knows.
    """
    there = tables.schema(beside)
    whole = [
        t.model_copy(update=_all_missing(Side(beside, there, tenants), t.table))
        if t.unreadable and t.table in there.tables else t
        for t in found.tables
    ]  # fmt: skip
    unnamed = sorted({i for t in whole for i in t.by_tenant if i} - set(found.tenants))
    named = dict.fromkeys(unnamed, "") | {i: name for i, name, _ in owners(beside, tenants, unnamed)}
    names = {i: name or f"tenant {i}" for i, name in named.items()}
    return found.model_copy(update={"tables": tuple(whole), "tenants": found.tenants | names})


def _all_missing(beside: Side, title: str) -> dict[str, Any]:
    """What a table's damage says if none of the backup's rows are left."""
    from psycopg.sql import SQL

    source, tenant = tables.owned(beside.schema, beside.schema.tables[title], beside.tenants)
    query = SQL("SELECT coalesce({}, ''), count(*) FROM {} GROUP BY 1 ORDER BY 1").format(tenant, source)
    by_tenant = {key: (rows, 0, 0) for key, rows in beside.connection.execute(query)}
    return {"missing": sum(rows for rows, _, _ in by_tenant.values()), "by_tenant": by_tenant}


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
    """Key, name and owner's address ("" if none) of those of the tenants that this database has.

    None of them if their table cannot be read: the backup may know them.
    """
    from psycopg.sql import SQL, Identifier

    table = tables.tenant_table(tables.schema(connection), tenants)
    if tenants is None or table is None or not {tenants.key, tenants.title} <= set(table.columns):
        return []
    email = Identifier(tenants.email) if tenants.email in table.columns else SQL("''")
    text = SQL(
        "SELECT {key}::text, {title}::text, coalesce({email}::text, '') FROM {table} t "
        "WHERE {key}::text = ANY(%s) ORDER BY {key}"
    )
    query = text.format(key=Identifier(tenants.key), title=Identifier(tenants.title), email=email, table=table.source)
    try:
        with differences.reading(), connection.transaction():  # in a snapshot, a savepoint
            return connection.execute(query, (ids,)).fetchall()
    except Unreadable:
        return []


@contextmanager
def _snapshot(live: Connection[Any]) -> Iterator[datetime]:
    """One state of the live database for all that is read within."""
    with live.transaction():
        live.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        row = live.execute("SELECT now()").fetchone()
        assert row is not None
        yield row[0].astimezone(UTC)


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
