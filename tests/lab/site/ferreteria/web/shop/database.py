"""One connection a request, and rows as dictionaries."""

import logging
import os
from typing import Any

import psycopg2
from flask import g
from psycopg2.extras import RealDictCursor

Row = dict[str, Any]


class ConnectionLost(Exception):
    """The database cannot be reached; the message is PostgreSQL's."""


def connection() -> Any:
    """This request's connection; nothing is kept until `commit()`.

    Raises:
        ConnectionLost: the database does not answer within 3 s.
    """
    if "connection" not in g:
        try:
            g.connection = psycopg2.connect(
                host=os.environ.get("POSTGRES_HOST", "db"),
                port=os.environ.get("POSTGRES_PORT", "5432"),
                dbname=os.environ["POSTGRES_DB"],
                user=os.environ["POSTGRES_USER"],
                password=os.environ["POSTGRES_PASSWORD"],
                connect_timeout=3,
                options="-c statement_timeout=4s",
                application_name="ferreteria-web",
                cursor_factory=RealDictCursor,
            )
        except psycopg2.OperationalError as error:
            logging.getLogger("shop").error("database connection error: %s", str(error).strip())
            raise ConnectionLost(str(error).strip()) from error
    return g.connection


def rows(sql: str, *values: object) -> list[Row]:
    """Every row that the query gives."""
    with connection().cursor() as cursor:
        cursor.execute(sql, values)
        return list(cursor.fetchall())


def row(sql: str, *values: object) -> Row | None:
    """The first row that the query gives, or None."""
    return next(iter(rows(sql, *values)), None)


def close(_error: BaseException | None = None) -> None:
    """End this request's connection; what was not committed is undone."""
    held = g.pop("connection", None)
    if held is not None:
        held.close()
