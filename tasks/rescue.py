"""Put back only what is missing or was changed, from a backup restored beside the live database.

Serves the guide's "Data Loss / Corruption". What a comparison wrote down in `guardia.damaged` is chosen from by table
and tenant; rows that the chosen ones refer to come along. All goes back in one transaction, or nothing does: a row
that was touched since, or whose key was taken, is left as it is and told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from blocks.errors import ConfigError, DatabaseRefused
from tasks import postgres, rows, tables
from tasks.command import Statement
from tasks.damage import Damage, grid
from tasks.differences import TableDamage
from tasks.rows import Rows
from tasks.tables import ForeignKey, Schema

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.sql import Composed

EXAMPLES = 20  # keys of rows that were not put back, told by table

_CHOOSE = """
CREATE TABLE guardia.chosen AS SELECT *, false AS needed FROM guardia.damaged
WHERE tab = ANY({tables}) AND kind = ANY({kinds}) AND ({everyone} OR coalesce(tenant, '') = ANY({tenants}))"""

_NEEDED = """
INSERT INTO guardia.chosen SELECT d.*, true FROM guardia.damaged d
WHERE d.tab = {parent_title} AND d.kind = 'missing'
    AND NOT EXISTS (SELECT FROM guardia.chosen x WHERE x.tab = d.tab AND x.row_hash = d.row_hash
                    AND x.key IS NOT DISTINCT FROM d.key)
    AND {parent_name} IN (SELECT {parent_key} FROM {child} c JOIN guardia.chosen x ON x.tab = {child_title}
                          AND {chosen} JOIN {parent} p ON {refers})"""

_COUNT = """
SELECT coalesce(tenant, ''), coalesce(sum(copies) FILTER (WHERE kind = 'missing'), 0)::bigint,
    coalesce(sum(copies) FILTER (WHERE kind = 'changed'), 0)::bigint,
    coalesce(sum(copies) FILTER (WHERE needed), 0)::bigint
FROM guardia.chosen WHERE tab = %s GROUP BY 1 ORDER BY length(coalesce(tenant, '')), 1"""

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


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TableRescue(_Part):
    """What would be put back into one table, in rows. `needed` ones only because others refer to them."""

    table: str
    key: tuple[str, ...]
    compared: tuple[str, ...]
    missing: int
    changed: int
    needed: int
    by_tenant: dict[str, tuple[int, int]]  # tenant's key, "" for none: missing, changed


class Rescue(_Part):
    """What would be put back, parents first; `at` is the moment of the live data that was assessed."""

    live: str
    beside: str
    at: datetime
    tables: tuple[TableRescue, ...]
    tenants: dict[str, str]
    chosen: tuple[str, ...]  # tables that were asked for
    of: tuple[str, ...]  # tenants that were asked for; none: all
    include_changed: bool
    left_out: tuple[str, ...] = ()  # what cannot be put back this way, and why
    done: bool = False  # this is what came back

    @property
    def rows(self) -> int:
        """How many rows would be put back."""
        return sum(table.missing + table.changed for table in self.tables)

    def came_back(self, done: PutBack) -> Rescue:
        """The same with only those rows that are there now."""
        there = []
        for t in self.tables:
            by_tenant = done.tables[t.table].by_tenant if t.table in done.tables else {}
            missing, changed = (sum(counts[n] for counts in by_tenant.values()) for n in (0, 1))
            there.append(t.model_copy(update={"by_tenant": by_tenant, "missing": missing, "changed": changed}))
        return self.model_copy(update={"tables": tuple(there), "done": True})

    @property
    def summary(self) -> str:
        """One line for the timeline."""
        if not self.rows:
            return "nothing came back" if self.done else "nothing to put back"
        words = "is back: " if self.done else "to put back: "
        return words + ", ".join(f"{t.missing + t.changed:,} of {t.table}" for t in self.tables)

    @property
    def text(self) -> str:
        """A table for people: each table, and in it each tenant."""
        lines: list[tuple[str, ...]] = [("table", "missing", "changed", "because others need them")]
        for t in self.tables:
            lines.append((t.table, f"{t.missing:,}", f"{t.changed:,}", f"{t.needed:,}" if t.needed else ""))
            for tenant, (missing, changed) in t.by_tenant.items():
                lines.append((f"  {self._called(tenant)}", f"{missing:,}", f"{changed:,}", ""))
        return "\n".join([grid(lines) if self.rows else self.summary, *self.left_out])

    @property
    def statements(self) -> tuple[Statement, ...]:
        """What would run, for people to read."""
        sql = ["BEGIN", "SET LOCAL session_replication_role = replica"]
        for t in self.tables:
            lost = ", ".join(self._called(tenant) for tenant, counts in t.by_tenant.items() if counts[0])
            spoilt = ", ".join(self._called(tenant) for tenant, counts in t.by_tenant.items() if counts[1])
            # For people only: what runs is built of quoted identifiers, in tasks/rows.py.
            if t.changed:
                which = f"{t.changed:,} changed rows of {self.beside} ({spoilt}) WHERE the row is still as assessed"
                sql.append(" ".join(("UPDATE", t.table, "SET … FROM", which)))
            if t.missing:
                which = f"{t.missing:,} missing rows of {self.beside} ({lost}) ON CONFLICT DO NOTHING"
                sql.append(" ".join(("INSERT INTO", t.table, "SELECT", which)))
        return tuple(Statement(self.live, words) for words in [*sql, "COMMIT"])

    def _called(self, tenant: str) -> str:
        return f"{self.tenants[tenant]} ({tenant})" if tenant in self.tenants else "of no tenant"


class TablePutBack(_Part):
    """What was put back into one table, in rows; `already` there were the others, but for those `kept` as they are.

    `by_tenant` counts what is there now, put back by this or by an earlier try that was cut off.
    """

    missing: int = 0
    changed: int = 0
    already: int = 0
    by_tenant: dict[str, tuple[int, int]] = {}  # tenant's key, "" for none: missing, changed
    kept: int = 0  # not put back: touched since the assessment, or key or unique value taken by another row
    examples: tuple[str, ...] = ()  # keys of some of these


class PutBack(_Part):
    """What a rescue did; every row counted as put back was compared with the backup before the commit."""

    tables: dict[str, TablePutBack]
    sequences: tuple[str, ...] = ()  # raised

    @property
    def rows(self) -> int:
        """How many rows were put back."""
        return sum(table.missing + table.changed for table in self.tables.values())

    @property
    def summary(self) -> str:
        """One line for the timeline."""
        put = [f"{t.missing + t.changed:,} of {title}" for title, t in self.tables.items() if t.missing + t.changed]
        kept = [
            f"{t.kept:,} of {title} not, as they were touched or their keys taken since: {', '.join(t.examples)}"
            for title, t in self.tables.items()
            if t.kept
        ]
        words = f"put back {', '.join(put)}" if put else "put back nothing: all that was chosen is there"
        if not put and kept:
            words = "put back nothing"
        return "; ".join([words, *kept])


def plan(
    beside: Connection[Any],
    damage: Damage,
    titles: Iterable[str] = (),
    tenants: Iterable[str] = (),
    *,
    include_changed: bool = False,
) -> Rescue:
    """Choose rows to put back: of some tables and tenants, or of all if none is named. Only `beside` is written to.

    A table's schema may be left out where no other damaged table has the same name.

    Raises ConfigError for a table or tenant that is not damaged, DatabaseRefused for a table that live does not have
    or if the comparison is no longer there.
    """
    found = {t.table: t for t in damage.tables}
    chosen, of = tuple(_title(title, found) for title in titles), tuple(tenants)
    _known(of, damage.tenants, "tenant")
    if dropped := [title for title in chosen if found[title].dropped]:
        raise DatabaseRefused(
            f"{', '.join(dropped)} cannot be put back by rows: {damage.live} has no such table.",
            "Restore the whole backup, or create the table first and assess the damage again.",
        )
    there = {title: t for title, t in found.items() if not t.dropped and (t.missing or t.changed)}
    with postgres.errors(damage.beside):
        schema = tables.schema(beside)
        _choose(beside, damage, chosen or tuple(there), of, include_changed)
        _add_needed(beside, schema, there)
        counted = {title: beside.execute(_COUNT, (title,)).fetchall() for title in _parents_first(there, schema)}
    return Rescue(
        live=damage.live, beside=damage.beside, at=damage.at, tenants=damage.tenants, chosen=chosen, of=of,
        include_changed=include_changed,
        tables=tuple(_table(there[title], counts) for title, counts in counted.items() if counts),
        left_out=tuple(f"{t.table}: dropped in live; only the whole backup brings it back" for t in damage.tables
                       if t.dropped and not chosen),
    )  # fmt: skip


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
        _same_assessment(beside, rescue.at)
        _same_choice(beside, rescue)
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


def _title(asked: str, found: Iterable[str]) -> str:
    """The title of the damaged table that is meant."""
    titles = [title for title in found if asked in {title, title.rpartition(".")[2]}]
    if asked not in titles and len(titles) > 1:
        raise ConfigError(f"{asked} may be {' or '.join(titles)}.", "Name the schema, too.")
    _known([] if titles else [asked], found, "table")
    return asked if asked in titles else titles[0]


def _known(asked: Iterable[str], known: Iterable[str], what: str) -> None:
    if unknown := sorted(set(asked) - set(known)):
        raise ConfigError(
            f"No {what} {', '.join(unknown)} has damage.", f"Choose from: {', '.join(sorted(known)) or 'none'}."
        )


def _same_assessment(beside: Connection[Any], at: datetime) -> None:
    """The rows written down must be those that the person saw."""
    found = beside.execute("SELECT obj_description(to_regclass('guardia.damaged'), 'pg_class')").fetchone()
    if not found or found[0] != at.isoformat():
        raise DatabaseRefused("The assessment of the damage is no longer there.", "Assess the damage again.")


def _same_choice(beside: Connection[Any], rescue: Rescue) -> None:
    """And so must be those chosen of them: a later choice replaces an earlier one."""
    for t in rescue.tables:
        counts = beside.execute(_COUNT, (t.table,)).fetchall()
        if {tenant: (missing, changed) for tenant, missing, changed, _ in counts} != t.by_tenant:
            raise DatabaseRefused(
                "What is written down to be put back is no longer what was approved.", "Start the playbook again."
            )


def _choose(
    beside: Connection[Any], damage: Damage, titles: tuple[str, ...], of: tuple[str, ...], changed: bool
) -> None:
    from psycopg.sql import SQL, Literal

    _same_assessment(beside, damage.at)
    kinds = ["missing", "changed"] if changed else ["missing"]
    beside.execute("DROP TABLE IF EXISTS guardia.chosen")
    beside.execute(
        SQL(_CHOOSE).format(
            tables=Literal(list(titles)), kinds=Literal(kinds), everyone=Literal(not of), tenants=Literal(list(of))
        )
    )
    beside.execute("ANALYZE guardia.chosen")


def _add_needed(beside: Connection[Any], schema: Schema, there: dict[str, TableDamage]) -> None:
    """Choose missing rows that chosen ones refer to, and those that these refer to, and so on."""
    links = [k for k in schema.foreign_keys if k.child in there and k.parent in there and there[k.parent].missing]
    while sum(beside.execute(_needed(schema, there, key)).rowcount for key in links):
        beside.execute("ANALYZE guardia.chosen")


def _needed(schema: Schema, there: dict[str, TableDamage], key: ForeignKey) -> Composed:
    from psycopg.sql import SQL, Literal

    child, parent = there[key.child], there[key.parent]

    def name(damage: TableDamage, alias: str, row: str) -> tuple[Composed, Composed]:
        """The column of `row` that tells a written-down row of the table apart, and its expression."""
        if damage.key:
            return tables.column(row, "key"), tables.as_text(alias, damage.key)
        return tables.column(row, "row_hash"), tables.row_hash(alias, damage.compared)

    parent_name, parent_key = name(parent, "p", "d")
    return SQL(_NEEDED).format(
        parent_title=Literal(key.parent), child_title=Literal(key.child),
        parent=schema.tables[key.parent].source, child=schema.tables[key.child].source,
        parent_name=parent_name, parent_key=parent_key, refers=key.condition("p", "c"),
        chosen=SQL("{} = {}").format(*name(child, "c", "x")),
    )  # fmt: skip


def _parents_first(titles: Iterable[str], schema: Schema) -> list[str]:
    """In the order of their foreign keys; in a circle of them any order will do."""
    parents = {title: sorted({k.parent for k in schema.foreign_keys if k.child == title}) for title in schema.tables}
    ordered: dict[str, None] = {}
    seen: set[str] = set()

    def visit(title: str) -> None:
        if title not in seen:
            seen.add(title)
            for parent in parents[title]:
                visit(parent)
            ordered[title] = None

    for title in sorted(titles):
        visit(title)
    return [title for title in ordered if title in set(titles)]


def _table(damage: TableDamage, counts: list[tuple[str, int, int, int]]) -> TableRescue:
    return TableRescue(
        table=damage.table, key=damage.key, compared=damage.compared,
        missing=sum(c[1] for c in counts), changed=sum(c[2] for c in counts), needed=sum(c[3] for c in counts),
        by_tenant={tenant: (missing, changed) for tenant, missing, changed, _ in counts},
    )  # fmt: skip


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
