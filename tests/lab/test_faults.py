"""Every fault breaks the machine in the way that it says, and is healed again."""

import time
from collections.abc import Callable

import pytest

from tests.lab import database, faults
from tests.lab.conftest import ssh
from tests.lab.database import COMPOSE, DATA
from tests.lab.home import LabError
from tests.lab.outside import Seen, see
from tests.lab.vps import PracticeVps, wait_healthy

pytestmark = pytest.mark.lab


ROWS = """
    SELECT (SELECT sum(hashtextextended(s::text, 0)::numeric) FROM sale s),
        (SELECT sum(hashtextextended(p::text, 0)::numeric) FROM sale_payment p),
        (SELECT sum(hashtextextended(p::text, 0)::numeric) FROM product p)"""  # changes with any row of the three


def shows(symptom: str, seen: Seen) -> bool:
    """Whether what one sees from outside is what the fault promises."""
    if symptom == "healthy":
        return seen.healthy
    if symptom == "timeout":
        return seen.status is None and "Timeout" in seen.text
    if symptom == "refused":
        return seen.status is None and "Timeout" not in seen.text
    return str(seen.status) in symptom.split(" or ")


def watch(vps: PracticeVps, symptom: str, seconds: float = 30, times: int = 2) -> None:
    """Look from outside until `symptom` shows `times` times in a row."""
    deadline = time.monotonic() + seconds
    row = 0
    while row < times:
        seen = see(vps.https_port, vps.ca_file, timeout=7)
        row = row + 1 if shows(symptom, seen) else 0
        assert time.monotonic() < deadline, f"wanted {symptom}, saw {seen}"
        time.sleep(0.2)


def wait_for(what: str, so: Callable[[], bool], seconds: float = 40) -> None:
    """Wait until `so`, which may fail with LabError meanwhile (a machine that boots)."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if so():
                return
        except LabError:
            pass
        time.sleep(0.2)
    pytest.fail(f"{what}: not after {seconds} s")


# What each fault does to the data: a query, and its answer while the site is healthy and while it is broken.
DAMAGE = {
    "tenant-sales-deleted": (
        "SELECT count(*) FILTER (WHERE tenant_id = 3) > 0, count(*) FILTER (WHERE tenant_id <> 3) > 90000 FROM sale",
        "t|t",
        "f|t",
    ),
    "column-overwritten": ("SELECT count(DISTINCT price) > 100, count(*) FROM product", "t|1200", "f|1200"),
    "table-dropped": ("SELECT to_regclass('sale_payment')", "sale_payment", ""),
    "heap-truncated": ("SELECT count(*) > 50000 FROM sale", "t", "f"),
}
# What the server says of a table that it cannot read.
REFUSED = {"heap-garbled": ("SELECT sum(total) FROM sale", "invalid page in block")}
# What the log of a database that will not start says.
LAST_WORDS = {
    "cluster-corrupted": "incorrect checksum in control file",
    "volume-owner": "Permission denied",
    "disk-full-by-wal": "No space left on device",
}


@pytest.mark.parametrize("name", [name for name in faults.FAULTS if name not in {*DAMAGE, *REFUSED, *LAST_WORDS}])
def test_a_fault_shows_outside_as_it_says_and_heals(vps: PracticeVps, name: str) -> None:
    faults.inject(vps, name)
    watch(vps, faults.FAULTS[name].symptom)
    assert faults.injected(vps) == [name]
    faults.heal(vps)
    assert faults.injected(vps) == []
    assert ssh(vps, "true").returncode == 0


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_data_looks_healthy_outside_and_healing_brings_every_row_back(vps: PracticeVps, name: str) -> None:
    query, whole, damaged = DAMAGE[name]
    assert database.sql(vps, query) == whole
    before = database.sql(vps, ROWS)
    faults.inject(vps, name)
    watch(vps, faults.FAULTS[name].symptom)
    assert database.sql(vps, query) == damaged
    faults.heal(vps)
    assert database.sql(vps, ROWS) == before


@pytest.mark.parametrize("name", REFUSED)
def test_a_table_that_cannot_be_read_leaves_the_shop_healthy_and_healing_brings_every_row_back(
    vps: PracticeVps, name: str
) -> None:
    query, refused = REFUSED[name]
    before = database.sql(vps, ROWS)
    faults.inject(vps, name)
    watch(vps, faults.FAULTS[name].symptom)
    with pytest.raises(LabError, match=refused):
        database.sql(vps, query)
    faults.heal(vps)
    assert database.sql(vps, ROWS) == before


@pytest.mark.parametrize("name", LAST_WORDS)
def test_a_database_that_will_not_start_says_why_and_no_restart_cures_it(vps: PracticeVps, name: str) -> None:
    before = database.sql(vps, ROWS)
    faults.inject(vps, name)
    watch(vps, faults.FAULTS[name].symptom)
    ssh(vps, f"{COMPOSE} restart db", timeout=60)
    wait_for("its last words", lambda: LAST_WORDS[name] in vps.shell(f"docker logs --tail 20 {database.DB} 2>&1"))
    watch(vps, faults.FAULTS[name].symptom, times=5)
    faults.heal(vps)
    assert database.sql(vps, ROWS) == before


def test_ownership_given_back_cures_a_volume_of_another_user(vps: PracticeVps) -> None:
    faults.inject(vps, "volume-owner")
    watch(vps, "500")
    assert ssh(vps, f"chown -R {database.OWNER} {DATA}").returncode == 0
    wait_healthy(vps, 60)  # Docker goes on trying


def test_space_lets_a_database_start_that_its_log_has_stopped_and_dropping_the_slot_frees_the_disk(
    vps: PracticeVps,
) -> None:
    faults.inject(vps, "disk-full-by-wal")
    watch(vps, "500")
    ssh(vps, "docker rm old-import", timeout=60)
    wait_healthy(vps, 60)
    log_size = "SELECT sum(size) / 1000000 FROM pg_ls_waldir()"
    held = float(database.sql(vps, log_size))
    database.sql(vps, "SELECT pg_drop_replication_slot('forgotten_replica')")
    vps.shell(f"docker exec {database.DB} psql -q -U ferreteria_user -d ferreteria_db -c CHECKPOINT")
    assert float(database.sql(vps, log_size)) < held - 200


@pytest.mark.parametrize("name", ["web-stopped", "web-hung", "nginx-broken", "all-stopped", "memory-runaway"])
def test_a_restart_of_all_services_cures(vps: PracticeVps, name: str) -> None:
    faults.inject(vps, name)
    watch(vps, faults.FAULTS[name].symptom)
    assert ssh(vps, f"{COMPOSE} restart", timeout=60).returncode == 0
    wait_healthy(vps, 30)


def test_a_full_disk_is_cured_by_pruning_and_not_by_a_restart(vps: PracticeVps) -> None:
    faults.inject(vps, "disk-full")
    assert "No space left on device" in vps.shell("dd if=/dev/zero of=/root/x bs=1M count=1 2>&1; rm -f /root/x")
    assert int(vps.shell("df --output=pcent / | tail -1").strip().removesuffix("%")) == 100
    ssh(vps, f"{COMPOSE} restart", timeout=60)
    watch(vps, "500 or 502", times=10)
    images = vps.shell("docker images -q | sort -u | wc -l; docker volume ls -q")
    assert ssh(vps, "docker system prune -f", timeout=60).returncode == 0
    left = vps.shell("docker images -q | sort -u | wc -l; docker volume ls -q")
    assert int(images.split()[0]) == int(left.split()[0]) + 1  # the dangling one
    assert images.split()[1:] == left.split()[1:]
    ssh(vps, f"{COMPOSE} restart", timeout=60)
    wait_healthy(vps, 30)


def test_a_wedged_docker_hangs_and_only_a_reboot_brings_the_site_back(vps: PracticeVps) -> None:
    faults.inject(vps, "docker-wedged")
    assert ssh(vps, "timeout 3 docker ps").returncode == 124
    before = vps.boot_id()
    ssh(vps, "reboot")
    wait_for("a new boot id", lambda: vps.boot_id() != before)
    wait_healthy(vps, 60)


def test_faults_add_up(vps: PracticeVps) -> None:
    faults.inject(vps, "web-stopped")
    faults.inject(vps, "ssh-key-refused")
    watch(vps, "502")
    assert "Permission denied" in ssh(vps, "true").stderr
    assert faults.injected(vps) == ["web-stopped", "ssh-key-refused"]


def test_a_changed_host_key_is_refused(vps: PracticeVps) -> None:
    faults.inject(vps, "host-key-changed")
    assert "IDENTIFICATION HAS CHANGED" in ssh(vps, "true").stderr.upper() or "verification failed" in ssh(vps).stderr


def test_an_unreachable_machine_times_out_on_ssh_too(vps: PracticeVps) -> None:
    faults.inject(vps, "unreachable")
    assert "timed out" in ssh(vps, "true").stderr.lower()


def test_a_fault_that_does_not_exist_is_refused_with_the_names_of_those_that_do(vps: PracticeVps) -> None:
    with pytest.raises(LabError, match="web-stopped"):
        faults.inject(vps, "moon-fell-down")
