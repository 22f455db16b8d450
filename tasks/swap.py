"""Put a restored database in the place of the live one by renaming both, and back again.

The live database takes no new connections, whoever is connected is disconnected, and one transaction gives both their
new names: whoever reconnects finds one or the other, never neither. Every row that was committed until then is in the
database that was set aside, which is kept. Nothing here is done twice: a swap that was cut off is finished by doing it
again, and one that is done is seen to be done.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from blocks.errors import Busy, ConfigError, DatabaseRefused
from tasks import cluster
from tasks.cluster import HALF, LONGEST_NAME, maintenance
from tasks.postgres import Server

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.sql import Composed

MARK = "[0-9a-f]{12}_[0-9a-z]+"  # what tells the databases of one restore from others, and from a person's own
PATIENCE = 10.0  # seconds that sessions get to end after they were told to; then the live database is opened again


class Names(NamedTuple):
    """What the databases of one restore are called: live, restored beside it, and set aside by swap and by undo."""

    live: str
    new: str
    kept: str
    undone: str


def names(live: str, mark: str) -> Names:
    """The names for one restore; `mark` tells it from others. A long name of the live database is cut in them."""

    def name(kind: str) -> str:
        end = f"_{kind}_{mark}"
        return live[: LONGEST_NAME - len(end) - len(HALF)] + end

    return Names(live, name("new"), name("old"), name("undone"))


def of(live: str, database: str) -> Names | None:
    """The names of the restore that this database is of; None for anything else, however it is called."""
    found = re.search(rf"_(?:new|old|undone)_({MARK})$", database)
    its = names(live, found[1]) if found else None
    return its if its and database in {its.new, its.kept, its.undone} else None


def done(server: Server, names: Names) -> bool:
    """Whether the restored database is the live one already, and the one before is kept."""
    with maintenance(server) as connection:
        there = [cluster.exists(connection, name) for name in (names.live, names.new, names.kept)]
    return there == [True, False, True]


def swap(server: Server, names: Names) -> float:
    """Make the new database the live one, with the live one's owner, rights and settings; the live one is kept.

    Returns for how many seconds nobody could connect; 0 if it was done before. Raises ConfigError if there is no new
    database, DatabaseRefused for what would keep hold of the live one, Busy if somebody did not let go of it: then the
    live database is as it was.
    """
    with maintenance(server) as connection:
        if not _to_do(connection, names.live, names.new, names.kept):
            return 0.0
        _refuse_obstacles(connection, server, names.live)
        copy_settings(connection, names.live, names.new)
        return _exchange(connection, names.live, names.new, names.kept)


def undo(server: Server, names: Names) -> float:
    """Make the database that was kept the live one again; what was restored is kept as `undone`.

    Returns and raises as `swap` does.
    """
    with maintenance(server) as connection:
        if not _to_do(connection, names.live, names.kept, names.undone):
            return 0.0
        _refuse_obstacles(connection, server, names.live)
        return _exchange(connection, names.live, names.kept, names.undone)


def reopen(server: Server, live: str) -> None:
    """Let clients connect again, where a swap was cut off and shall not be finished."""
    with maintenance(server) as connection:
        if cluster.exists(connection, live):
            connection.execute(_allow(live, True))


def closed(connection: Connection[Any], live: str) -> bool:
    """Whether a swap that was cut off left the database so that nobody can connect."""
    query = "SELECT FROM pg_database WHERE datname = %s AND NOT datallowconn"
    return connection.execute(query, [live]).fetchone() is not None


def statements(names: Names) -> list[str]:
    """What a swap runs, for people to read."""
    return _lines(names.live, names.new, names.kept)


def undo_statements(names: Names) -> list[str]:
    """What going back runs, for people to read."""
    return _lines(names.live, names.kept, names.undone)


def kept(server: Server, live: str) -> list[Names]:
    """The swaps whose kept database is still there, newest last: what is live now was made after what it replaced."""
    with maintenance(server) as connection:
        found = [(name, of(live, name)) for name in cluster.named(connection, "")]
    return [its for name, its in found if its and name == its.kept]


# --- how ------------------------------------------------------------------------------------------------------


def _exchange(connection: Connection[Any], live: str, incoming: str, aside: str) -> float:
    """Rename live to aside and incoming to live. On any failure the live database is open again, as it was."""
    started, done = time.monotonic(), False
    connection.execute(_allow(live, False))
    try:
        _disconnect(connection, [live, incoming])
        with connection.transaction():
            for statement in _renames(live, incoming, aside):
                connection.execute(statement)
        done = True
    finally:
        if not done and not connection.closed:
            connection.execute(_allow(live, True))
    return time.monotonic() - started


def _lines(live: str, incoming: str, aside: str) -> list[str]:
    from psycopg import sql

    end = sql.SQL("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {}").format(sql.Literal(live))
    steps = [_allow(live, False), end, sql.SQL("BEGIN"), *_renames(live, incoming, aside), sql.SQL("COMMIT")]
    return [step.as_string(None) for step in steps]


def copy_settings(connection: Connection[Any], source: str, target: str) -> None:
    """Give a database another one's owner, rights, settings (also those per role), connection limit and comment."""
    from psycopg import sql

    query = (
        "SELECT pg_get_userbyid(datdba), datconnlimit, shobj_description(oid, 'pg_database') "
        "FROM pg_database WHERE datname = %s"
    )
    row = connection.execute(query, [source]).fetchone()
    assert row is not None
    owner, limit, comment = row
    name = sql.Identifier(target)
    with connection.transaction():
        connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(name, sql.Identifier(owner)))
        connection.execute(sql.SQL("ALTER DATABASE {} CONNECTION LIMIT {}").format(name, sql.Literal(limit)))
        connection.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(name, sql.Literal(comment)))
        _copy_rights(connection, source, name)
        _copy_parameters(connection, source, target)


def _to_do(connection: Connection[Any], live: str, incoming: str, aside: str) -> bool:
    """Whether the exchange is still to be done: the catalogue says, whatever was cut off."""
    there = {name for name in (live, incoming, aside) if cluster.exists(connection, name)}
    if there == {live, aside}:
        connection.execute(_allow(live, True))
        return False
    if there == {live, incoming}:
        return True
    missing = next((name for name in (live, incoming) if name not in there), "")
    if missing:
        raise ConfigError(f"There is no database {missing} to exchange.", "See `\\l` in psql for those there are.")
    raise ConfigError(
        f"There is a database {aside} already, and {incoming} is there too.", "Rename or drop the one not needed."
    )


def _refuse_obstacles(connection: Connection[Any], server: Server, live: str) -> None:
    """What would keep hold of the live database under its new name: seen before anybody is disconnected."""
    query = """
        SELECT format('the prepared transaction %%s: COMMIT PREPARED or ROLLBACK PREPARED it', gid)
        FROM pg_prepared_xacts WHERE database = %(live)s
        UNION ALL
        SELECT format('the logical replication slot %%s: stop what reads it, and drop it', slot_name)
        FROM pg_replication_slots WHERE database = %(live)s
        UNION ALL
        SELECT format('the subscription %%s: disable it', subname)
        FROM pg_subscription WHERE subenabled AND subdbid = (SELECT oid FROM pg_database WHERE datname = %(live)s)
    """
    found = [row[0] for row in connection.execute(query, {"live": live})]
    if found:
        raise DatabaseRefused(f"{live} in {server.name} cannot be exchanged because of {'; '.join(found)}.")


def _disconnect(connection: Connection[Any], databases: list[str]) -> None:
    """End every other session. Raises Busy, naming them, if one of them does not end."""
    query = (
        "SELECT pid, coalesce(nullif(application_name, ''), backend_type), pg_terminate_backend(pid) "
        "FROM pg_stat_activity WHERE datname = ANY(%s) AND pid <> pg_backend_pid()"
    )
    deadline = time.monotonic() + PATIENCE
    while rows := connection.execute(query, [databases]).fetchall():
        if time.monotonic() > deadline:
            who = ", ".join(f"{name} (process {pid})" for pid, name, _ in rows)
            raise Busy(f"{who} did not let go of {databases[0]} within {PATIENCE:.0f} s.", "Look at it; try again.")
        time.sleep(0.01)


def _allow(database: str, yes: bool) -> Composed:
    from psycopg import sql

    return sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}").format(sql.Identifier(database), sql.Literal(yes))


def _renames(live: str, incoming: str, aside: str) -> list[Composed]:
    """In one transaction; the database set aside opens with it, so that one can look at it and go back."""
    from psycopg import sql

    rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
    return [
        rename.format(sql.Identifier(live), sql.Identifier(aside)),
        rename.format(sql.Identifier(incoming), sql.Identifier(live)),
        _allow(aside, True),
    ]


def _copy_rights(connection: Connection[Any], source: str, target: Any) -> None:
    """Nothing where the rights are those that every database begins with."""
    from psycopg import sql

    query = """
        SELECT CASE WHEN grantee <> 0 THEN pg_get_userbyid(grantee) END, privilege_type, is_grantable
        FROM pg_database, aclexplode(datacl) WHERE datname = %s
    """
    rights = connection.execute(query, [source]).fetchall()
    if not rights:
        return
    connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(target))
    for grantee, privilege, grantable in rights:
        to = sql.Identifier(grantee) if grantee is not None else sql.SQL("PUBLIC")
        option = sql.SQL(" WITH GRANT OPTION" if grantable else "")
        grant = sql.SQL("GRANT {} ON DATABASE {} TO {}{}")
        connection.execute(grant.format(sql.SQL(privilege), target, to, option))


def _copy_parameters(connection: Connection[Any], source: str, target: str) -> None:
    """Set each for this transaction, then store it `FROM CURRENT`: the server quotes lists as it needs them."""
    from psycopg import sql

    query = """
        SELECT CASE WHEN setrole <> 0 THEN pg_get_userbyid(setrole) END, split_part(setting, '=', 1),
               substr(setting, strpos(setting, '=') + 1)
        FROM pg_db_role_setting, unnest(setconfig) AS setting
        WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = %s)
    """
    for role, parameter, value in connection.execute(query, [source]).fetchall():
        connection.execute("SELECT set_config(%s, %s, true)", [parameter, value])
        whose = sql.SQL("ALTER DATABASE {}").format(sql.Identifier(target))
        if role is not None:
            whose = sql.SQL("ALTER ROLE {} IN DATABASE {}").format(sql.Identifier(role), sql.Identifier(target))
        connection.execute(sql.SQL("{} SET {} FROM CURRENT").format(whose, sql.Identifier(*parameter.split("."))))
