"""The databases and roles of a PostgreSQL server: which there are, making one, dropping one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, LiteralString, NamedTuple

from blocks.errors import ConfigError, DatabaseRefused
from tasks import postgres
from tasks.postgres import Server

if TYPE_CHECKING:
    from psycopg import Connection

LONGEST_NAME = 63  # bytes of an identifier; PostgreSQL cuts a longer one, and two could become one
HALF = "_part"  # ends the name of a database that is not whole


class Locale(NamedTuple):
    """How a database stores and orders text; it cannot be changed later."""

    encoding: str
    collate: str
    ctype: str
    provider: str = "c"  # of collations: the C library, or i for ICU, b for PostgreSQL's own
    locale: str = ""  # of another provider than the C library
    rules: str = ""


# The columns differ from version to version: before 15 there is the C library alone, from 17 on one name for all.
_LOCALE = """
SELECT pg_encoding_to_char(encoding), datcollate, datctype, coalesce(j ->> 'datlocprovider', 'c'),
    coalesce(j ->> 'datlocale', j ->> 'daticulocale', ''), coalesce(j ->> 'daticurules', '')
FROM pg_database d, to_jsonb(d) AS j WHERE datname = %s"""
_PROVIDERS: dict[str, LiteralString] = {
    "i": " LOCALE_PROVIDER icu ICU_LOCALE {}",
    "b": " LOCALE_PROVIDER builtin BUILTIN_LOCALE {}",
}


@contextmanager
def maintenance(server: Server) -> Iterator[Connection[Any]]:
    """A connection to none of the site's databases, so that each of them can be renamed or dropped.

    Raises DatabaseUnreachable, DatabaseRefused.
    """
    with ExitStack() as stack:
        try:
            connection = stack.enter_context(postgres.connect(server, "postgres"))
        except DatabaseRefused:  # somebody dropped it
            connection = stack.enter_context(postgres.connect(server, "template1"))
        yield connection


def exists(connection: Connection[Any], name: str) -> bool:
    """Whether there is a database of this name."""
    return connection.execute("SELECT FROM pg_database WHERE datname = %s", [name]).fetchone() is not None


def named(connection: Connection[Any], prefix: str) -> list[str]:
    """The databases whose names begin so, in the order in which they were made."""
    query = "SELECT datname FROM pg_database WHERE starts_with(datname, %s) ORDER BY oid"
    return [row[0] for row in connection.execute(query, [prefix])]


def locale(connection: Connection[Any], name: str) -> Locale:
    """That of an existing database; ConfigError if there is none."""
    row = connection.execute(_LOCALE, [name]).fetchone()
    if row is None:
        raise ConfigError(f"There is no database {name}.", "Correct [database] in the site file.")
    return Locale(*row)


def create(connection: Connection[Any], name: str, like: Locale, owner: str) -> None:
    """An empty database. Raises DatabaseRefused if there is one, or if the server does not know the locale."""
    from psycopg import sql

    check_length(name)
    statement = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}").format(
        sql.Identifier(name), sql.Identifier(owner), *map(sql.Literal, like[:3])
    )
    if like.provider in _PROVIDERS:
        provider = sql.SQL(_PROVIDERS[like.provider]).format(sql.Literal(like.locale))
        rules = sql.SQL(" ICU_RULES {}").format(sql.Literal(like.rules)) if like.rules else sql.SQL("")
        statement += provider + rules
    connection.execute(statement)


def rename(connection: Connection[Any], name: str, to: str) -> None:
    """Give a database that nobody is connected to another name."""
    from psycopg import sql

    check_length(to)
    connection.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(name), sql.Identifier(to)))


def drop(connection: Connection[Any], name: str) -> None:
    """Remove a database with whoever is connected to it; one that is not there is no error."""
    from psycopg import sql

    connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def create_roles(connection: Connection[Any], wanted: tuple[str, ...]) -> list[str]:
    """Create the roles that the server lacks, without login and rights; returns their names.

    A restored object needs its owner; who may log in is for a person to decide.
    """
    from psycopg import sql

    missing = missing_roles(connection, wanted)
    for role in missing:
        connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(role)))
    return missing


def missing_roles(connection: Connection[Any], wanted: tuple[str, ...]) -> list[str]:
    """Those of the roles that the server lacks."""
    there = {row[0] for row in connection.execute("SELECT rolname FROM pg_roles")}
    return [role for role in wanted if role not in there]


def drop_role(connection: Connection[Any], role: str) -> None:
    """Remove a role that owns nothing; one that is not there is no error."""
    from psycopg import sql

    connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))


def check_length(name: str) -> None:
    """Raise ConfigError for a name that PostgreSQL would cut."""
    if len(name.encode()) > LONGEST_NAME:
        raise ConfigError(f"{name} is longer than the {LONGEST_NAME} bytes of a database's name.", "Use a shorter one.")
