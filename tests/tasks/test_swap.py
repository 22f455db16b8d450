"""Swapping databases by rename, on a real server."""

import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import psycopg
import pytest

from blocks.errors import Busy, ConfigError, DatabaseRefused
from tasks import cluster, swap
from tasks.postgres import Server
from tasks.swap import Names
from tests.postgres_server import PostgresServer
from tests.ssh_server import SshServer
from tests.tasks.server import contained

MARKS = [f"00000000000{number}_a" for number in "123"]
NAMES = swap.names("shop", MARKS[0])
SECOND, THIRD = (swap.names("shop", mark).kept for mark in MARKS[1:])
EVERY = [*NAMES, SECOND, THIRD, "shop_old_2025"]


@pytest.fixture
def server(ssh_server: SshServer, postgres: PostgresServer) -> Iterator[Server]:
    """A live database with a row `live`, and beside it a restored one with a row `restored`."""
    for name, row in ((NAMES.live, "live"), (NAMES.new, "restored")):
        postgres.create(name, f"CREATE TABLE sale AS SELECT '{row}' AS what")
    with contained(ssh_server, postgres) as server:
        yield server
    with postgres.connect() as connection:
        for name in EVERY:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def rows(postgres: PostgresServer, database: str) -> list[str]:
    with postgres.connect(database) as connection:
        return [row[0] for row in connection.execute("SELECT what FROM sale ORDER BY what")]


def databases(postgres: PostgresServer) -> dict[str, bool]:
    """Those of the test, and whether they take connections."""
    with postgres.connect() as connection:
        query = "SELECT datname, datallowconn FROM pg_database WHERE datname LIKE 'shop%' ORDER BY 1"
        return dict(connection.execute(query).fetchall())


def test_names_tell_one_restore_from_another_and_are_never_cut_by_the_server() -> None:
    assert swap.names("shop", "20261124_ab12") == (
        "shop", "shop_new_20261124_ab12", "shop_old_20261124_ab12", "shop_undone_20261124_ab12",
    )  # fmt: skip
    long = swap.names("s" * 63, "20261124T030000_ab12cd")
    assert max(len(name) + len(cluster.HALF) for name in long[1:]) == cluster.LONGEST_NAME
    assert len(set(long)) == 4


def test_a_plan_shows_every_statement_with_its_names_quoted() -> None:
    assert swap.statements(Names('sh"op', "new", "old", "undone")) == [
        'ALTER DATABASE "sh""op" ALLOW_CONNECTIONS false',
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'sh\"op'",
        "BEGIN",
        'ALTER DATABASE "sh""op" RENAME TO "old"',
        'ALTER DATABASE "new" RENAME TO "sh""op"',
        'ALTER DATABASE "old" ALLOW_CONNECTIONS true',
        "COMMIT",
    ]
    assert swap.undo_statements(NAMES)[3:5] == [
        'ALTER DATABASE "shop" RENAME TO "shop_undone_000000000001_a"',
        'ALTER DATABASE "shop_old_000000000001_a" RENAME TO "shop"',
    ]


def test_a_swap_puts_the_restored_database_in_place_and_keeps_the_live_one(
    server: Server, postgres: PostgresServer
) -> None:
    assert not swap.done(server, NAMES)
    assert 0 < swap.swap(server, NAMES) < 1
    assert swap.done(server, NAMES)
    assert (rows(postgres, "shop"), rows(postgres, "shop_old_000000000001_a")) == (["restored"], ["live"])
    assert databases(postgres) == {"shop": True, "shop_old_000000000001_a": True}


def test_a_swap_done_twice_is_done_once(server: Server, postgres: PostgresServer) -> None:
    swap.swap(server, NAMES)
    assert swap.swap(server, NAMES) == 0
    assert rows(postgres, "shop") == ["restored"]


def test_undoing_brings_the_kept_database_back_and_keeps_what_was_restored(
    server: Server, postgres: PostgresServer
) -> None:
    swap.swap(server, NAMES)
    assert swap.kept(server, "shop") == [NAMES]
    assert swap.undo(server, NAMES) > 0
    assert swap.undo(server, NAMES) == 0
    assert (rows(postgres, "shop"), rows(postgres, NAMES.undone)) == (["live"], ["restored"])
    assert swap.kept(server, "shop") == []


def test_the_swaps_that_can_be_undone_are_listed_newest_last(server: Server, postgres: PostgresServer) -> None:
    postgres.create(SECOND)
    with postgres.connect() as connection:
        connection.execute(f"ALTER DATABASE shop RENAME TO {THIRD}")
    postgres.create("shop")
    swap.swap(server, NAMES)
    postgres.create("shop_old_2025")  # a person's own
    assert [names.kept for names in swap.kept(server, "shop")] == [THIRD, SECOND, NAMES.kept]


def test_the_databases_of_a_restore_are_told_from_others_however_long_the_live_name_is() -> None:
    for live in ("shop", "s" * 29, "s" * 63, "shop_old_2025"):
        its = swap.names(live, MARKS[0])
        assert [swap.of(live, name) for name in its[1:]] == [its] * 3
    for other in ("shop", "shop_old_2025", "shop_spare_new_" + MARKS[0], NAMES.new + "_part", "shopping_part"):
        assert swap.of("shop", other) is None


def test_a_swap_cut_off_after_the_door_was_closed_is_finished_by_the_next(
    server: Server, postgres: PostgresServer
) -> None:
    with postgres.connect() as connection:
        connection.execute("ALTER DATABASE shop ALLOW_CONNECTIONS false")
    swap.swap(server, NAMES)
    assert databases(postgres) == {"shop": True, "shop_old_000000000001_a": True}


def test_a_swap_cut_off_and_given_up_is_opened_again(server: Server, postgres: PostgresServer) -> None:
    with postgres.connect() as connection:
        connection.execute("ALTER DATABASE shop ALLOW_CONNECTIONS false")
        assert swap.closed(connection, "shop")
        swap.reopen(server, "shop")
        assert not swap.closed(connection, "shop")
    assert rows(postgres, "shop") == ["live"]


def test_without_a_restored_database_nothing_is_closed(server: Server, postgres: PostgresServer) -> None:
    with postgres.connect() as connection:
        connection.execute("DROP DATABASE shop_new_000000000001_a")
    with pytest.raises(ConfigError, match="no database shop_new_000000000001_a"):
        swap.swap(server, NAMES)
    assert databases(postgres) == {"shop": True}


def test_a_name_that_is_taken_already_is_refused(server: Server, postgres: PostgresServer) -> None:
    postgres.create(NAMES.kept)
    with pytest.raises(ConfigError, match="shop_old_000000000001_a already"):
        swap.swap(server, NAMES)
    assert rows(postgres, "shop") == ["live"]


def test_whoever_is_connected_is_disconnected_and_finds_the_other_database(
    server: Server, postgres: PostgresServer
) -> None:
    with postgres.connect("shop") as client, postgres.connect(NAMES.new) as other:
        client.execute("BEGIN; INSERT INTO sale VALUES ('not committed')")
        swap.swap(server, NAMES)
        for connection in (client, other):
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
    assert (rows(postgres, "shop"), rows(postgres, "shop_old_000000000001_a")) == (["restored"], ["live"])


def test_a_subscription_that_would_follow_the_old_database_is_refused_before_anybody_is_disconnected(
    server: Server, postgres: PostgresServer
) -> None:
    with postgres.connect("shop") as client:
        client.execute("CREATE SUBSCRIPTION copy CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false)")
        client.execute("ALTER SUBSCRIPTION copy SET (slot_name = 'here')")
        client.execute("ALTER SUBSCRIPTION copy ENABLE")
        with pytest.raises(DatabaseRefused, match="subscription copy: disable it"):
            swap.swap(server, NAMES)
        client.execute("ALTER SUBSCRIPTION copy DISABLE")
        client.execute("ALTER SUBSCRIPTION copy SET (slot_name = NONE)")
        client.execute("DROP SUBSCRIPTION copy")
    assert databases(postgres) == {"shop": True, "shop_new_000000000001_a": True}


def test_a_session_that_does_not_end_leaves_the_live_database_open_and_as_it_was(
    server: Server, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def still(connection: object, names: list[str]) -> None:
        raise Busy("psql (process 7) did not let go of shop within 10 s.")

    monkeypatch.setattr(swap, "_disconnect", still)
    with pytest.raises(Busy, match="process 7"):
        swap.swap(server, NAMES)
    assert databases(postgres) == {"shop": True, "shop_new_000000000001_a": True}


def test_a_rename_that_fails_leaves_the_live_database_open_and_as_it_was(
    server: Server, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    renames = swap._renames
    monkeypatch.setattr(swap, "_renames", lambda *names: [*renames(*names), swap._allow("not there", True)])
    with pytest.raises(DatabaseRefused, match="not there"):
        swap.swap(server, NAMES)
    assert databases(postgres) == {"shop": True, "shop_new_000000000001_a": True}
    assert rows(postgres, "shop") == ["live"]


def test_owner_rights_settings_limit_and_comment_go_to_the_restored_database(
    server: Server, postgres: PostgresServer
) -> None:
    with postgres.connect() as connection:
        connection.execute("CREATE ROLE clerk; CREATE ROLE auditor")
        connection.execute("ALTER DATABASE shop OWNER TO clerk")
        connection.execute("REVOKE CONNECT ON DATABASE shop FROM PUBLIC; GRANT CONNECT ON DATABASE shop TO auditor")
        connection.execute("GRANT CREATE ON DATABASE shop TO auditor WITH GRANT OPTION")
        connection.execute("ALTER DATABASE shop CONNECTION LIMIT 40; COMMENT ON DATABASE shop IS 'the shop''s'")
        connection.execute("""ALTER DATABASE shop SET search_path = "$user", public, "a, b" """)
        connection.execute(
            "ALTER DATABASE shop SET statement_timeout = '33s'; ALTER DATABASE shop SET app.tax = 'a''b'"
        )
        connection.execute("ALTER ROLE clerk IN DATABASE shop SET work_mem = '7MB'")
        before = properties(connection)
    try:
        swap.swap(server, NAMES)
        with postgres.connect() as connection:
            assert properties(connection) == before
            assert len(before) == 5
    finally:
        with postgres.connect() as connection:
            for name in EVERY:
                connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            connection.execute("DROP ROLE clerk; DROP ROLE auditor")


def properties(connection: "psycopg.Connection[tuple[object, ...]]") -> list[str]:
    """What belongs to the live database and is in no dump of it: one line for each right and each role's settings."""
    query = """
        SELECT concat_ws(' ', datdba::regrole, datconnlimit, shobj_description(oid, 'pg_database'))
        FROM pg_database WHERE datname = 'shop'
        UNION ALL
        SELECT acl::text FROM pg_database, unnest(datacl) AS acl WHERE datname = 'shop' AND acl::text NOT LIKE 'clerk=%'
        UNION ALL
        SELECT concat_ws(' ', setrole::regrole, ARRAY(SELECT unnest(setconfig) ORDER BY 1))
        FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase WHERE datname = 'shop'
        ORDER BY 1
    """
    return [str(row[0]) for row in connection.execute(query)]


def test_eight_clients_that_write_and_reconnect_lose_no_committed_row(server: Server, postgres: PostgresServer) -> None:
    stop = threading.Event()
    written: list[list[str]] = [[] for _ in range(8)]
    gaps = [0.0] * 8

    def write(client: int) -> None:
        count, last = 0, time.monotonic()
        while not stop.is_set():
            with suppress(psycopg.OperationalError), postgres.connect("shop") as connection:
                while not stop.is_set():
                    row = f"{client}-{count}"
                    count += 1
                    connection.execute("INSERT INTO public.sale VALUES (%s)", [row])
                    written[client].append(row)
                    gaps[client] = max(gaps[client], time.monotonic() - last)
                    last = time.monotonic()

    clients = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in clients:
        thread.start()
    time.sleep(0.5)
    swap.swap(server, NAMES)
    time.sleep(0.5)
    stop.set()
    for thread in clients:
        thread.join()
    live, old = set(rows(postgres, "shop")), set(rows(postgres, "shop_old_000000000001_a"))
    acknowledged = {row for rows in written for row in rows}
    assert acknowledged <= live | old
    assert acknowledged & live
    assert acknowledged & old
    assert max(gaps) <= 1
