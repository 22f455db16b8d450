"""The tables of a database as its catalogue has them, and SQL that tells one row from another.

All that is built here holds on both sides of a comparison whatever was added, dropped or reordered in between, and
whatever `search_path` is: names are qualified, operators too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from blocks.database import Tenants

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.sql import Composable, Composed

# Partitioned tables count as one; what an extension brings is not the application's, nor is what Guardia writes down in
# the schema `guardia` of a restored database.
_TABLES = """
SELECT format('%I.%I', n.nspname, c.relname), n.nspname, c.relname, c.relkind = 'p',
    (SELECT json_agg(json_build_array(a.attname, format_type(a.atttypid, a.atttypmod), a.attgenerated <> '',
                                      a.attidentity = 'a') ORDER BY a.attnum)
     FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
    (SELECT json_agg(json_build_array(a.attname, format('OPERATOR(%I.%s)', s.nspname, o.oprname)) ORDER BY k.n)
     FROM pg_index i
     CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, n)
     JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
     JOIN pg_opclass f ON f.oid = i.indclass[k.n - 1]
     JOIN pg_amop m ON m.amopfamily = f.opcfamily AND m.amoplefttype = f.opcintype
          AND m.amoprighttype = f.opcintype AND m.amopstrategy = 3 AND m.amoppurpose = 's'
     JOIN pg_operator o ON o.oid = m.amopopr
     JOIN pg_namespace s ON s.oid = o.oprnamespace
     WHERE i.indrelid = c.oid AND i.indisprimary AND k.n <= i.indnkeyatts)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
    AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'guardia')
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                    AND d.deptype = 'e')
ORDER BY 1"""

# What partitions inherit is left out; what a single partition declares counts as its root's.
_FOREIGN_KEYS = """
SELECT r.conname,
    (SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.oid = coalesce(pg_partition_root(r.conrelid), r.conrelid)),
    (SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.oid = coalesce(pg_partition_root(r.confrelid), r.confrelid)),
    (SELECT json_agg(json_build_array(a.attname, b.attname, format('OPERATOR(%I.%s)', s.nspname, o.oprname))
                     ORDER BY k.n)
     FROM unnest(r.conkey, r.confkey, r.conpfeqop) WITH ORDINALITY k(child, parent, operator, n)
     JOIN pg_attribute a ON a.attrelid = r.conrelid AND a.attnum = k.child
     JOIN pg_attribute b ON b.attrelid = r.confrelid AND b.attnum = k.parent
     JOIN pg_operator o ON o.oid = k.operator
     JOIN pg_namespace s ON s.oid = o.oprnamespace)
FROM pg_constraint r WHERE r.contype = 'f' AND r.conparentid = 0 ORDER BY 2, 1"""


@dataclass(frozen=True)
class Column:
    """A column. `generated`: its value follows from the others; `always`: an identity that no statement may give."""

    name: str
    type: str
    generated: bool
    always: bool


@dataclass(frozen=True)
class Table:
    """A table, a partitioned one as a whole. `title` is its qualified name as PostgreSQL quotes it.

    `key` maps the columns of the primary key to the operator of their equality; empty if there is none.
    """

    title: str
    schema: str
    name: str
    partitioned: bool
    columns: dict[str, Column] = field(hash=False)
    key: dict[str, str] = field(hash=False)

    @property
    def target(self) -> Composable:
        """What stands after INSERT INTO."""
        from psycopg.sql import Identifier

        return Identifier(self.schema, self.name)

    @property
    def source(self) -> Composed:
        """What stands after FROM: the table without those that inherit from it, which are tables of their own."""
        from psycopg.sql import SQL, Identifier

        return SQL("{}{}").format(SQL("" if self.partitioned else "ONLY "), Identifier(self.schema, self.name))


@dataclass(frozen=True)
class ForeignKey:
    """`columns` are (column of the child, column of the parent, operator with the parent's on its left)."""

    name: str
    child: str
    parent: str
    columns: tuple[tuple[str, str, str], ...]

    def condition(self, parent: str, child: str) -> Composed:
        """That the row called `parent` is the one that the row called `child` refers to."""
        from psycopg.sql import SQL

        return SQL(" AND ").join(
            SQL("{} {} {}").format(column(parent, theirs), SQL(operator), column(child, ours))
            for ours, theirs, operator in self.columns
        )


@dataclass(frozen=True)
class Schema:
    """The application's tables by title, and the foreign keys between them."""

    tables: dict[str, Table]
    foreign_keys: tuple[ForeignKey, ...]


def schema(connection: Connection[Any]) -> Schema:
    """Read the catalogue."""
    tables = {
        title: Table(title, space, name, partitioned, {c[0]: Column(*c) for c in columns or ()}, dict(key or ()))
        for title, space, name, partitioned, columns, key in connection.execute(_TABLES)
    }
    keys = [
        ForeignKey(name, child, parent, tuple(tuple(c) for c in columns))
        for name, child, parent, columns in connection.execute(_FOREIGN_KEYS)
    ]
    return Schema(tables, tuple(key for key in keys if key.child in tables and key.parent in tables))


def column(alias: str, name: str) -> Composed:
    """`alias.name`, quoted."""
    from psycopg.sql import SQL, Identifier

    return SQL("{}.{}").format(Identifier(alias), Identifier(name))


def row_hash(alias: str, columns: Iterable[str]) -> Composed:
    """The 64-bit hash of a row's values in the order given; what manifests sum up when they are all columns."""
    from psycopg.sql import SQL

    return SQL("hashtextextended({}, 0)").format(as_text(alias, columns))


def as_text(alias: str, columns: Iterable[str]) -> Composed:
    """Values of a row as one text: equal texts, equal values, also for types that have no equality."""
    from psycopg.sql import SQL

    return SQL('ROW({})::text COLLATE "C"').format(SQL(", ").join(column(alias, name) for name in columns))


def same_key(table: Table, one: str, other: str) -> Composed:
    """That two rows have the same primary key."""
    from psycopg.sql import SQL

    return SQL(" AND ").join(
        SQL("{} {} {}").format(column(one, name), SQL(operator), column(other, name))
        for name, operator in table.key.items()
    )


def owned(schema: Schema, table: Table, tenants: Tenants | None) -> tuple[Composable, Composed]:
    """What stands after FROM, the table being `t`, and the text of the tenant that a row belongs to.

    A row without a tenant's number belongs to whom the row belongs that it refers to: a price to its product's shop.
    """
    from psycopg.sql import SQL, Identifier

    path = _path_to_tenant(schema, table, tenants)
    if tenants is None or path is None:
        return SQL("{} t").format(table.source), SQL("NULL::text").format()
    source, alias = SQL("{} t").format(table.source), "t"
    for n, key in enumerate(path):
        parent = f"p{n}"
        source += SQL(" LEFT JOIN {} {} ON {}").format(
            schema.tables[key.parent].source, Identifier(parent), key.condition(parent, alias)
        )
        table, alias = schema.tables[key.parent], parent
    return source, SQL("{}::text").format(column(alias, _tenant_column(table, tenants)))


def tenant_table(schema: Schema, tenants: Tenants | None) -> Table | None:
    """The table of tenants; the one in `public` if several schemas have one."""
    if tenants is None:
        return None
    named = [table for table in schema.tables.values() if table.name == tenants.table]
    return min(named, key=lambda table: (table.schema != "public", table.schema), default=None)


def _tenant_column(table: Table, tenants: Tenants) -> str:
    if table.name == tenants.table and tenants.key in table.columns:
        return tenants.key
    return tenants.column if tenants.column in table.columns else ""


def _path_to_tenant(schema: Schema, table: Table, tenants: Tenants | None) -> list[ForeignKey] | None:
    """The fewest foreign keys that lead to a table with the tenant's number: none if it has one itself."""
    if tenants is None:
        return None
    paths: list[tuple[Table, list[ForeignKey]]] = [(table, [])]
    seen = {table.title}
    for here, path in paths:  # grows meanwhile: breadth first
        if _tenant_column(here, tenants):
            return path
        for key in schema.foreign_keys:
            if key.child == here.title and key.parent not in seen:
                seen.add(key.parent)
                paths.append((schema.tables[key.parent], [*path, key]))
    return None
