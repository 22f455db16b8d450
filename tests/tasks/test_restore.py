"""Restoring archives into new databases, on a real server, with pg_dump's and pg_restore's own programs."""

import hashlib
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from blocks.errors import BadBackup, CommandFailed, ConfigError, DatabaseRefused, DatabaseUnreachable, NoSpace
from blocks.site import Site
from tasks import backups, inventory, manifest, postgres, restore, swap
from tasks.backup import Backup
from tasks.manifest import Archive, Contents, Manifest
from tasks.postgres import Server
from tests import sample
from tests.postgres_server import USER, PostgresServer
from tests.ssh_server import SshServer
from tests.tasks.server import contained

NEW = "shop_new_1"
SHOP = """
    CREATE ROLE clerk;
    CREATE TABLE sale (id int PRIMARY KEY, total numeric NOT NULL);
    INSERT INTO sale SELECT n, n * 1.5 FROM generate_series(1, 20000) AS n;
    ALTER TABLE sale OWNER TO clerk;
    CREATE TABLE move (id int, day int) PARTITION BY RANGE (day);
    CREATE TABLE move_early PARTITION OF move FOR VALUES FROM (0) TO (9);
    INSERT INTO move SELECT n, n % 9 FROM generate_series(1, 5000) AS n;
    CREATE FUNCTION no_more() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'not in a restore'; END$$;
    CREATE TRIGGER no_more BEFORE INSERT ON move FOR EACH ROW EXECUTE FUNCTION no_more();
"""


class Shop:
    """A dumped database, its backup, and the archive as the bucket would give it out."""

    def __init__(self, postgres: PostgresServer, folder: Path, contents: Contents) -> None:
        dump = folder / "dump"
        words = [f"--dbname={postgres.dsn('shop')}", "--format=custom", "--compress=0"]
        raw = subprocess.run([postgres.bin / "pg_dump", *words], check=True, capture_output=True).stdout
        dump.write_bytes(raw)
        self.archive = subprocess.run(["zstd", "-qc", str(dump)], check=True, capture_output=True).stdout
        digest = hashlib.sha256(self.archive).hexdigest()
        self.manifest = Manifest(
            site="tandil", name="2026-11-24T030000Z", database="shop", seconds=1,
            snapshot_at=datetime(2026, 11, 24, 3, tzinfo=UTC), database_bytes=1 << 20, contents=contents,
            globals_sql="",
            archive=Archive(
                key="k", compression="zstd", sha256=digest, bytes=len(self.archive), stored_sha256=digest,
                stored_bytes=len(self.archive),
            ),
        )  # fmt: skip

    def opened(self, site: Site, backup: Backup) -> Iterator[bytes]:
        """As the bucket gives it out: an error at the end if it is not what was backed up."""
        for start in range(0, len(self.archive), 1 << 14):
            yield self.archive[start : start + (1 << 14)]
        if hashlib.sha256(self.archive).hexdigest() != self.manifest.archive.sha256:
            raise BadBackup("The archive is not what was backed up.")

    def backup(self, **changes: object) -> Backup:
        return Backup(
            name=self.manifest.name, manifest=self.manifest.model_copy(update=changes), proof=None, problem=""
        )


@pytest.fixture
def server(ssh_server: SshServer, postgres: PostgresServer) -> Iterator[Server]:
    with contained(ssh_server, postgres) as server:
        yield server


@pytest.fixture
def shop(server: Server, postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    postgres.create("shop", SHOP)
    shop = Shop(postgres, tmp_path, contents(server, "shop"))
    monkeypatch.setattr(backups, "opened", shop.opened)
    monkeypatch.setattr(restore, "SPOOL", f"{tmp_path}/guardia-")
    monkeypatch.setattr(restore, "RESERVE", 0)
    yield shop
    with postgres.connect() as connection:
        for name in ("shop", NEW, NEW + "_part"):
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.execute("DROP ROLE IF EXISTS clerk")


def contents(server: Server, database: str) -> Contents:
    with postgres.connect(server, database) as connection:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        return inventory.take(connection)


@pytest.fixture
def nothing_left(postgres: PostgresServer, shop: Shop, tmp_path: Path) -> Iterator[None]:
    """Databases, roles and files are afterwards what they were before."""
    before = left(postgres, tmp_path)
    yield
    assert left(postgres, tmp_path) == before


def left(postgres: PostgresServer, folder: Path) -> list[str]:
    with postgres.connect() as connection:
        query = "SELECT datname FROM pg_database UNION ALL SELECT rolname FROM pg_roles ORDER BY 1"
        return [row[0] for row in connection.execute(query)] + [str(file) for file in folder.glob("guardia-*")]


def test_the_commands_are_exactly_these() -> None:
    server = Server(sample.site().host, "c0ffee", "owner", sample.site().host.private_key, 5432, "db")
    assert {
        restore.decompressor().line: False,
        restore.at_most(99).line: False,
        restore.spool(server, "/tmp/guardia-x.dump").line: True,
        restore.spooled(server, "/tmp/guardia-x.dump").line: False,
        restore.remove(server, "/tmp/guardia-x.dump").line: True,
        restore.spool_files(server).line: False,
        restore.free(server, "/data").line: False,
        restore.pg_restore(server, "shop_new", "/tmp/guardia-x.dump", restore.PASSES[1]).line: True,
    } == {
        "zstd -dcq": False,
        "head --bytes 99": False,
        "docker exec --interactive c0ffee dd of=/tmp/guardia-x.dump bs=1M status=none": True,
        "docker exec c0ffee stat -c %s /tmp/guardia-x.dump": False,
        "docker exec c0ffee rm -f /tmp/guardia-x.dump": True,
        "docker exec c0ffee find /tmp -maxdepth 1 -name 'guardia-*'": False,
        "docker exec c0ffee df -P -k /tmp /data": False,
        "docker exec c0ffee timeout 21600 pg_restore --exit-on-error --jobs=2 --section=post-data "
        "'--dbname=user=owner port=5432 dbname=shop_new application_name=guardia-restore' /tmp/guardia-x.dump": True,
    }


def test_a_restored_database_is_exactly_what_was_backed_up(
    server: Server, shop: Shop, postgres: PostgresServer, tmp_path: Path
) -> None:
    told: list[float] = []
    with postgres.connect("shop") as connection:
        connection.execute("ALTER TABLE sale OWNER TO CURRENT_USER; DROP ROLE clerk")  # the server lost it
    assert restore.restore(server, sample.site(), shop.backup(), NEW, told.append) > 0
    assert manifest.differences(shop.manifest.contents, contents(server, NEW)) == []
    assert told == sorted(told)
    assert told[-1] == 1
    with postgres.connect() as connection:
        assert connection.execute("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'clerk'").fetchone() == (False,)
        query = "SELECT datname FROM pg_database WHERE datname LIKE 'shop%' ORDER BY 1"
        assert connection.execute(query).fetchall() == [("shop",), (NEW,)]
    assert list(tmp_path.glob("guardia-*")) == []


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("place", [0.0, 0.001, 0.5, 0.9999])
def test_a_flipped_bit_is_refused_and_nothing_is_left(server: Server, shop: Shop, place: float) -> None:
    damaged = bytearray(shop.archive)
    damaged[int(len(damaged) * place)] ^= 1
    shop.archive = bytes(damaged)
    with pytest.raises(BadBackup, match="not what was backed up"):
        restore.restore(server, sample.site(), shop.backup(), NEW)


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("part", [0.0, 0.001, 0.5, 0.9999])
def test_a_truncated_archive_is_refused_and_nothing_is_left(server: Server, shop: Shop, part: float) -> None:
    shop.archive = shop.archive[: int(len(shop.archive) * part)]
    with pytest.raises(BadBackup, match="not what was backed up"):
        restore.restore(server, sample.site(), shop.backup(), NEW)


@pytest.mark.usefixtures("nothing_left")
def test_an_archive_that_is_no_zstd_but_has_the_right_checksum_is_bad(server: Server, shop: Shop) -> None:
    shop.archive = b"x" * 50_000
    archive = shop.manifest.archive.model_copy(update={"sha256": hashlib.sha256(shop.archive).hexdigest()})
    shop.manifest = shop.manifest.model_copy(update={"archive": archive})
    with pytest.raises(BadBackup, match="does not decode"):
        restore.restore(server, sample.site(), shop.backup(), NEW)


@pytest.mark.usefixtures("nothing_left")
def test_an_archive_that_cannot_be_restored_is_bad_and_nothing_is_left(
    server: Server, shop: Shop, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = restore.pg_restore
    monkeypatch.setattr(restore, "pg_restore", lambda on, database, _, part: whole(on, database, "/dev/null", part))
    with pytest.raises(BadBackup, match="pg_restore"):
        restore.restore(server, sample.site(), shop.backup(), NEW)


@pytest.mark.usefixtures("nothing_left")
def test_an_archive_larger_than_its_space_never_fills_the_disk(
    server: Server, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore, "_limit", lambda *_: 70_000)
    with pytest.raises(NoSpace, match="larger than"):
        restore.restore(server, sample.site(), shop.backup(), NEW)


@pytest.mark.usefixtures("nothing_left")
def test_too_little_space_is_seen_before_anything_is_begun(server: Server, shop: Shop, ssh_server: SshServer) -> None:
    with pytest.raises(NoSpace, match=r"needs 1,200,000,000 MB, .*of the same disk"):
        restore.restore(server, sample.site(), shop.backup(database_bytes=10**15), NEW)
    assert not [call for call in ssh_server.calls("docker") if "dd" in call]


@pytest.mark.usefixtures("nothing_left")
def test_a_backup_of_a_newer_postgresql_is_refused(server: Server, shop: Shop) -> None:
    newer = shop.manifest.contents.model_copy(update={"server_version": 990001})
    with pytest.raises(ConfigError, match="made by PostgreSQL 99"):
        restore.restore(server, sample.site(), shop.backup(contents=newer), NEW)


@pytest.mark.usefixtures("nothing_left")
def test_a_backup_without_a_manifest_is_refused_with_what_is_wrong_with_it(server: Server, shop: Shop) -> None:
    with pytest.raises(BadBackup, match="it was forged"):
        restore.restore(
            server, sample.site(), Backup(name="b", manifest=None, proof=None, problem="it was forged"), NEW
        )


def test_a_database_that_is_there_already_is_not_touched(server: Server, shop: Shop, postgres: PostgresServer) -> None:
    postgres.create(NEW, "CREATE TABLE mine ()")
    with pytest.raises(DatabaseRefused, match="already"):
        restore.restore(server, sample.site(), shop.backup(), NEW)
    with postgres.connect(NEW) as connection:
        connection.execute("SELECT FROM mine")


def test_what_a_killed_restore_left_is_replaced_by_the_next(
    server: Server, shop: Shop, postgres: PostgresServer, tmp_path: Path
) -> None:
    postgres.create(NEW + "_part", "CREATE TABLE half ()")
    (tmp_path / f"guardia-{NEW}.dump").write_bytes(b"half")
    restore.restore(server, sample.site(), shop.backup(), NEW)
    assert manifest.differences(shop.manifest.contents, contents(server, NEW)) == []


def test_what_killed_restores_left_is_cleared_and_whole_databases_stay(
    server: Server, shop: Shop, postgres: PostgresServer, tmp_path: Path
) -> None:
    half = swap.names("shop", "01a20fcec643_b").new + "_part"
    others = [swap.names("shop", "01a20fcec643_a").new, "shop_spare_part", "shopping_new_01a20fcec643_b_part"]
    for name in others:
        postgres.create(name)
    postgres.create(half, f"CREATE ROLE {half}")  # an own dump is restored as such a role
    spooled = tmp_path / "guardia-shop_new_2.dump"
    spooled.write_bytes(b"half")
    assert restore.clear(server, "shop") == [half, str(spooled)]
    assert restore.clear(server, "shop") == []
    with postgres.connect() as connection:
        assert connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [half]).fetchone() is None
        for name in others:
            connection.execute(f'DROP DATABASE "{name}"')


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("pg_restore: error: could not execute query: ERROR:  could not create unique index", BadBackup),
        ("pg_restore: error: unrecognized data block type", BadBackup),
        ("ERROR:  could not extend file: No space left on device", NoSpace),
        ("server closed the connection unexpectedly", DatabaseUnreachable),
        ("FATAL:  terminating connection due to administrator command", DatabaseUnreachable),
        ("FATAL:  the database system is in recovery mode", DatabaseUnreachable),
        ("Error response from daemon: No such container: c0ffee", DatabaseUnreachable),
        ("ERROR:  could not resize shared memory segment", DatabaseUnreachable),
        ("pg_restore: error: a worker process died unexpectedly", DatabaseUnreachable),
        ("pg_restore: error: could not read from input file: Input/output error", DatabaseUnreachable),
        ("pg_restore: error: query failed: ERROR:  canceling statement due to lock timeout", DatabaseUnreachable),
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock", DatabaseUnreachable),
        ("OCI runtime exec failed: exec failed: unable to start container process", DatabaseUnreachable),
        ("", DatabaseUnreachable),
    ],
)
def test_a_broken_machine_is_told_from_a_bad_backup(said: str, kind: type[Exception]) -> None:
    assert type(restore.judged(CommandFailed(f"`pg_restore` ended with exit status 1 and said: {said}"))) is kind


def test_space_is_read_as_df_prints_it() -> None:
    text = "Filesystem 1024-blocks Used Available Capacity Mounted on\noverlay 9 8 7 1% /\n/dev/sda1 6 5 4 1% /data\n"
    assert restore.parse_free(text) == (7 * 1024, 4 * 1024)


def test_the_owner_of_a_restored_database_is_the_servers_user(
    server: Server, shop: Shop, postgres: PostgresServer
) -> None:
    restore.restore(server, sample.site(), shop.backup(), NEW)
    with postgres.connect() as connection:
        query = "SELECT datdba::regrole::text FROM pg_database WHERE datname = %s"
        assert connection.execute(query, [NEW]).fetchone() == (USER,)
