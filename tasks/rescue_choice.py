"""Choose what to put back of the damage that a comparison wrote down, by table and tenant.

Rows that the chosen ones refer to come along.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from blocks.errors import ConfigError, DatabaseRefused
from tasks import postgres, tables
from tasks.damage import Damage
from tasks.differences import TableDamage
from tasks.rescue import Rescue, TableRescue
from tasks.tables import ForeignKey, Schema

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.sql import Composed

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

    Raises ConfigError for a table or tenant that is not damaged, DatabaseRefused for a table that live does not have,
    while live has one that it cannot read, or if the comparison is no longer there.
    """
    if damage.unreadable:
        raise DatabaseRefused(
            f"No rows can be put back: {'; '.join(damage.unreadable.values())}, so that no safety backup can be made.",
            "Restore the whole backup: only that brings such a table back.",
        )
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


def same_assessment(beside: Connection[Any], at: datetime) -> None:
    """The rows written down must be those that the person saw."""
    found = beside.execute("SELECT obj_description(to_regclass('guardia.damaged'), 'pg_class')").fetchone()
    if not found or found[0] != at.isoformat():
        raise DatabaseRefused("The assessment of the damage is no longer there.", "Assess the damage again.")


def same_choice(beside: Connection[Any], rescue: Rescue) -> None:
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

    same_assessment(beside, damage.at)
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
