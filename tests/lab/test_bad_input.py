"""What is wrong with a name, a backup, a dump, a key or a query, on a practice VPS: it works exactly or is refused.

Each ends in a clear error or a verdict before anything live has changed.
"""

import base64
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from blocks.errors import BadBackup, ConfigError, DatabaseRefused
from blocks.site import Site
from tasks import backups, bucket, dump, keeping, proving, restoring, s3, ssh
from tasks.backup import Backup
from tasks.command import Plan
from tests import sample, stored
from tests.lab import faults
from tests.lab.database import DB, sql
from tests.lab.seaweed import Store
from tests.lab.served import Guardia, env_prod, served
from tests.lab.vps import PracticeVps, wait_healthy

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900), pytest.mark.usefixtures("prefect_server")]
LIVE = "ferreteria_db"
PLAN = Plan(what="", where="", commands=(), cost="")
OWN_FOLDER = "/var/backups/ferreteria/daily"
EXOTIC = (Path(__file__).parents[1] / "exotic.sql").read_text()
ANOTHER_KEY = base64.b64encode(bytes(32)).decode()
PSQL = ("docker", "exec", "-i", DB, *["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-U", "ferreteria_user", "-d"])

Sites = Callable[..., Site]


@pytest.fixture(scope="module")
def sites(machine: PracticeVps, s3_store: Store) -> Iterator[Sites]:
    """The shop as a site: `database` and `bucket` replace settings of [database] and [backups]."""
    made: list[Site] = []

    def site(name: str = "tandil", *, database: dict[str, Any] | None = None, **bucket: Any) -> Site:
        host = {
            "address": "127.0.0.1", "port": machine.ssh_port, "private_key": machine.key_file.read_text(),
            "host_key": machine.host_key,
        }  # fmt: skip
        wanted = {"name": LIVE, "user": "ferreteria_user", "password": env_prod("POSTGRES_PASSWORD")}
        store = s3_store.settings(**{"copies": 0, "prefix": "bad-input", "encryption_key": stored.KEY, **bucket})
        made.append(
            sample.site(name=name, host=host, database=wanted | (database or {}), backups=store, own_scripts={})
        )
        return made[-1]

    yield site
    for each in made:
        ssh.close(each.host)


def backed_up(site: Site, name: str = "") -> Backup:
    name = name or bucket.new_name(datetime.now(UTC))
    keeping.commit.fn(site, dump.dump.fn(site, name, "daily", dump.space.fn(site)))
    return backups.find(site, name)


@pytest.fixture(scope="module")
def site(sites: Sites) -> Site:
    return sites()


@pytest.fixture(scope="module")
def backup(site: Site) -> Backup:
    """A backup of the shop, encrypted and signed."""
    return backed_up(site, "2026-11-20T030000Z")


@pytest.fixture
def untouched(vps: PracticeVps) -> Iterator[PracticeVps]:
    """The machine, on which after the test there is nothing but what was there before."""
    before = traces(vps)
    yield vps
    assert traces(vps) == before


def traces(vps: PracticeVps) -> str:
    """Containers, networks, the server's databases and roles, and what lies in its container's temporary folder."""
    query = "SELECT datname::text FROM pg_database UNION ALL SELECT rolname FROM pg_roles ORDER BY 1"
    return (
        vps.shell(
            "docker ps --all --format '{{.Names}} {{.State}}' | sort; docker network ls --format '{{.Name}}' | sort;"
            f"docker exec {DB} ls /tmp"
        )
        + sql(vps, query)
        + sql(vps, "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables")
    )


def test_a_name_that_is_not_there_is_refused_with_those_that_are(
    untouched: PracticeVps, site: Site, backup: Backup
) -> None:
    with pytest.raises(ConfigError, match=f"no backup '2020-01-01T000000Z'; the newest: .*{backup.name}"):
        proving.prove.fn(site, "2020-01-01T000000Z")
    untouched.shell(f"mkdir -p {OWN_FOLDER}")
    with pytest.raises(ConfigError, match="no backup"):
        restoring._restore_beside(PLAN, site, "2020-01-01T000000Z")
    for function in (proving.prove.fn, lambda *words: restoring._restore_beside(PLAN, *words)):
        with pytest.raises(ConfigError, match=r"has no nope\.sql\.gz"):
            function(site, "nope.sql.gz")


def test_a_backup_of_another_site_is_bad(untouched: PracticeVps, site: Site, sites: Sites, backup: Backup) -> None:
    other = sites("azul")
    assert site.backups and backup.manifest
    for file in ("archive", "manifest.json"):
        mine = bucket.archive_key(site, backup.name).removesuffix("archive") + file
        content = b"".join(s3.stream(site.backups, mine))
        s3.put(site.backups, bucket.archive_key(other, backup.name).removesuffix("archive") + file, content)
    proof = proving.prove.fn(other, backup.name)
    assert proof.verdict == "bad" and "wrong signature" in proof.words
    with pytest.raises(BadBackup, match="wrong signature"):
        restoring._restore_beside(PLAN, other, backup.name)


def test_a_backup_that_a_newer_postgresql_made_is_refused(untouched: PracticeVps, site: Site, backup: Backup) -> None:
    assert site.backups and backup.manifest
    name = "2026-11-21T030000Z"
    contents = backup.manifest.contents.model_copy(update={"server_version": 990001})
    newer = backup.manifest.model_copy(update={"name": name, "contents": contents})
    key = bucket.archive_key(site, name)
    stolen = b"".join(s3.stream(site.backups, backup.manifest.archive.key))
    s3.put(site.backups, key, stolen)
    archive = newer.archive.model_copy(update={"key": key})
    keeping.commit.fn(site, newer.model_copy(update={"archive": archive}))
    with pytest.raises(ConfigError, match=r"was made by PostgreSQL 99, and .* is 15"):
        restoring._restore_beside(PLAN, site, name)
    with pytest.raises(ConfigError, match="was made by PostgreSQL 99"):
        proving.prove.fn(site, name)
    s3.delete(site.backups, [key.removesuffix("archive") + "manifest.json", key])


def test_a_wrong_encryption_key_opens_nothing(untouched: PracticeVps, sites: Sites, backup: Backup) -> None:
    wrong = sites(encryption_key=ANOTHER_KEY)
    with pytest.raises(BadBackup, match="made with another encryption_key"):
        restoring._restore_beside(PLAN, wrong, backup.name)
    assert proving.prove.fn(wrong, backup.name).verdict == "bad"


HOSTILE = {
    "connect": r"\connect postgres",
    "program": "COPY public.tenant FROM PROGRAM 'touch /tmp/owned';",
    "shell": r"\! touch /tmp/owned",
    "role": "CREATE ROLE owned SUPERUSER;",
}


@pytest.fixture(scope="module")
def hostile(machine: PracticeVps) -> Iterator[Callable[[str], str]]:
    """Makes a dump of empty tables, as the site's script makes them, with a line put into it."""
    options = "-U ferreteria_user -d ferreteria_db --no-owner --no-acl --clean --if-exists --section=pre-data"

    def file(line: str) -> str:
        machine.exec("tee", "/root/line", input=f"{line}\n")
        machine.shell(
            f"mkdir -p {OWN_FOLDER}; docker exec {DB} pg_dump {options} | sed '/^SET row_security/r /root/line' "
            f"| gzip > {OWN_FOLDER}/hostile.sql.gz; rm /root/line"
        )
        return "hostile.sql.gz"

    yield file
    machine.shell(f"rm -f {OWN_FOLDER}/hostile.sql.gz")


@pytest.mark.parametrize("what", HOSTILE)
def test_a_dump_that_would_do_more_than_fill_tables_is_refused_and_nothing_of_it_is_run(
    untouched: PracticeVps, site: Site, hostile: Callable[[str], str], what: str
) -> None:
    with pytest.raises(BadBackup, match="line"):
        restoring._restore_beside(PLAN, site, hostile(HOSTILE[what]))


@pytest.mark.parametrize("what", ["connect", "program"])
def test_verifying_such_a_dump_says_that_it_is_bad(
    untouched: PracticeVps, site: Site, hostile: Callable[[str], str], what: str
) -> None:
    proof = proving.prove.fn(site, hostile(HOSTILE[what]))
    assert proof.verdict == "bad" and "line" in proof.words


def test_a_dump_without_harm_is_restored(vps: PracticeVps, site: Site, hostile: Callable[[str], str]) -> None:
    """So that it was the line that was refused."""
    name = hostile("SET row_security = off;")
    assert "as the file says" in restoring._restore_beside(PLAN, site, name)
    restoring._drop_beside(PLAN, site, name)


def test_an_invariant_that_does_not_hold_makes_a_backup_bad_and_is_named(
    untouched: PracticeVps, sites: Sites, backup: Backup
) -> None:
    strict = sites(database={"invariants": "-- name: nobody ever sells\nSELECT * FROM sale LIMIT 3;\n"})
    proof = proving.prove.fn(strict, backup.name)
    assert (proof.verdict, proof.words) == ("bad", "nobody ever sells: 3 rows")


def test_an_invariant_that_cannot_be_asked_is_a_mistake_in_the_site_file(
    untouched: PracticeVps, sites: Sites, backup: Backup
) -> None:
    wrong = sites(database={"invariants": "-- name: no ghosts\nSELECT * FROM ghost;\n"})
    with pytest.raises(ConfigError, match=r"invariant 'no ghosts' cannot be asked.*ghost"):
        proving.prove.fn(wrong, backup.name)


@pytest.fixture
def database(vps: PracticeVps) -> Iterator[Callable[..., str]]:
    """Makes a database in the shop's server with these statements; it and the roles made are gone at the end."""
    roles = set(sql(vps, "SELECT rolname FROM pg_roles").splitlines())
    made: list[str] = []

    def create(name: str, statements: str, options: str = "") -> str:
        made.append(name)
        vps.exec(*PSQL, "postgres", "-c", f'CREATE DATABASE "{name}" TEMPLATE template0 {options}')
        vps.exec(*PSQL, name, "-o", "/dev/null", input=statements)
        return name

    yield create
    for name in made:
        vps.exec(*PSQL, "postgres", "-c", f'DROP DATABASE "{name}"')
    for role in set(sql(vps, "SELECT rolname FROM pg_roles").splitlines()) - roles:
        sql(vps, f'DROP ROLE "{role}"')


def test_one_of_everything_is_backed_up_proven_and_restored_exactly(
    vps: PracticeVps, sites: Sites, database: Callable[..., str]
) -> None:
    """Tables without primary key and without rows, json, arrays, enums, large objects, partitions and the rest."""
    name = database("exotic", 'CREATE ROLE "Cajera Ñandú";\n' + EXOTIC)
    site = sites(database={"name": name}, prefix="exotic")
    backup = backed_up(site)
    assert backup.manifest is not None
    tables = backup.manifest.contents.tables.values()
    assert any(not table.key for table in tables) and any(not table.rows for table in tables)
    assert backup.manifest.contents.large_objects.count == 3
    proof = proving.prove.fn(site, backup.name)
    assert proof.verdict == "proven", proof.words
    assert "found exact" in restoring._restore_beside(PLAN, site, backup.name)
    restoring._drop_beside(PLAN, site, backup.name)


def test_rows_that_the_dumps_role_may_not_see_are_no_backup(
    vps: PracticeVps, sites: Sites, database: Callable[..., str]
) -> None:
    statements = """
        CREATE TABLE secret (id int PRIMARY KEY, owner text);
        ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON secret USING (owner = current_user);
        CREATE ROLE dumper LOGIN PASSWORD 'dumper';
        GRANT SELECT ON secret TO dumper;
    """
    name = database("walls", statements)
    site = sites(database={"name": name, "user": "dumper", "password": "dumper"}, prefix="walls")
    with pytest.raises(DatabaseRefused, match=r"Row level security hides rows of public\.secret from dumper"):
        dump.space.fn(site)
    assert backups.every(site) == []


def test_text_in_no_known_encoding_is_refused(vps: PracticeVps, sites: Sites, database: Callable[..., str]) -> None:
    name = database("bytes", "CREATE TABLE t (id int PRIMARY KEY);", "ENCODING 'SQL_ASCII' LOCALE 'C'")
    with pytest.raises(DatabaseRefused, match="SQL_ASCII: nothing says what its text means"):
        dump.space.fn(sites(database={"name": name}, prefix="bytes"))


# --- the site's own files, by a served Guardia ----------------------------------------------------------------


@pytest.fixture(scope="module")
def guardia(machine: PracticeVps, s3_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guardia]:
    folder = tmp_path_factory.mktemp("own")
    with served(machine, folder, store=s3_store, gates_restore='"none"', gates_notify='"none"') as running:
        yield running


@pytest.fixture
def own_file(vps: PracticeVps) -> str:
    """What the site's own script makes."""
    vps.shell(f"rm -f {OWN_FOLDER}/*; /root/ferreteria/infra/backups/backup_db.sh", timeout=120)
    return vps.exec("ls", OWN_FOLDER).strip()


def sales(vps: PracticeVps) -> str:
    return sql(vps, "SELECT count(*), md5(string_agg(s::text, '|' ORDER BY id)) FROM sale s")


def test_a_file_of_the_sites_own_script_is_verified_and_restored_whole(
    vps: PracticeVps, guardia: Guardia, own_file: str
) -> None:
    said = guardia.command("verify", own_file, timeout=400)
    assert said.returncode == 0 and "Proven" in said.stdout, said.stdout + said.stderr
    before = sales(vps)
    faults.inject(vps, "tenant-sales-deleted")
    damaged = sales(vps)
    assert damaged != before
    web = vps.shell("docker inspect -f '{{.State.StartedAt}}' ferreteria_web_prod")
    said = guardia.command("restore", "nope.sql.gz", timeout=200)
    assert said.returncode == 1 and f"There are: {own_file}." in said.stdout, said.stdout
    assert vps.shell("docker inspect -f '{{.State.StartedAt}}' ferreteria_web_prod") == web
    said = guardia.command("restore", own_file, timeout=600)
    assert said.returncode == 0 and "as the file says" in said.stdout, said.stdout + said.stderr
    assert sales(vps) == before
    (kept,) = sql(vps, "SELECT datname FROM pg_database WHERE datname LIKE '%_old_%'").splitlines()
    assert sql(vps, "SELECT count(*) FROM sale", kept) == damaged.split("|")[0]
    wait_healthy(vps)
