"""Asking a database what its owners know always holds."""

import psycopg
import pytest

from blocks.errors import ConfigError
from tasks import invariants
from tests.postgres_server import PostgresServer

TEXT = """
-- name: no sale is negative
SELECT * FROM sale WHERE total < 0;
-- name: 100 % {of} sales have a name
SELECT id, id FROM sale WHERE name IS NULL OR name LIKE '%{x}%' -- as agreed
;
"""


@pytest.fixture
def shop(postgres: PostgresServer) -> PostgresServer:
    postgres.create(
        "shop",
        "CREATE TABLE sale AS SELECT n AS id, n - 2 AS total, 'n' AS name FROM generate_series(1, 5) AS n;"
        "CREATE FUNCTION sell() RETURNS int LANGUAGE sql AS 'INSERT INTO sale (id) VALUES (9) RETURNING id'",
    )
    return postgres


def test_the_rows_that_violate_each_are_counted_by_name(shop: PostgresServer) -> None:
    with shop.connect("shop") as connection:
        connection.execute("SET search_path = ''")  # as every session of Guardia
        assert invariants.violations(connection, TEXT) == {"no sale is negative": 1, "100 % {of} sales have a name": 0}
        assert invariants.violations(connection, "") == {}


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM gone",
        "SELECT 1 WHERE 1 / (SELECT 0) = 1",
        "SELEC",
        "DELETE FROM sale RETURNING id",
        "SELECT public.sell()",
    ],
)
def test_one_that_cannot_be_asked_is_named_and_changes_nothing(shop: PostgresServer, query: str) -> None:
    with shop.connect("shop") as connection:
        with pytest.raises(ConfigError, match="invariant 'all is well' cannot be asked"):
            invariants.violations(connection, f"-- name: all is well\n{query};")
        assert connection.execute("SELECT count(*) FROM sale").fetchone() == (5,)


def test_a_lost_connection_is_not_the_invariants_fault(shop: PostgresServer) -> None:
    with shop.connect("shop") as connection, shop.connect() as other:
        other.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
        with pytest.raises(psycopg.OperationalError):
            invariants.violations(connection, TEXT)
