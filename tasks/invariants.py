"""What the site's owners know always holds in their database, asked of any database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blocks.database import queries
from blocks.errors import ConfigError

if TYPE_CHECKING:
    from psycopg import Connection


def violations(connection: Connection[Any], text: str) -> dict[str, int]:
    """How many rows violate each of the invariants in the text, by name.

    Raises ConfigError, naming the query, for one that cannot be asked.
    """
    import psycopg
    from psycopg import sql

    found = {}
    for name, query in queries(text).items():
        try:
            with connection.transaction():
                connection.execute("SET TRANSACTION READ ONLY")
                connection.execute('SET LOCAL search_path = "$user", public')
                count = sql.SQL("SELECT count(*) FROM ({}\n) AS violating").format(sql.SQL(query))
                (found[name],) = connection.execute(count).fetchone() or (0,)
        except (psycopg.ProgrammingError, psycopg.DataError, psycopg.NotSupportedError, psycopg.InternalError) as error:
            said = str(error).splitlines()[0]
            raise ConfigError(
                f"The invariant {name!r} cannot be asked: {said}.", "Correct it in [database]."
            ) from error
    return found
