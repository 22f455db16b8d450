"""The dumps of the site's own script: which there are, and restoring one as a role without rights."""

import gzip
import os
import subprocess
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from blocks.errors import BadBackup, ConfigError, DatabaseRefused, NoSpace
from blocks.site import Site
from tasks import own_dumps, plain_sql
from tasks.own_dumps import OwnFile
from tasks.plain_sql import Seen
from tasks.postgres import Server
from tests import sample
from tests.postgres_server import USER, PostgresServer
from tests.ssh_server import SshServer
from tests.tasks.server import contained

NEW = "shop_new_1"
SHOP = """
    CREATE TYPE state AS ENUM ('open', 'paid');
    CREATE TABLE sale (id int PRIMARY KEY, state state, what text);
    INSERT INTO sale SELECT n, 'paid', 'nails; \\connect "x" ' || n FROM generate_series(1, 3000) AS n;
    CREATE TABLE sale_line (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, sale_id int NOT NULL REFERENCES sale);
    INSERT INTO sale_line (sale_id) SELECT id FROM sale;
    CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN new; END$$;
    CREATE TRIGGER touch BEFORE UPDATE ON sale FOR EACH ROW EXECUTE FUNCTION touch();
    CREATE VIEW paid AS SELECT * FROM sale WHERE state = 'paid';
"""


@pytest.fixture
def server(ssh_server: SshServer, postgres: PostgresServer) -> Iterator[Server]:
    with contained(ssh_server, postgres) as server:
        yield server


@pytest.fixture
def site(server: Server, folder: Path) -> Site:
    return sample.site(host=server.host, own_scripts={"folder": str(folder)})


@pytest.fixture
def dump(postgres: PostgresServer) -> Iterator[bytes]:
    """What the site's script makes of the shop, before gzip."""
    postgres.create("shop", SHOP)
    words = [f"--dbname={postgres.dsn('shop')}", "--no-owner", "--no-acl", "--clean", "--if-exists"]
    yield subprocess.run([postgres.bin / "pg_dump", *words], check=True, capture_output=True).stdout
    with postgres.connect() as connection:
        for name in ("shop", NEW):
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def folder_of(site: Site) -> Path:
    assert site.own_scripts
    return Path(site.own_scripts.folder)


def written(site: Site, content: bytes, name: str = "ferreteria_2026-11-24_030000.sql.gz") -> str:
    (folder_of(site) / name).write_bytes(gzip.compress(content))
    return name


def left(postgres: PostgresServer) -> list[str]:
    with postgres.connect() as connection:
        query = "SELECT datname FROM pg_database UNION ALL SELECT rolname FROM pg_roles ORDER BY 1"
        return [row[0] for row in connection.execute(query)]


def test_the_commands_are_exactly_these() -> None:
    server = Server(sample.site().host, "c0ffee", "owner", sample.site().host.private_key, 5432, "db")
    assert own_dumps.list_files("/b").line == "find /b -maxdepth 1 -type f -name '*.sql.gz' -printf '%s %T@ %f\\0'"
    assert own_dumps.read_file("/b/x.sql.gz").line == "cat /b/x.sql.gz"
    psql = own_dumps.psql(server, "shop_part", "role_part")
    assert psql.changes
    assert psql.argv[:4] == ("docker", "exec", "--interactive", "c0ffee")
    assert psql.argv[4:] == (
        "timeout", "21600", "psql", "--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1",
        "--output=/dev/null",
        "--dbname=user=role_part port=5432 dbname=shop_part options='-c client_min_messages=error'", "--file=-",
    )  # fmt: skip


def test_dumps_are_listed_newest_first_whatever_their_names_hold(site: Site, folder: Path) -> None:
    for age, name in enumerate(("b.sql.gz", "a b\nc.sql.gz", "other.txt")):
        (folder / name).write_bytes(b"x" * age)
        os.utime(folder / name, (1000 - age, 1000 - age))
    assert own_dumps.files(site) == [
        OwnFile(name="b.sql.gz", bytes=0, modified=datetime.fromtimestamp(1000, UTC)),
        OwnFile(name="a b\nc.sql.gz", bytes=1, modified=datetime.fromtimestamp(999, UTC)),
    ]
    assert own_dumps.find(site, "b.sql.gz").bytes == 0
    with pytest.raises(ConfigError, match=r"has no gone.sql.gz. The newest there: b.sql.gz"):
        own_dumps.find(site, "gone.sql.gz")


def test_a_folder_that_is_not_there_and_a_site_without_scripts_are_the_operators_to_correct(
    site: Site, folder: Path
) -> None:
    folder.rmdir()
    with pytest.raises(ConfigError, match="There is no"):
        own_dumps.files(site)
    with pytest.raises(ConfigError, match="no \\[own_scripts\\]"):
        own_dumps.files(sample.site())


def test_a_dump_of_the_sites_script_is_restored_with_every_row_and_belongs_to_the_servers_user(
    server: Server, site: Site, dump: bytes, postgres: PostgresServer
) -> None:
    before, told = left(postgres), list[float]()
    file = own_dumps.find(site, written(site, dump))
    done = own_dumps.restore(server, site, file, NEW, report=told.append)
    assert done.rows == {"public.sale": 3000, "public.sale_line": 3000}
    assert left(postgres) == sorted([*before, NEW])
    assert told[-1] == 1
    with postgres.connect(NEW) as connection:
        assert connection.execute("SELECT count(*) FROM paid").fetchone() == (3000,)
        owners = "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        assert connection.execute(owners).fetchall() == [(USER,)]
        query = "SELECT datdba::regrole::text FROM pg_database WHERE datname = current_database()"
        assert connection.execute(query).fetchall() == [(USER,)]


def test_where_a_dump_fails_is_said_in_its_own_lines(server: Server, site: Site, dump: bytes) -> None:
    end = dump.index(b"--\n-- PostgreSQL database dump complete")
    file = own_dumps.find(site, written(site, dump[:end] + b"COMMENT ON TABLE gone IS 'x';\n" + dump[end:]))
    line = dump[:end].count(b"\n") + 1
    with pytest.raises(BadBackup, match=rf"psql:<stdin>:{line}: ERROR: .*gone"):
        own_dumps.restore(server, site, file, NEW)


PARTS = """
    CREATE TABLE move (id int, kind text, PRIMARY KEY (id, kind)) PARTITION BY LIST (kind);
    CREATE TABLE move_in PARTITION OF move FOR VALUES IN ('in') PARTITION BY HASH (id);
    CREATE TABLE move_in_0 PARTITION OF move_in FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE move_in_1 PARTITION OF move_in FOR VALUES WITH (MODULUS 2, REMAINDER 1);
    CREATE TABLE move_out PARTITION OF move FOR VALUES IN ('out');
    INSERT INTO move SELECT n, (ARRAY['in', 'out'])[1 + n % 2] FROM generate_series(1, 50) AS n;
    CREATE TABLE parent (id int);
    CREATE TABLE child (more text) INHERITS (parent);
    INSERT INTO parent VALUES (1);
    INSERT INTO child VALUES (2, 'x'), (3, 'y');
    CREATE TABLE "año" (id int);
    INSERT INTO "año" VALUES (1);
    CREATE TABLE secret (id int);
    INSERT INTO secret VALUES (1), (2);
    ALTER TABLE secret ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
    CREATE POLICY one ON secret USING (id = 1);
"""
BY_ROOT = {"public.move": 50}
BY_LEAF = {"public.move_in_0": 12, "public.move_in_1": 13, "public.move_out": 25}


@pytest.mark.parametrize(
    ("options", "moves"),
    [((), BY_LEAF), (("--load-via-partition-root",), BY_ROOT), (("--encoding=LATIN1",), BY_LEAF)],
)
def test_partitions_children_hidden_rows_and_names_in_another_encoding_are_all_counted(
    server: Server, site: Site, postgres: PostgresServer, options: tuple[str, ...], moves: dict[str, int]
) -> None:
    postgres.create("parts", PARTS)
    words = [f"--dbname={postgres.dsn('parts')}", "--no-owner", "--no-acl", *options]
    dump = subprocess.run([postgres.bin / "pg_dump", *words], check=True, capture_output=True).stdout
    done = own_dumps.restore(server, site, own_dumps.find(site, written(site, dump)), NEW)
    rest = {"public.parent": 1, "public.child": 2, 'public."año"': 1, "public.secret": 2}
    counted = {name: rows for name, rows in done.rows.items() if rows}
    assert sum(counted[name] for name in moves) == 50
    assert counted.keys() == (moves | rest).keys()
    assert rest.items() <= counted.items()
    with postgres.connect() as connection:
        connection.execute(f"DROP DATABASE {NEW} WITH (FORCE)")
        connection.execute("DROP DATABASE parts WITH (FORCE)")


HOSTILE = {
    "another database": b"\\connect postgres\n",
    "a program": b"COPY sale FROM PROGRAM 'touch /tmp/guardia-was-here';\n",
    "a role": b"CREATE ROLE mallory SUPERUSER;\n",
    "a shell": b"\\! touch /tmp/guardia-was-here\n",
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_dump_that_reaches_for_more_is_refused_and_nothing_is_left(
    server: Server, site: Site, dump: bytes, postgres: PostgresServer, hostile: bytes
) -> None:
    before = left(postgres)
    end = b"--\n-- PostgreSQL database dump complete"
    file = own_dumps.find(site, written(site, dump.replace(end, hostile + end)))
    with pytest.raises(BadBackup):
        own_dumps.restore(server, site, file, NEW)
    assert left(postgres) == before
    assert not Path("/tmp/guardia-was-here").exists()


@pytest.mark.parametrize("hostile", [HOSTILE["a program"], HOSTILE["a role"]])
def test_even_unscreened_the_role_may_not_reach_for_more(
    server: Server, site: Site, dump: bytes, monkeypatch: pytest.MonkeyPatch, hostile: bytes
) -> None:
    monkeypatch.setattr(plain_sql, "screen", lambda chunks, seen: chunks)
    file = own_dumps.find(site, written(site, dump + hostile))
    with pytest.raises(BadBackup, match=r"permission denied|must be superuser"):
        own_dumps.restore(server, site, file, NEW)
    assert not Path("/tmp/guardia-was-here").exists()


CANARY = Path("/tmp/guardia-was-here")
HEAD = b"--\n-- PostgreSQL database dump\n--\n\nSET client_encoding = 'UTF8';\n"
TAIL = b"--\n-- PostgreSQL database dump complete\n--\n\n"
# Runs a program as soon as somebody evaluates evil() who may.
EVIL = """
CREATE FUNCTION public.worse() RETURNS void LANGUAGE plpgsql AS
    $$BEGIN COPY (SELECT) TO PROGRAM 'touch /tmp/guardia-was-here'; END$$;
CREATE FUNCTION public.evil(a integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql AS $$BEGIN
    BEGIN PERFORM set_config('role', 'none', false); EXCEPTION WHEN others THEN END;
    IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN PERFORM public.worse(); END IF;
    RETURN a;
END$$;
"""
FILLED = """
CREATE TABLE public.t (a integer);
COPY public.t (a) FROM stdin;
1
2
\\.

"""


@pytest.fixture
def canary(postgres: PostgresServer) -> Iterator[Path]:
    """What a smuggled command leaves behind; drops the restored database."""
    CANARY.unlink(missing_ok=True)
    yield CANARY
    CANARY.unlink(missing_ok=True)
    with postgres.connect() as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {NEW} WITH (FORCE)")


@pytest.mark.parametrize(
    "indexed",
    ["(public.evil(a))", "((a + public.evil(1)))", "(a) WHERE a > public.evil(1)"],
    ids=["each row's", "the planner's", "a condition's"],
)
def test_functions_of_an_index_never_run_as_the_servers_user(
    server: Server, site: Site, postgres: PostgresServer, canary: Path, indexed: str
) -> None:
    hostile = HEAD + f"{EVIL}{FILLED}CREATE INDEX i ON public.t {indexed};\n".encode() + TAIL
    own_dumps.restore(server, site, own_dumps.find(site, written(site, hostile)), NEW)
    assert not canary.exists()
    with postgres.connect(NEW) as connection:
        query = "SELECT DISTINCT tablename FROM pg_stats WHERE schemaname = 'public'"
        assert ("t",) in connection.execute(query).fetchall()
        query = "SELECT proowner::regrole::text FROM pg_proc WHERE proname = 'evil'"
        assert connection.execute(query).fetchall() == [(USER,)]


def test_a_view_that_is_filled_like_a_table_is_refused_and_its_functions_do_not_run(
    server: Server, site: Site, postgres: PostgresServer, canary: Path
) -> None:
    before = left(postgres)
    view = """
CREATE FUNCTION public.swallow() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$;
CREATE VIEW public.t AS SELECT 1 AS a WHERE public.evil(1) = 1;
CREATE TRIGGER x INSTEAD OF INSERT ON public.t FOR EACH ROW EXECUTE FUNCTION public.swallow();
"""
    hostile = HEAD + (EVIL + view + FILLED[FILLED.index("COPY") :]).encode() + TAIL
    with pytest.raises(BadBackup, match=r"fills public\.t, which is no table"):
        own_dumps.restore(server, site, own_dumps.find(site, written(site, hostile)), NEW)
    assert left(postgres) == before
    assert not canary.exists()


@pytest.mark.parametrize(
    ("setting", "said"), [("'standard_conforming_strings', 'off'", "\\"), ("'client_encoding', 'SJIS'", "Á")]
)
def test_a_dump_whose_functions_change_what_a_string_is_does_not_smuggle_a_command_past_the_screen(
    server: Server, site: Site, canary: Path, setting: str, said: str
) -> None:
    smuggled = f"""
CREATE FUNCTION public.f() RETURNS text LANGUAGE sql AS $$SELECT set_config({setting}, false)$$;
CREATE TABLE public.t (a text DEFAULT public.f(), b integer);
COPY public.t (b) FROM stdin;
1
\\.
COMMENT ON TABLE public.t IS '{said}';
COMMENT ON TABLE public.t IS '
\\! touch {canary}
';
"""  # noqa: S608
    file = own_dumps.find(site, written(site, HEAD + smuggled.encode() + TAIL))
    assert own_dumps.restore(server, site, file, NEW).rows == {"public.t": 1}
    assert not canary.exists()


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_dump_is_refused_and_nothing_is_left(
    server: Server, site: Site, dump: bytes, postgres: PostgresServer, part: float
) -> None:
    before = left(postgres)
    whole = own_dumps.find(site, written(site, dump, "whole.sql.gz"))
    cut = written(site, dump[: int(len(dump) * part)])
    (folder_of(site) / "torn.sql.gz").write_bytes(
        (folder_of(site) / whole.name).read_bytes()[: int(whole.bytes * part)]
    )
    for name in (cut, "torn.sql.gz"):
        with pytest.raises(BadBackup):
            own_dumps.restore(server, site, own_dumps.find(site, name), NEW)
    assert left(postgres) == before


def test_rows_that_did_not_arrive_are_a_bad_backup(
    server: Server, site: Site, dump: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = plain_sql.screen

    def counting_one_more(chunks: Iterable[bytes], seen: Seen) -> Iterator[bytes]:
        yield from screen(chunks, seen)
        seen.rows["public.sale_line"] += 1

    monkeypatch.setattr(plain_sql, "screen", counting_one_more)
    file = own_dumps.find(site, written(site, dump))
    with pytest.raises(BadBackup, match=r"3,000 rows in public\.sale_line, 3,001 expected"):
        own_dumps.restore(server, site, file, NEW)


def test_a_database_that_is_there_already_is_not_touched(
    server: Server, site: Site, dump: bytes, postgres: PostgresServer
) -> None:
    postgres.create(NEW, "CREATE TABLE mine ()")
    with pytest.raises(DatabaseRefused, match="already"):
        own_dumps.restore(server, site, own_dumps.find(site, written(site, dump)), NEW)
    with postgres.connect(NEW) as connection:
        connection.execute("SELECT FROM mine")


def test_what_a_killed_restore_left_is_replaced_by_the_next(
    server: Server, site: Site, dump: bytes, postgres: PostgresServer
) -> None:
    before = left(postgres)
    with postgres.connect() as connection:
        connection.execute(f"CREATE ROLE {NEW}_part LOGIN")
        connection.execute(f"CREATE DATABASE {NEW}_part OWNER {NEW}_part")
    own_dumps.restore(server, site, own_dumps.find(site, written(site, dump)), NEW)
    assert left(postgres) == sorted([*before, NEW])


def test_a_disk_that_is_too_small_is_said_before_anything_is_begun(
    server: Server, site: Site, dump: bytes, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = left(postgres)
    monkeypatch.setattr(own_dumps, "GROWTH", 1 << 40)
    with pytest.raises(NoSpace, match=r"MB free for the database of ferreteria_.*which may need"):
        own_dumps.restore(server, site, own_dumps.find(site, written(site, dump)), NEW)
    assert left(postgres) == before
