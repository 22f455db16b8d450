"""The database-lost playbook, served and started over REST, against a practice VPS whose database is really broken."""

from collections.abc import Iterator
from typing import Any

import pytest

from tasks import new_cluster
from tasks.steps import acting_limit
from tests.lab import database, faults
from tests.lab.seaweed import Store
from tests.lab.served import SITE, Guardia, served
from tests.lab.sweep import flow_processes, kill
from tests.lab.test_faults import wait_for
from tests.lab.vps import PracticeVps, wait_healthy

pytestmark = [pytest.mark.lab, pytest.mark.timeout(420)]

RESTART, GIVE, FREE = "Restart the database", "Give the database's files back to its user", "Free disk space"
REBUILD = "Restore into a new data folder"
ROWS = "SELECT (SELECT count(*) FROM sale), (SELECT sum(total) FROM sale), (SELECT max(id) FROM sale_line)"


@pytest.fixture(scope="module")
def guardia(machine: PracticeVps, s3_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guardia]:
    with served(machine, tmp_path_factory.mktemp("lost"), store=s3_store, recovery_timeout="10") as running:
        yield running


@pytest.fixture(scope="module")
def proven(guardia: Guardia) -> str:
    """A backup of the shop as it is, proven; returns its name."""
    for job in ("daily-backup", "verify-backup"):
        state = guardia.wait(guardia.start(job))
        assert state["type"] == "COMPLETED", state
    return str(state["message"].split(":")[0])


def answer(guardia: Guardia, run: str, *words: str) -> dict[str, Any]:
    """Wait for the gate and answer it as Ana; returns what was asked."""
    assert guardia.wait_for_gate(run)["name"] == "Suspended", guardia.timeline(run)
    done = guardia.command("approve", run, "--as", "Ana", *words)
    assert done.returncode == 0, done.stderr
    guardia.wait(run, lambda state: state["type"] != "PAUSED")
    return next(entry for entry in guardia.timeline(run) if entry["kind"] == "asked")


def healed(vps: PracticeVps, guardia: Guardia, run: str, *acts: str) -> None:
    """The run ends as Resolved after exactly these acts, and the site is healthy."""
    state = guardia.wait(run)
    assert state["name"] == "Resolved", (state, guardia.timeline(run))
    wait_healthy(vps, 5)
    assert guardia.acts(run) == list(acts)


def test_a_stopped_database_is_started_again_without_asking(vps: PracticeVps, guardia: Guardia) -> None:
    faults.inject(vps, "db-stopped")
    run = guardia.start("database-lost")
    healed(vps, guardia, run, RESTART)
    assert "asked" not in {entry["kind"] for entry in guardia.timeline(run)}


def test_files_of_another_user_are_given_back_after_one_approval(vps: PracticeVps, guardia: Guardia) -> None:
    rows = database.sql(vps, ROWS)
    faults.inject(vps, "volume-owner")
    run = guardia.start("database-lost")
    asked = answer(guardia, run)
    assert f"chown --recursive {database.OWNER} {database.DATA}" in asked["detail"]["commands"]
    assert f"now 1000:1000 700 {database.DATA}" in asked["text"]
    healed(vps, guardia, run, RESTART, GIVE)
    assert database.sql(vps, ROWS) == rows


def test_a_refusal_leaves_the_files_as_they_are(vps: PracticeVps, guardia: Guardia) -> None:
    faults.inject(vps, "volume-owner")
    run = guardia.start("database-lost")
    answer(guardia, run, "--refuse", "--reason", "I want to look first")
    assert guardia.wait(run)["name"] == "Refused"
    guardia.retry(run)  # an answer is good once
    answer(guardia, run, "--refuse", "--reason", "I still look")
    assert guardia.wait(run)["name"] == "Refused"
    assert guardia.acts(run) == [RESTART]
    assert vps.shell(f"stat -c %u:%g {database.DATA}").strip() == "1000:1000"


def test_a_disk_full_of_log_is_freed_by_dropping_the_slot_that_holds_it(vps: PracticeVps, guardia: Guardia) -> None:
    rows, reserved = database.sql(vps, ROWS), vps.shell("tune2fs -l $(findmnt -n -o SOURCE /) | grep 'Reserved block'")
    faults.inject(vps, "disk-full-by-wal")
    run = guardia.start("database-lost")
    asked = answer(guardia, run)
    assert "drops the replication slot forgotten_replica" in asked["text"]
    assert not any("pg_wal" in command for command in asked["detail"]["commands"])
    healed(vps, guardia, run, RESTART, f"{FREE} for the database")
    assert database.sql(vps, "SELECT count(*) FROM pg_replication_slots") == "0"
    assert int(vps.shell(f"du -sm {database.DATA}/pg_wal").split()[0]) <= 288, "what the slot held is still there"
    assert vps.shell("tune2fs -l $(findmnt -n -o SOURCE /) | grep 'Reserved block'") == reserved
    assert database.sql(vps, ROWS) == rows


def test_a_corrupted_cluster_is_replaced_by_the_newest_proven_backup_and_kept(
    vps: PracticeVps, guardia: Guardia, proven: str
) -> None:
    """Killed on the way, it has changed nothing; the retry goes on and asks nothing again."""
    rows = database.sql(vps, ROWS)
    faults.inject(vps, "cluster-corrupted")
    inode = vps.shell(f"stat -c %i {database.DATA}")
    assert guardia.wait(guardia.start("database-lost", mode="plan"))["name"] == "Planned"
    assert vps.shell(f"stat -c %i {database.DATA}") == inode, "plan mode changed something"

    run = guardia.start("database-lost")
    asked = answer(guardia, run)
    kept = f"/var/backups/{SITE}/volumes/{run}"
    assert proven in asked["what"]
    assert f"mv --no-target-directory {database.DATA} {kept}" in asked["detail"]["commands"]
    assert "was restored and found exact" in asked["text"]
    wait_for("the backup to be restored", lambda: "pg_restore" in vps.shell("ps -eo args"))
    kill(flow_processes(guardia, run))
    assert guardia.wait(run)["type"] == "CRASHED"
    assert vps.shell(f"stat -c %i {database.DATA}") == inode, "the old folder was moved before the new one was whole"
    guardia.retry(run, frees=acting_limit(SITE))
    healed(vps, guardia, run, RESTART, REBUILD)
    assert sum(entry["kind"] == "asked" for entry in guardia.timeline(run)) == 1
    left = f"ls -d {database.DATA}.guardia-new 2>/dev/null; docker ps -aq --filter label={new_cluster.LABEL}"
    assert vps.shell(left) == ""
    assert database.sql(vps, ROWS) == rows
    assert vps.shell(f"stat -c %i {kept}") == inode, "the old folder is not what was kept"
    assert database.sql(
        vps, "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE NOT datistemplate"
    ) == ("ferreteria_db postgres")
    vps.exec("rm", "-r", kept)
