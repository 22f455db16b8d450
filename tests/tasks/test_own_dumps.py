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
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "daily"
    folder.mkdir()
    return folder


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
