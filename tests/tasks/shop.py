"""The practice shop in a unit test's PostgreSQL: `live`, and a copy of it as a restored backup would be."""

import os
from pathlib import Path
from typing import Any

from psycopg import Connection
from psycopg.sql import SQL, Identifier

from tests.postgres_server import PostgresServer

Pair = tuple[Connection[Any], Connection[Any]]
PAGE = 8192  # bytes
SITE = Path(__file__).parents[1] / "lab/site"


def make(postgres: PostgresServer, sales: int = 2000) -> None:
    """Seed the databases `damaged_live` and `damaged_beside` alike."""
    postgres.create("damaged_live", (SITE / "ferreteria/db/init/schema.sql").read_text())
    dsn = f"host={postgres.folder} port={postgres.port} user=ferreteria_user dbname=damaged_live"
    seed = (SITE / "seed.sql").read_bytes()
    postgres.run("psql", "-q", "-X", "-v", f"sales={sales}", "-d", dsn, "-f", "-", input=seed, env={**os.environ})
    copy(postgres, "damaged_live", "damaged_beside")


def copy(postgres: PostgresServer, live: str, beside: str) -> None:
    """Make an exact copy of a database that nobody uses."""
    with postgres.connect() as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{beside}" WITH (FORCE)')
        connection.execute(f'CREATE DATABASE "{beside}" TEMPLATE "{live}"')


def garble(postgres: PostgresServer, whole: str, live: str, *tables: str) -> None:
    """Make a copy of a database in which a page of each of the tables is garbage that the server refuses to read."""
    with postgres.connect() as connection:
        # As files: rows that pass through the server's memory would be read from there.
        strategy = " STRATEGY file_copy" if connection.info.server_version >= 150000 else ""
        connection.execute(f'DROP DATABASE IF EXISTS "{live}" WITH (FORCE)')
        connection.execute(f'CREATE DATABASE "{live}" TEMPLATE "{whole}"{strategy}'.encode())
    with postgres.connect(live) as connection:
        for table in tables:
            ((path,),) = connection.execute("SELECT pg_relation_filepath(%s)", (table,)).fetchall()
            with (postgres.data / path).open("r+b") as file:
                file.write(b"\xff" * PAGE)


def rows(connection: Connection[Any], query: str) -> list[tuple[Any, ...]]:
    """All rows of a query."""
    return connection.execute(query.encode()).fetchall()


def rows_of(connection: Connection[Any], table: str, tenant: int) -> list[str]:
    """A tenant's rows of a table in `public`, each as one text."""
    query = SQL("SELECT t::text FROM {} t WHERE tenant_id = %s ORDER BY 1").format(Identifier("public", table))
    return [text for (text,) in connection.execute(query, (tenant,))]
