"""Restore, drill and swap on a practice VPS, with its own Docker and its own PostgreSQL, while clients sell."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from blocks.errors import BadBackup, NoSpace
from blocks.site import Site
from tasks import (
    backups,
    bucket,
    cluster,
    drill,
    dump,
    envelope,
    inventory,
    keeping,
    manifest,
    own_dumps,
    postgres,
    proving,
    restore,
    s3,
    snapshot,
    ssh,
    swap,
)
from tasks.backup import Backup
from tasks.postgres import Server
from tests import sample
from tests.lab.outside import see
from tests.lab.seaweed import Store, seaweed
from tests.lab.served import env_prod
from tests.lab.test_faults import wait_for
from tests.lab.vps import PracticeVps, wait_healthy
from tests.lab.writers import Sales, selling

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("prefect_server")]
LIVE = "ferreteria_db"
INVARIANTS = (Path(__file__).parent / "site" / "invariants.sql").read_text()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with seaweed(tmp_path_factory.mktemp("s3") / "data") as store:
        yield store


@pytest.fixture(scope="module")
def site(machine: PracticeVps, store: Store) -> Iterator[Site]:
    host = {
        "address": "127.0.0.1", "port": machine.ssh_port, "private_key": machine.key_file.read_text(),
        "host_key": machine.host_key,
    }  # fmt: skip
    database = {
        "name": LIVE, "user": "ferreteria_user", "password": env_prod("POSTGRES_PASSWORD"), "invariants": INVARIANTS,
    }  # fmt: skip
    site = sample.site(host=host, database=database, backups=store.settings(), own_scripts={})
    yield site
    ssh.close(site.host)


@pytest.fixture(scope="module")
def backup(site: Site) -> Backup:
    """A backup of the shop as it was before all tests."""
    name = bucket.new_name(datetime.now(UTC))
    keeping.commit.fn(site, dump.dump.fn(site, name, "daily", dump.space.fn(site)))
    return backups.find(site, name)


@pytest.fixture
def server(vps: PracticeVps, site: Site) -> Iterator[Server]:
    """Production, with the databases that a test made removed afterwards."""
    server = postgres.production(site)
    yield server
    with cluster.maintenance(server) as connection:
        for name in cluster.named(connection, f"{LIVE}_"):
            cluster.drop(connection, name)


def traces(vps: PracticeVps) -> str:
    """Containers, networks, volumes, and what lies in the database container's temporary folder."""
    return vps.shell(
        "docker ps --all --format '{{.Names}}' | sort; docker network ls --format '{{.Name}}' | sort;"
        "docker volume ls -q; docker exec ferreteria_db_prod ls /tmp"
    )


def go_on(sales: Sales) -> None:
    """Wait until the clients sell again."""
    enough = len(sales.sold) + 50
    wait_for("50 more sales", lambda: len(sales.sold) > enough)


def test_a_backup_is_proven_and_the_drill_leaves_no_trace(vps: PracticeVps, site: Site, backup: Backup) -> None:
    before = traces(vps)
    proof = proving.prove.fn(site, backup.name)
    assert proof.verdict == "proven", proof.words
    assert proof.tables == 18
    assert proof.rows > 100_000
    assert len(proof.invariants) == 9
    assert 0 < proof.restore_seconds < 60
    assert backup.manifest is not None
    assert proof.manifest_sha256 == envelope.digest(backup.manifest)
    assert traces(vps) == before


def test_a_flipped_bit_in_the_bucket_is_a_bad_backup_and_leaves_no_trace(
    vps: PracticeVps, site: Site, backup: Backup, server: Server
) -> None:
    assert backup.manifest is not None and site.backups is not None
    before, key = traces(vps), backup.manifest.archive.key
    whole = b"".join(s3.stream(site.backups, key))
    damaged = bytearray(whole)
    damaged[len(damaged) // 2] ^= 1
    s3.put(site.backups, key, bytes(damaged))
    try:
        proof = proving.prove.fn(site, backup.name)
        with pytest.raises(BadBackup):
            restore.restore(server, site, backup, swap.names(LIVE, "damaged").new)
    finally:
        s3.put(site.backups, key, whole)
    assert proof.verdict == "bad"
    assert "not what was backed up" in proof.words
    assert traces(vps) == before
    with cluster.maintenance(server) as connection:
        assert cluster.named(connection, LIVE) == [LIVE]


def test_what_a_killed_drill_left_is_gone_after_the_next(vps: PracticeVps, site: Site) -> None:
    before = traces(vps)
    killed = drill.drill(site)
    killed.__enter__()
    assert traces(vps) != before
    with drill.drill(site) as server, postgres.connect(server, "postgres") as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert traces(vps) == before


def test_a_drill_reaches_nothing_and_is_bounded(vps: PracticeVps, site: Site) -> None:
    with drill.drill(site) as server:
        said = vps.shell(
            f"docker inspect --format '{{{{.HostConfig.Memory}}}} {{{{.HostConfig.NanoCpus}}}} {{{{.Args}}}}' "
            f"{server.container}; ps -ef"
        )
        assert said.startswith("536870912 1000000000 ")
        assert server.password.get_secret_value() not in said
        out = "timeout 3 bash -c 'echo > /dev/tcp/ca.ferreteria.test/14000' && echo out"
        assert "out" not in vps.shell(f"docker exec {server.container} {out}", check=False)


def test_the_sites_own_dump_is_proven(vps: PracticeVps, site: Site) -> None:
    vps.shell("rm -f /var/backups/ferreteria/daily/*; cd /root/ferreteria && infra/backups/backup_db.sh", timeout=120)
    file = own_dumps.files(site)[0]
    before = traces(vps)
    proof = proving.prove.fn(site, file.name)
    assert proof.verdict == "proven", proof.words
    assert (proof.tables, len(proof.invariants)) == (18, 9)
    vps.shell(f"cd /var/backups/ferreteria/daily && zcat {file.name} | head -c 5000000 | gzip > torn.sql.gz")
    assert proving.prove.fn(site, "torn.sql.gz").verdict == "bad"
    assert traces(vps) == before


def test_too_little_space_is_said_before_anything_is_begun(
    vps: PracticeVps, site: Site, backup: Backup, server: Server
) -> None:
    free = int(vps.shell("df --output=avail -B1 /var/lib/docker | tail -1"))
    vps.shell(f"fallocate -l {free - (300 << 20)} /root/filler")
    try:
        with pytest.raises(NoSpace, match="of the same disk"):
            restore.restore(server, site, backup, swap.names(LIVE, "full").new)
    finally:
        vps.shell("rm /root/filler")


# Seconds that a client may have to wait: a hundred share what eight have for themselves.
GAPS = {8: 1, 100: 5}


@pytest.mark.parametrize("clients", GAPS)
def test_a_swap_and_its_undoing_under_selling_clients_lose_no_sale(
    vps: PracticeVps, site: Site, backup: Backup, server: Server, clients: int
) -> None:
    names = swap.names(LIVE, f"{clients:012x}_lab")
    restore.restore(server, site, backup, names.new)
    with snapshot.shared(server, names.new) as state:
        assert backup.manifest is not None
        assert manifest.differences(backup.manifest.contents, inventory.take(*state.sessions)) == []
    with selling(vps, clients, "swap") as sales:
        before = len(sales.sold)
        closed = swap.swap(server, names)
        assert see(vps.https_port, vps.ca_file).healthy
        go_on(sales)
    print(f"{clients} clients: closed for {closed:.3f} s, longest gap {max(sales.gaps().values()):.3f} s")
    assert before and max(sales.gaps().values()) <= GAPS[clients]
    assert sales.lost(vps, names.live, names.kept) == []
    assert sales.lost(vps, names.live)  # some went into the kept one
    with selling(vps, clients, "undo") as more:
        swap.undo(server, names)
        go_on(more)
    assert max(more.gaps().values()) <= GAPS[clients]
    assert more.lost(vps, names.live, names.undone) == []
    assert sales.lost(vps, names.live, names.undone) == []
    wait_healthy(vps, 30)
