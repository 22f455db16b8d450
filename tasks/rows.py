"""Rows of a backup, brought beside the live table that they belong to, and put into it within one transaction.

Triggers and foreign keys do not fire meanwhile (`session_replication_role = replica`), so that what they once wrote is
not written twice; what they would have checked is checked here. No lock keeps others from reading or writing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, LiteralString

from blocks.errors import DatabaseRefused
from tasks import tables
from tasks.tables import ForeignKey, Table

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.sql import Composable, Composed

# Bookkeeping columns beside the row's own; nobody's own have such names. `copies` the backup has, `due` of them are to
# be put back. The state: 'already' there before, 'put' there by us, or none yet.
_BOOKS = """NULL::text AS "guardia kind", NULL::text AS "guardia tenant", NULL::bigint AS "guardia hash",
    NULL::bigint AS "guardia live hash",
    NULL::bigint AS "guardia copies", NULL::bigint AS "guardia due", NULL::text AS "guardia state" """

# Sequences that number a column, owned by it or named in its default.
_SEQUENCES = """
SELECT DISTINCT a.attname, n.nspname, s.relname
FROM pg_class c
JOIN pg_namespace cn ON cn.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)
JOIN (SELECT refobjid AS tab, refobjsubid AS col, objid AS seq FROM pg_depend
      WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass AND deptype IN ('a', 'i')
      UNION ALL
      SELECT ad.adrelid, ad.adnum, d.refobjid FROM pg_attrdef ad
      JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = ad.oid
           AND d.refclassid = 'pg_class'::regclass) o ON o.tab = c.oid AND o.col = a.attnum
JOIN pg_class s ON s.oid = o.seq AND s.relkind = 'S'
JOIN pg_namespace n ON n.oid = s.relnamespace
JOIN pg_sequence q ON q.seqrelid = s.oid AND q.seqincrement > 0
WHERE cn.nspname = %s AND c.relname = %s"""

# Uniqueness that PostgreSQL checks by a trigger of its own, which does not fire here.
_DEFERRED = """
SELECT r.conname, r.contype = 'x',
    (SELECT json_agg(json_build_array(a.attname, format('OPERATOR(%%I.%%s)', s.nspname, o.oprname)) ORDER BY k.n)
     FROM pg_index i
     CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, n)
     JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
     JOIN pg_opclass f ON f.oid = i.indclass[k.n - 1]
     JOIN pg_amop m ON m.amopfamily = f.opcfamily AND m.amoplefttype = f.opcintype
          AND m.amoprighttype = f.opcintype AND m.amopstrategy = 3 AND m.amoppurpose = 's'
     JOIN pg_operator o ON o.oid = m.amopopr
     JOIN pg_namespace s ON s.oid = o.oprnamespace
     WHERE i.indexrelid = r.conindid AND k.n <= i.indnkeyatts)
FROM pg_constraint r JOIN pg_class c ON c.oid = r.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE r.condeferrable AND r.contype IN ('p', 'u', 'x') AND n.nspname = %s AND c.relname = %s"""


@dataclass(frozen=True)
class Rows:
    """The chosen rows of one table in a temporary table `name` of the live session.

    `key` and `compared` are the columns by which the damage was assessed.
    """

    live: Connection[Any]
    table: Table
    name: str
    key: tuple[str, ...]
    compared: tuple[str, ...]

    def run(self, query: LiteralString, **parts: Composable) -> int:
        """Run a statement on the brought rows, `s`, and the table, `{table} t`; return how many rows it touched."""
        return self.live.execute(self._filled(query, parts)).rowcount

    def one(self, query: LiteralString, **parts: Composable) -> int:
        """The number that a query answers."""
        row = self.live.execute(self._filled(query, parts)).fetchone()
        return int(row[0]) if row else 0

    def all(self, query: LiteralString) -> list[tuple[Any, ...]]:
        """The rows that a query answers."""
        return self.live.execute(self._filled(query, {})).fetchall()

    def _filled(self, query: LiteralString, parts: dict[str, Composable]) -> Composed:
        from psycopg.sql import SQL

        same = self._same_key() if self.key else SQL("false")
        return SQL(query).format(
            rows=temporary(self.name), table=self.table.source, target=self.table.target, same=same,
            hash=tables.row_hash("t", self.compared), **parts,
        )  # fmt: skip

    def _same_key(self) -> Composed:
        return tables.same_key(self.table, "t", "s")


def temporary(name: str) -> Composable:
    """The temporary table of that name."""
    from psycopg.sql import Identifier

    return Identifier("pg_temp", name)


def bring(beside: Connection[Any], source: Table, rows: Rows) -> None:
    """Copy the rows that `guardia.chosen` names from the backup beside their live table."""
    from psycopg.sql import SQL, Literal

    names = SQL(", ").join(tables.column("t", name) for name in rows.compared)
    rows.run(
        "CREATE TEMP TABLE {rows} ON COMMIT DROP AS SELECT {names}, {books} FROM {table} t WITH NO DATA",
        names=names, books=SQL(_BOOKS),
    )  # fmt: skip
    # Rows without a key are told apart by their content alone: one of each, and how many copies there were.
    hashed = tables.row_hash("t", rows.compared)
    match = (
        SQL("x.key = {}").format(tables.as_text("t", rows.key)) if rows.key else SQL("x.row_hash = {}").format(hashed)
    )
    distinct, copies = (SQL(""), SQL("1")) if rows.key else (
        SQL("DISTINCT ON (x.row_hash)"), SQL("count(*) OVER (PARTITION BY x.row_hash)")
    )  # fmt: skip
    query = SQL(
        "COPY (SELECT {} {}, x.kind, x.tenant, x.row_hash, x.live_hash, {}, {}, NULL FROM {} t "
        "JOIN guardia.chosen x ON x.tab = {} AND {}) TO STDOUT"
    ).format(distinct, names, copies, copies, source.source, Literal(source.title), match)
    into = SQL("COPY {} FROM STDIN").format(temporary(rows.name))
    with beside.cursor().copy(query) as found, rows.live.cursor().copy(into) as target:
        for data in found:
            target.write(data)
    rows.run("ANALYZE {rows}")


def mark(rows: Rows, state: str) -> int:
    """Note which of the rows, not noted before, live has exactly as the backup has them; return how many."""
    from psycopg.sql import Literal

    if rows.key:
        return rows.run(
            'UPDATE {rows} s SET "guardia state" = {state} FROM {table} t '
            'WHERE {same} AND "guardia state" IS NULL AND {hash} = "guardia hash"',
            state=Literal(state),
        )
    return rows.run(
        'UPDATE {rows} s SET "guardia state" = {state} FROM '
        "(SELECT {hash} AS hash, count(*) AS n FROM {table} t GROUP BY 1) l "
        'WHERE l.hash = "guardia hash" AND l.n >= "guardia copies" AND "guardia state" IS NULL',
        state=Literal(state),
    )


def update(rows: Rows) -> int:
    """Give changed rows their content back, if live still has exactly the row that was assessed."""
    from psycopg.sql import SQL, Identifier

    columns = rows.table.columns
    names = [n for n in rows.compared if not columns[n].generated and not columns[n].always and n not in rows.key]
    if not rows.key or not names:
        return 0
    given = SQL(", ").join(SQL("{} = {}").format(Identifier(n), tables.column("s", n)) for n in names)
    return rows.run(
        "UPDATE {table} t SET {given} FROM {rows} s WHERE {same} AND \"guardia kind\" = 'changed' "
        'AND "guardia state" IS NULL AND {hash} = "guardia live hash"',
        given=given,
    )


def insert(rows: Rows) -> int:
    """Insert missing rows with their old keys and numbers; a key or unique value that is taken keeps its row out."""
    from psycopg.sql import SQL, Identifier

    # With a deferrable constraint PostgreSQL takes no ON CONFLICT: a unique value that is taken then undoes it all.
    taken = SQL("" if _deferred(rows) else "ON CONFLICT DO NOTHING")
    names = [name for name in rows.compared if not rows.table.columns[name].generated]
    into = SQL(", ").join(map(Identifier, names))
    values = SQL(", ").join(tables.column("s", name) for name in names)
    if rows.key:
        return rows.run(
            "INSERT INTO {target} ({into}) OVERRIDING SYSTEM VALUE SELECT {values} FROM {rows} s "
            "WHERE \"guardia kind\" = 'missing' AND NOT EXISTS (SELECT FROM {table} t WHERE {same}) {taken}",
            into=into, values=values, taken=taken,
        )  # fmt: skip
    rows.run(
        'UPDATE {rows} s SET "guardia due" = "guardia copies" - l.n FROM '
        '(SELECT {hash} AS hash, count(*) AS n FROM {table} t GROUP BY 1) l WHERE l.hash = "guardia hash"'
    )
    return rows.run(
        "INSERT INTO {target} ({into}) OVERRIDING SYSTEM VALUE SELECT {values} FROM {rows} s "
        'CROSS JOIN generate_series(1, "guardia due") {taken}',
        into=into, values=values, taken=taken,
    )  # fmt: skip


def check_parents(rows: Rows, parent: Table, key: ForeignKey) -> None:
    """Lock the rows that those put back refer to, as PostgreSQL does, and refuse if one is not there."""
    from psycopg.sql import SQL

    if not {ours for ours, _, _ in key.columns} <= set(rows.compared):  # a column newer than the backup
        return
    given = SQL(" AND ").join(SQL("{} IS NOT NULL").format(tables.column("s", ours)) for ours, _, _ in key.columns)
    parts = {"parent": parent.source, "refers": key.condition("p", "s"), "given": given}
    rows.one(
        "SELECT count(*) FROM (SELECT FROM {parent} p WHERE EXISTS (SELECT FROM {rows} s "
        "WHERE \"guardia state\" = 'put' AND {refers}) FOR KEY SHARE OF p) locked",
        **parts,
    )
    orphans = rows.one(
        "SELECT count(*) FROM {rows} s WHERE \"guardia state\" = 'put' AND {given} "
        "AND NOT EXISTS (SELECT FROM {parent} p WHERE {refers})",
        **parts,
    )
    if orphans:
        raise DatabaseRefused(
            f"{orphans:,} rows of {key.child} refer to rows of {key.parent} that neither live nor the backup has.",
            "Nothing was put back. Choose other tables or tenants, or restore the whole backup.",
        )


def check_children(rows: Rows, child: Table, key: ForeignKey) -> None:
    """Refuse if live rows referred to a value that a changed row no longer has, now that it is put back."""
    from psycopg.sql import SQL

    if all(theirs in rows.key for _, theirs, _ in key.columns) or not rows.one(
        "SELECT count(*) FROM {rows} WHERE \"guardia state\" = 'put' AND \"guardia kind\" = 'changed'"
    ):
        return
    given = SQL(" AND ").join(SQL("{} IS NOT NULL").format(tables.column("c", ours)) for ours, _, _ in key.columns)
    orphans = rows.one(
        "SELECT count(*) FROM {child} c WHERE {given} AND NOT EXISTS (SELECT FROM {table} t WHERE {refers})",
        child=child.source, given=given, refers=key.condition("t", "c"),
    )  # fmt: skip
    if orphans:
        raise DatabaseRefused(
            f"{orphans:,} rows of {key.child} refer to rows of {key.parent} as they are now, not as in the backup.",
            f"Nothing was put back. Choose {key.child} too, or leave the changed rows out.",
        )


def check_taken(rows: Rows, parents: Rows, key: ForeignKey) -> None:
    """Refuse if a row was put back while the one that it belongs to could not be: it would belong to another's."""
    if any(ours not in rows.compared or theirs not in parents.compared for ours, theirs, _ in key.columns):
        return
    astray = rows.one(
        "SELECT count(*) FROM {rows} s JOIN {parents} p ON {refers} "
        "WHERE s.\"guardia state\" = 'put' AND p.\"guardia kind\" = 'missing' AND p.\"guardia state\" IS NULL",
        parents=temporary(parents.name), refers=key.condition("p", "s"),
    )  # fmt: skip
    if astray:
        raise DatabaseRefused(
            f"{astray:,} rows of {key.child} belong to rows of {key.parent} whose keys are taken by others by now.",
            "Nothing was put back. Leave out these tables or tenants, or restore the whole backup.",
        )


def check_deferred(rows: Rows) -> None:
    """Refuse if the rows break a deferrable constraint, which nothing else would notice."""
    from psycopg.sql import SQL

    for name, exclusion, columns in _deferred(rows):
        same = SQL(" AND ").join(
            SQL("{} {} {}").format(tables.column("t", column), SQL(operator), tables.column("s", column))
            for column, operator in columns or ()
        )
        if exclusion or rows.one(
            "SELECT count(*) FROM {rows} s WHERE \"guardia state\" = 'put' "
            "AND (SELECT count(*) FROM {table} t WHERE {equal}) > 1",
            equal=same,
        ):
            why = "cannot be checked for a part of the rows" if exclusion else "would be broken"
            raise DatabaseRefused(
                f"The deferrable constraint {name} of {rows.table.title} {why}.",
                "Nothing was put back. Leave this table out, or restore the whole backup.",
            )


def kept(rows: Rows, limit: int) -> tuple[str, ...]:
    """The keys of rows that were not put back, at most `limit`."""
    from psycopg.sql import SQL, Literal

    if not rows.key:
        return ()
    name = tables.as_text("s", rows.key)
    query = SQL('SELECT {} FROM {} s WHERE "guardia state" IS NULL ORDER BY 1 LIMIT {}')
    return tuple(row[0] for row in rows.live.execute(query.format(name, temporary(rows.name), Literal(limit))))


def raise_sequences(rows: Rows) -> list[str]:
    """Let each sequence go on after the highest number that was put back; return those that had to be raised."""
    from psycopg.sql import SQL, Identifier, Literal

    raised = []
    for column, schema, name in rows.live.execute(_SEQUENCES, (rows.table.schema, rows.table.name)).fetchall():
        if column not in rows.compared:
            continue
        sequence = Identifier(schema, name)
        query = SQL(
            "SELECT setval({}::regclass, m) FROM (SELECT max({})::bigint AS m FROM {} "
            "WHERE \"guardia state\" = 'put') x, {} q WHERE m > q.last_value OR (m = q.last_value AND NOT q.is_called)"
        ).format(Literal(sequence.as_string(rows.live)), Identifier(column), temporary(rows.name), sequence)
        if rows.live.execute(query).fetchone():
            raised.append(f"{schema}.{name}")
    return raised


def _deferred(rows: Rows) -> list[tuple[str, bool, list[tuple[str, str]] | None]]:
    """Deferrable constraints of the table: name, whether it is an exclusion, columns with their equality."""
    return rows.live.execute(_DEFERRED, (rows.table.schema, rows.table.name)).fetchall()
