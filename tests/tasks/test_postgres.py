"""PostgreSQL in a container as a site has it: sessions, what they pin, and which error each failure becomes."""

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest
from pydantic import SecretStr

from blocks.errors import (
    CommandFailed,
    ConfigError,
    DatabaseRefused,
    DatabaseUnreachable,
    GuardiaError,
    HostRefused,
    NoSpace,
)
from blocks.site import Site
from tasks import postgres, ssh
from tasks.postgres import Server, connect, connections
from tests import sample
from tests.postgres_server import PASSWORD, USER, PostgresServer
from tests.ssh_server import SshServer

ID = "073ce4e1ac3c"
COMPOSE = "docker compose -f /root/ferreteria/docker-compose.prod.yml --env-file /root/ferreteria/.env.prod"


@pytest.fixture
def site(ssh_server: SshServer) -> Iterator[Site]:
    """A site whose docker knows one container, on this machine's own network."""
    host = ssh_server.host()
    yield sample.site(host=host, database={"name": "shop", "user": USER, "password": PASSWORD})
    ssh.close(host)


@pytest.fixture
def server(ssh_server: SshServer, site: Site, postgres: PostgresServer) -> Server:
    ssh_server.stub("docker", "echo 'running ferreteria_default 127.0.0.1 '")
    return Server(site.host, ID, USER, SecretStr(PASSWORD), postgres.port, "db of tandil")


# --- commands -------------------------------------------------------------------------------------------------


def test_programs_run_in_the_container_without_shell_and_terminal(server: Server) -> None:
    dump = postgres.inside(server, "pg_dump", "--dbname", "a shop", timeout=9)
    assert dump.line == f"docker exec {ID} pg_dump --dbname 'a shop'"
    assert (dump.changes, dump.timeout) == (False, 9)
    feed = postgres.inside(server, "pg_restore", stdin=True, changes=True)
    assert feed.line == f"docker exec --interactive {ID} pg_restore"
    assert feed.changes


# --- the site's own server ------------------------------------------------------------------------------------


def test_the_sites_server_is_found_by_its_service_running_or_not(ssh_server: SshServer, site: Site) -> None:
    ssh_server.stub("docker", f"echo {ID}")
    found = postgres.production(site)
    assert (found.container, found.user, found.port, found.name) == (ID, USER, 5432, "db of tandil on 127.0.0.1")
    assert found.password.get_secret_value() == PASSWORD
    assert ssh_server.calls("docker") == [[*COMPOSE.split()[1:], "ps", "--all", "--quiet", "db"]]


NOT_FOUND: dict[str, tuple[str, type[GuardiaError], str, str]] = {
    "no container": ("exit 0", DatabaseUnreachable, "service db on 127.0.0.1 has no container", "up -d db"),
    "two containers": ("echo a; echo b", ConfigError, "service db on 127.0.0.1 has 2 containers", "only one"),
    "no such service": ("echo 'no such service: db' >&2; exit 14", ConfigError, "has no service db", "[services]"),
    "no compose file": ("echo 'open /x: no such file or directory' >&2; exit 14", ConfigError, "is not on", "folder"),
    "no docker daemon": ("echo 'Cannot connect to the daemon' >&2; exit 1", CommandFailed, "Cannot connect", ""),
}


@pytest.mark.parametrize("case", NOT_FOUND)
def test_a_server_that_is_not_there_is_an_error_with_the_cure(ssh_server: SshServer, site: Site, case: str) -> None:
    script, kind, what, cure = NOT_FOUND[case]
    ssh_server.stub("docker", script)
    with pytest.raises(kind) as caught:
        postgres.production(site)
    assert what in caught.value.what
    assert cure in caught.value.cure


def test_a_site_without_a_database_says_so(site: Site) -> None:
    with pytest.raises(ConfigError, match=r"tandil has no database. Add \[database\]"):
        postgres.production(site.model_copy(update={"database": None}))


# --- sessions -------------------------------------------------------------------------------------------------


def test_a_session_reaches_the_database_and_each_statement_stands_by_itself(
    server: Server, postgres: PostgresServer
) -> None:
    postgres.create("session", "CREATE TABLE t (n int)")
    with connect(server, "session", application="guardia-test") as connection:
        connection.execute("INSERT INTO public.t VALUES (%s)", [7])
        with connect(server, "session") as other:
            assert other.execute("SELECT n FROM public.t").fetchone() == (7,)
        assert connection.execute("SHOW application_name").fetchone() == ("guardia-test",)
    assert connection.closed


def test_a_user_who_is_no_superuser_is_let_in(server: Server, postgres: PostgresServer) -> None:
    postgres.create("clerks", "DROP ROLE IF EXISTS teller; CREATE ROLE teller LOGIN PASSWORD 'x'")
    clerk = replace(server, user="teller", password=SecretStr("x"))
    with connect(clerk, "clerks") as connection:
        assert connection.execute("SELECT current_user::text").fetchone() == ("teller",)
    with connect(server, "clerks") as connection:
        assert connection.execute("SHOW lc_messages").fetchone() == ("C",)


def test_a_transaction_that_was_begun_and_not_committed_is_undone(server: Server, postgres: PostgresServer) -> None:
    postgres.create("undone", "CREATE TABLE t (n int)")
    with connect(server, "undone") as connection:
        connection.execute("BEGIN")
        connection.execute("INSERT INTO public.t VALUES (7)")
    with connect(server, "undone") as connection:
        assert connection.execute("SELECT count(*) FROM public.t").fetchone() == (0,)


def test_values_are_written_alike_whatever_the_database_and_the_role_say(
    server: Server, postgres: PostgresServer
) -> None:
    postgres.create("odd")
    odd = {
        "timezone": "Asia/Kathmandu", "datestyle": "German", "intervalstyle": "iso_8601", "bytea_output": "escape",
        "extra_float_digits": "-3", "search_path": "pg_temp", "row_security": "on", "statement_timeout": "1",
        "idle_in_transaction_session_timeout": "1", "lock_timeout": "1", "client_encoding": "LATIN1",
    }  # fmt: skip
    with postgres.connect() as connection:
        for name, value in odd.items():
            connection.execute(f"ALTER DATABASE odd SET {name} = '{value}'")
    with connect(server, "odd") as connection:
        shown = connection.execute(
            "SELECT timestamptz '2026-07-01 12:00:00Z'::text, interval '90 min'::text, '\\xff'::bytea::text, "
            "(0.1::float8 + 0.2)::text, current_schemas(false), 'á', pg_sleep(0.01)::text"
        ).fetchone()
        settings = {name: connection.execute(f"SHOW {name}").fetchone() for name in odd}
    assert shown == ("2026-07-01 12:00:00+00", "01:30:00", "\\xff", "0.30000000000000004", [], "á", "")
    assert settings["row_security"] == ("off",)
    assert settings["idle_in_transaction_session_timeout"] == settings["lock_timeout"] == ("0",)


def test_sessions_side_by_side_share_a_tunnel_and_a_snapshot(
    server: Server, postgres: PostgresServer, ssh_server: SshServer
) -> None:
    postgres.create("parallel", "CREATE TABLE t AS SELECT generate_series(1, 10) n")
    with connections(server, "parallel", 3) as (first, *others):
        first.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        (snapshot,) = first.execute("SELECT pg_export_snapshot()").fetchone() or ("",)
        with postgres.connect("parallel") as writer:
            writer.execute("DELETE FROM t")
        for other in others:
            other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            other.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
            assert other.execute("SELECT count(*) FROM public.t").fetchone() == (10,)
    assert len(ssh_server.calls("docker")) == 1


def test_a_container_on_the_hosts_own_network_is_reached_there(
    server: Server, ssh_server: SshServer, postgres: PostgresServer
) -> None:
    ssh_server.stub("docker", "echo 'running host  '")
    with connect(server, "postgres") as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


# --- what goes wrong ------------------------------------------------------------------------------------------

STATES = {
    "stopped": ("echo 'exited ferreteria_default  '", "is not running, but exited"),
    "restarting": ("echo 'restarting ferreteria_default '", "is not running, but restarting"),
    "gone": ("echo 'Error: No such container: x' >&2; exit 1", "is gone"),
    "without a network": ("echo 'running none  '", "has no network address"),
}


@pytest.mark.parametrize(("script", "what"), STATES.values(), ids=STATES)
def test_a_container_that_does_not_run_is_named_and_worth_another_try(
    server: Server, ssh_server: SshServer, script: str, what: str
) -> None:
    ssh_server.stub("docker", script)
    with pytest.raises(DatabaseUnreachable, match=what) as caught, connect(server, "postgres"):
        pass
    assert "docker compose ps" in caught.value.cure
    assert not caught.value.permanent


def test_a_container_in_which_nothing_listens_is_worth_another_try(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (
        pytest.raises(DatabaseUnreachable, match="db of tandil cannot be reached: Nothing answers at"),
        connect(replace(server, port=port), "postgres"),
    ):
        pass


def test_a_host_that_forbids_forwarding_is_an_error_with_the_cure(server: Server, ssh_server: SshServer) -> None:
    ssh_server.forwards = False
    with pytest.raises(HostRefused, match="AllowTcpForwarding"), connect(server, "postgres"):
        pass


def test_a_wrong_password_is_refused_and_never_quoted(server: Server) -> None:
    wrong = replace(server, password=SecretStr("hunter22"))
    with pytest.raises(DatabaseRefused, match="password authentication failed") as caught, connect(wrong, "postgres"):
        pass
    assert "[database] in the site file" in caught.value.cure
    for said in (str(caught.value), repr(caught.value), repr(caught.value.__cause__), repr(wrong)):
        assert "hunter22" not in said


def test_a_database_that_is_not_there_is_named(server: Server) -> None:
    with (
        pytest.raises(DatabaseRefused, match='database "nowhere" does not exist') as caught,
        connect(server, "nowhere"),
    ):
        pass
    assert caught.value.permanent
    assert ".s.PGSQL" not in caught.value.what


def test_a_database_that_takes_no_sessions_has_refused(server: Server, postgres: PostgresServer) -> None:
    postgres.create("closed")
    with postgres.connect() as connection:
        connection.execute("ALTER DATABASE closed ALLOW_CONNECTIONS false")
    with pytest.raises(DatabaseRefused, match="not currently accepting connections"), connect(server, "closed"):
        pass


def test_a_server_without_a_free_slot_is_worth_another_try(server: Server, postgres: PostgresServer) -> None:
    postgres.create("crowded")
    with postgres.connect() as connection:
        connection.execute("ALTER DATABASE crowded CONNECTION LIMIT 0")
        connection.execute(f"CREATE ROLE visitor LOGIN PASSWORD '{PASSWORD}'")
    try:
        with (
            pytest.raises(DatabaseUnreachable, match="too many connections"),
            connect(replace(server, user="visitor"), "crowded"),
        ):
            pass
    finally:
        with postgres.connect() as connection:
            connection.execute("DROP ROLE visitor")


def test_a_statement_that_fails_is_quoted_without_the_rows_it_met(server: Server, postgres: PostgresServer) -> None:
    postgres.create("unique", "CREATE TABLE t (mail text PRIMARY KEY); INSERT INTO t VALUES ('ana@azul.test')")
    with (
        pytest.raises(DatabaseRefused, match=r"duplicate key value.*SQLSTATE 23505") as caught,
        connect(server, "unique") as connection,
    ):
        connection.execute("INSERT INTO public.t VALUES ('ana@azul.test')")
    assert "ana@azul" not in str(caught.value)


def test_a_full_disk_is_told_apart() -> None:
    with pytest.raises(NoSpace, match="shop has no disk space left"), postgres.errors("shop"):
        raise psycopg.errors.DiskFull("could not extend file")


def test_a_mistake_of_the_callers_own_stays_what_it_is(server: Server) -> None:
    with pytest.raises(psycopg.ProgrammingError), connect(server, "postgres") as connection:
        connection.execute("SELECT %s", [])


ENDS = {
    "the server ends the session": (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'guardia-victim'",
        "terminating connection.*See the log of its container",
    ),
    "the connection is lost": ("", "the SSH connection to 127.0.0.1 was lost. Is the VPS up"),
}


@pytest.mark.parametrize(("statement", "words"), ENDS.values(), ids=ENDS)
def test_a_session_that_is_lost_in_a_statement_is_an_error_at_once(
    server: Server, postgres: PostgresServer, ssh_server: SshServer, statement: str, words: str
) -> None:
    def end() -> None:
        time.sleep(0.3)
        if not statement:
            return ssh_server.drop()
        with postgres.connect() as connection:
            connection.execute(statement)
        return None

    began = time.monotonic()
    with (
        pytest.raises(DatabaseUnreachable, match=words) as caught,
        connect(server, "postgres", application="guardia-victim") as connection,
    ):
        threading.Thread(target=end).start()
        connection.execute("SELECT pg_sleep(20)")
    assert time.monotonic() - began < 5
    assert not caught.value.permanent


def test_a_statement_that_nobody_waits_for_any_more_ends_on_the_server(
    server: Server, postgres: PostgresServer, ssh_server: SshServer
) -> None:
    with pytest.raises(DatabaseUnreachable), connect(server, "postgres", application="guardia-gone") as connection:
        threading.Timer(0.2, ssh_server.drop).start()
        connection.execute("SELECT pg_sleep(60)")
    deadline = time.monotonic() + 10
    with postgres.connect() as watching:
        count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'guardia-gone'"
        while watching.execute(count).fetchone() != (0,):
            assert time.monotonic() < deadline, "it still runs"
            time.sleep(0.1)


def test_a_server_that_is_starting_up_is_worth_another_try() -> None:
    socket_ = 'connection to server on socket "/tmp/x/.s.PGSQL.5432"'
    with (
        pytest.raises(DatabaseUnreachable, match="shop does not answer: FATAL:  the database system is starting up"),
        postgres.errors("shop"),
    ):
        raise psycopg.OperationalError(
            f"connection failed: {socket_} failed: FATAL:  the database system is starting up"
        )
