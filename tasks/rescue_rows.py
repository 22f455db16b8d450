"""Put chosen rows back from a backup restored beside the live database, in one transaction or not at all.

A row that was touched since, or whose key was taken, is left as it is and told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from blocks.errors import DatabaseRefused
from tasks import postgres, rescue_choice, rows, tables
from tasks.rescue import PutBack, Rescue, TablePutBack
from tasks.rows import Rows
from tasks.tables import Schema

if TYPE_CHECKING:
    from psycopg import Connection

EXAMPLES = 20  # keys of rows that were not put back, told by table

_PUT = """
SELECT coalesce("guardia tenant", ''),
    coalesce(sum("guardia due") FILTER (WHERE "guardia kind" = 'missing' AND "guardia state" = 'put'), 0)::bigint,
    coalesce(sum("guardia due") FILTER (WHERE "guardia kind" = 'changed' AND "guardia state" = 'put'), 0)::bigint,
    coalesce(sum("guardia copies") FILTER (WHERE "guardia kind" = 'missing'), 0)::bigint,
    coalesce(sum("guardia copies") FILTER (WHERE "guardia kind" = 'changed'), 0)::bigint
FROM {rows} WHERE "guardia state" IS NOT NULL GROUP BY 1 ORDER BY length(coalesce("guardia tenant", '')), 1"""

_BEGIN = """
SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE;
SET LOCAL session_replication_role = replica;
SET LOCAL lock_timeout = '30s';
"""


def put_back(
    live: Connection[Any],
    beside: Connection[Any],
    rescue: Rescue,
    verify: Callable[[Connection[Any]], None] | None = None,
    report: Callable[[float], None] = lambda _: None,
) -> PutBack:
    """Put the planned rows back in one transaction; a second time there is nothing left to do.

    `verify` sees the rows before the commit and raises what must prevent it; `report` is told the fraction done.
    Raises DatabaseRefused with the reason; then nothing was put back. Sequences that were raised stay raised.
    """
    with postgres.errors(f"{rescue.live} or {rescue.beside}"):
        rescue_choice.same_assessment(beside, rescue.at)
        rescue_choice.same_choice(beside, rescue)
        now, then = tables.schema(live), tables.schema(beside)
        if gone := [t.table for t in rescue.tables if t.table not in now.tables]:
            raise DatabaseRefused(f"{rescue.live} no longer has {', '.join(gone)}.", "Assess the damage again.")
        with live.transaction():
            live.execute(_BEGIN)
            brought: dict[str, Rows] = {}
            for n, t in enumerate(rescue.tables):
                brought[t.table] = Rows(live, now.tables[t.table], f"rescue_{n}", t.key, t.compared)
                rows.bring(beside, then.tables[t.table], brought[t.table])
                report(0.5 * (n + 1) / len(rescue.tables))
            done = _write(brought)
            _check(brought, now)
            sequences = [name for each in brought.values() for name in rows.raise_sequences(each)]
            if verify is not None:
                verify(live)
        put = PutBack(tables=done, sequences=tuple(sequences))
        _note(beside, put)
        return put


def noted(beside: Connection[Any]) -> PutBack:
    """What the last `put_back` from this database did. Raises DatabaseRefused if there was none."""
    with postgres.errors("the restored database"):
        row = beside.execute("SELECT done FROM guardia.put_back").fetchone()
    assert row is not None
    return PutBack.model_validate(row[0])


def _note(beside: Connection[Any], put: PutBack) -> None:
    from psycopg.types.json import Json

    with beside.transaction():
        beside.execute("DROP TABLE IF EXISTS guardia.put_back; CREATE TABLE guardia.put_back (done json)")
        beside.execute("INSERT INTO guardia.put_back VALUES (%s)", (Json(put.model_dump(mode="json")),))


def _write(brought: dict[str, Rows]) -> dict[str, TablePutBack]:
    """Changed rows first, whose unique values may be those of missing ones; then missing rows, parents first."""
    written = dict.fromkeys(brought, 0)
    for each in brought.values():
        rows.mark(each, "already")
    for step in (rows.update, rows.insert):
        for title, each in brought.items():
            written[title] += step(each)
    return {title: _counted(each, written[title]) for title, each in brought.items()}


def _counted(each: Rows, written: int) -> TablePutBack:
    """Compare every row with the backup's and count what became of it."""
    already = each.one("SELECT count(*) FROM {rows} WHERE \"guardia state\" = 'already'")
    rows.mark(each, "put")
    counts = each.all(_PUT)
    by_tenant = {row[0]: (row[3], row[4]) for row in counts}
    missing, changed = (sum(row[n] for row in counts) for n in (1, 2))
    if missing + changed != written:
        raise DatabaseRefused(
            f"{abs(written - missing - changed):,} rows of {each.table.title} did not come out as in the backup.",
            "Nothing was put back. See whether a trigger fires always, or a column's type was changed.",
        )
    return TablePutBack(
        missing=missing, changed=changed, already=already, by_tenant=by_tenant,
        kept=each.one('SELECT count(*) FROM {rows} WHERE "guardia state" IS NULL'), examples=rows.kept(each, EXAMPLES),
    )  # fmt: skip


def _check(brought: dict[str, Rows], now: Schema) -> None:
    """What foreign keys and deferrable constraints would have checked."""
    for each in brought.values():
        rows.check_deferred(each)
    for key in now.foreign_keys:
        child, parent = brought.get(key.child), brought.get(key.parent)
        if child and parent:
            rows.check_taken(child, parent, key)
        if child:
            rows.check_parents(child, now.tables[key.parent], key)
        if parent:
            rows.check_children(parent, now.tables[key.child], key)
