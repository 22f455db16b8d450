"""The plain-SQL dumps that the site's own script left on the VPS: which there are, and restoring one.

Such a file is a program of SQL. Two walls keep it from doing anything but making tables: it is screened on its way,
and it runs as a role without rights, in a new database that it owns. Counting and analyzing its tables can run its
functions too, so that is the same role's work.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, SecretStr

from blocks.errors import BadBackup, CommandFailed, ConfigError, DatabaseRefused, GuardiaError, NoSpace
from blocks.host import Host
from blocks.site import Site
from tasks import cluster, plain_sql, postgres, ssh
from tasks.cluster import HALF, Locale
from tasks.command import Command, Statement, Step
from tasks.postgres import Server
from tasks.restore import LONGEST, RESERVE, free, judged, parse_free

if TYPE_CHECKING:
    from psycopg import Connection

SUFFIX = ".sql.gz"
GROWTH = 12  # times the size of a file that its tables and indexes may take; 8 is usual
RIGHTS = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"  # none, but to its own database
_PIECE = 1 << 20  # bytes read at a time

# --- commands -------------------------------------------------------------------------------------------------


def list_files(folder: str) -> Command:
    """Name, size in bytes and time of each dump; the names may hold anything but NUL."""
    words = ("-maxdepth", "1", "-type", "f", "-name", f"*{SUFFIX}", "-printf", r"%s %T@ %f\0")
    return Command(("find", folder, *words), timeout=60)


def read_file(path: str) -> Command:
    """The file as it is; what is in it is looked at here."""
    return Command(("cat", path), timeout=LONGEST)


def psql(server: Server, database: str, role: str) -> Command:
    """Run SQL from standard input as a role without rights, stopping at the first error."""
    wanted = f"user={role} port={server.port} dbname={database} options='-c client_min_messages=error'"
    words = ("psql", "--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1", "--output=/dev/null")
    return postgres.inside(
        server, "timeout", str(LONGEST), *words, f"--dbname={wanted}", "--file=-",
        stdin=True, changes=True, timeout=LONGEST,
    )  # fmt: skip


def steps(server: Server, site: Site, name: str, database: str) -> tuple[Step, ...]:
    """What a restore of a dump into a new database runs, for people to read; each line is screened on its way."""
    half = role = database + HALF
    return (
        read_file(f"{_folder(site)}/{name}"),
        Statement("postgres", f'CREATE ROLE "{role}" {RIGHTS}'),
        Statement("postgres", f'CREATE DATABASE "{half}" OWNER "{role}" TEMPLATE template0'),
        psql(server, half, role),
        Statement("postgres", f'ALTER DATABASE "{half}" RENAME TO "{database}"'),
        Statement("postgres", f'DROP ROLE "{role}"'),
    )


# --- files ----------------------------------------------------------------------------------------------------


class OwnFile(BaseModel):
    """One dump: its size in bytes, and when it was written."""

    name: str
    bytes: int
    modified: datetime


def files(site: Site) -> list[OwnFile]:
    """The dumps of the site's own script, newest first. Raises ConfigError without [own_scripts] or its folder."""
    folder = _folder(site)
    try:
        said = ssh.run(site.host, list_files(folder)).stdout
    except CommandFailed as error:
        if "No such file" in error.what:
            raise ConfigError(f"There is no {folder} on {site.host.address}.", "Correct [own_scripts].") from error
        raise
    return sorted(map(_parsed, said.split("\0")[:-1]), key=lambda file: file.modified, reverse=True)


def find(site: Site, name: str) -> OwnFile:
    """The dump of that name; ConfigError, naming the newest ones, if there is none."""
    there = files(site)
    for file in there:
        if file.name == name:
            return file
    known = ", ".join(file.name for file in there[:5]) or "none"
    raise ConfigError(f"{_folder(site)} on {site.host.address} has no {name}.", f"The newest there: {known}.")


def content(host: Host, path: str) -> Iterator[bytes]:
    """A file of a host, piece by piece, to its end."""
    with ssh.reading(host, read_file(path)) as reader:
        while chunk := reader.read(_PIECE):
            yield chunk


def _folder(site: Site) -> str:
    if site.own_scripts is None:
        raise ConfigError(f"{site.name} has no [own_scripts] in its site file.", "See docs/site-file.md.")
    return site.own_scripts.folder


def _parsed(entry: str) -> OwnFile:
    size, modified, name = entry.split(" ", 2)
    return OwnFile(name=name, bytes=int(size), modified=datetime.fromtimestamp(float(modified), UTC))


# --- the restore ----------------------------------------------------------------------------------------------


class Restored(NamedTuple):
    """How many seconds it took, reading the file included, and the rows of each table that the file fills."""

    seconds: float
    rows: dict[str, int]


def restore(
    server: Server,
    site: Site,
    file: OwnFile,
    database: str,
    *,
    like: Locale | None = None,
    report: Callable[[float], object] = lambda _: None,
) -> Restored:
    """Restore a dump into a new database of that name, with this locale (the server's own if None).

    A dump has no manifest: what is compared is that it ends as pg_dump ends, and the rows of each table. Raises
    BadBackup, NoSpace, DatabaseRefused if there is such a database, and what the host and the server raise; then
    nothing of it is left.
    """
    started, seen = time.monotonic(), plain_sql.Seen()
    half = role = database + HALF
    with cluster.maintenance(server) as connection:
        if cluster.exists(connection, database):
            raise DatabaseRefused(f"{server.name} has a database {database} already.", "Drop it, or use another name.")
        _refuse_small_disk(connection, server, file)
        _drop(connection, half, role)  # of a restore that was killed
        _create_role(connection, role)
        cluster.create(connection, half, like or cluster.locale(connection, "template0"), role)
    try:
        _own_public(server, half, role)
        chunks = _told(content(site.host, f"{_folder(site)}/{file.name}"), file.bytes, report)
        try:
            ssh.feed(server.host, psql(server, half, role), plain_sql.screen(plain_sql.gunzip(chunks), seen))
        except CommandFailed as error:
            raise judged(error) from error
        with _without_rights(server, half, role) as connection:
            _compare(connection, file, seen.rows)
            connection.execute("ANALYZE")
        with postgres.connect(server, half) as connection:
            _disown(connection, role, server.user)
        with cluster.maintenance(server) as connection:
            cluster.drop_role(connection, role)
            cluster.rename(connection, half, database)
    except BaseException:
        with suppress(GuardiaError), cluster.maintenance(server) as connection:
            _drop(connection, half, role)
        raise
    report(1.0)
    return Restored(time.monotonic() - started, dict(seen.rows))


def _refuse_small_disk(connection: Connection[Any], server: Server, file: OwnFile) -> None:
    """The live database shares the disk."""
    (data,) = connection.execute("SELECT current_setting('data_directory')").fetchone() or ("",)
    _, there = parse_free(ssh.run(server.host, free(server, data), quiet=True).stdout)
    needed = file.bytes * GROWTH + RESERVE
    if there < needed:
        raise NoSpace(
            f"{server.host.address} has {there / 1e6:,.0f} MB free for the database of {file.name}, which may need "
            f"{needed / 1e6:,.0f} MB.",
            "Free some: old databases that a restore kept, `docker system prune`, copies of backups.",
        )


def _create_role(connection: Connection[Any], role: str) -> None:
    from psycopg import sql

    connection.execute(sql.SQL(f"CREATE ROLE {{}} {RIGHTS}").format(sql.Identifier(role)))


def _own_public(server: Server, database: str, role: str) -> None:
    """Before 15 the owner of a database does not own its schema public."""
    from psycopg import sql

    with postgres.connect(server, database) as connection:
        if connection.info.server_version < 150000:
            connection.execute(sql.SQL("ALTER SCHEMA public OWNER TO {}").format(sql.Identifier(role)))


@contextmanager
def _without_rights(server: Server, database: str, role: str) -> Iterator[Connection[Any]]:
    """A session of the role itself: where the server's user only sets the role, a function sets it back.

    Past row security, which hides rows from a table's owner too where it is forced.
    """
    from psycopg import sql

    password = secrets.token_urlsafe()
    with cluster.maintenance(server) as connection:
        hashed = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
        statement = sql.SQL("ALTER ROLE {} BYPASSRLS PASSWORD {}")
        connection.execute(statement.format(sql.Identifier(role), sql.Literal(hashed)))
    with postgres.connect(replace(server, user=role, password=SecretStr(password)), database) as connection:
        yield connection


class _Table(NamedTuple):
    oid: int
    partitioned: bool
    schema: str
    name: str


_TABLE = """
    SELECT c.oid, relkind = 'p', nspname, relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE c.oid = to_regclass(%s) AND relkind IN ('r', 'p')"""
_PARTITIONS = """
    WITH RECURSIVE part AS (
        SELECT %s::oid AS oid UNION ALL SELECT inhrelid FROM pg_inherits JOIN part ON inhparent = part.oid)
    SELECT oid FROM part"""


def _compare(connection: Connection[Any], file: OwnFile, expected: dict[str, int]) -> None:
    """Every row that the file holds must be in its table, or in a partition of it: it may be filled by its root."""
    from psycopg import sql

    tables = {name: _table(connection, file, name) for name in expected}
    filled = {table.oid: expected[name] for name, table in tables.items()}
    for name, table in tables.items():
        rows, which = expected[name], "FROM ONLY"
        if table.partitioned:
            rows, which = sum(filled.get(row[0], 0) for row in connection.execute(_PARTITIONS, [table.oid])), "FROM"
        count = sql.SQL(f"SELECT count(*) {which} {{}}").format(sql.Identifier(table.schema, table.name))
        (found,) = connection.execute(count).fetchone() or (0,)
        if found != rows:
            raise BadBackup(f"{file.name} restored has {found:,} rows in {name}, {rows:,} expected.")


def _table(connection: Connection[Any], file: OwnFile, name: str) -> _Table:
    """What a COPY filled: pg_dump fills nothing but tables, and a view's rows are whatever it says."""
    row = connection.execute(_TABLE, [name]).fetchone()
    if row is None:
        raise BadBackup(f"{file.name} fills {name}, which is no table.", plain_sql.CURE)
    return _Table(*row)


def _disown(connection: Connection[Any], role: str, owner: str) -> None:
    from psycopg import sql

    names = (sql.Identifier(role), sql.Identifier(owner))
    connection.execute(sql.SQL("REASSIGN OWNED BY {} TO {}").format(*names))
    connection.execute(sql.SQL("DROP OWNED BY {}").format(names[0]))


def _drop(connection: Connection[Any], database: str, role: str) -> None:
    cluster.drop(connection, database)
    cluster.drop_role(connection, role)


def _told(chunks: Iterable[bytes], size: int, report: Callable[[float], object]) -> Iterator[bytes]:
    done = 0
    for chunk in chunks:
        yield chunk
        done += len(chunk)
        report(0.9 * done / max(size, 1))
