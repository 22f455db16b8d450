"""The backup-failed playbook, served and started over REST, against a practice VPS and a real bucket."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.lab import faults
from tests.lab.seaweed import Store
from tests.lab.served import Guardia, served
from tests.lab.vps import PracticeVps

pytestmark = [pytest.mark.lab, pytest.mark.timeout(420)]

RESUME, ADD_LINE = "Resume the backup schedule", "Put the cron line back"
CRON = "/etc/cron.d/ferreteria"


@pytest.fixture(scope="module")
def guardia(machine: PracticeVps, s3_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guardia]:
    with served(machine, tmp_path_factory.mktemp("failed"), store=s3_store) as running:
        yield running


@pytest.fixture
def cron(vps: PracticeVps) -> Iterator[str]:
    """The crontab as it is, and as it will be after the test."""
    table = vps.exec("cat", CRON)
    yield table
    faults.heal(vps)
    vps.exec("tee", CRON, input=table)


def schedules(guardia: Guardia, job: str) -> tuple[str, list[dict[str, Any]]]:
    found = guardia.get(f"/deployments/name/{job}/guardia")
    return found["id"], found["schedules"]


def pause(guardia: Guardia, job: str) -> None:
    deployment, rows = schedules(guardia, job)
    for row in rows:
        url = f"{guardia.api}/deployments/{deployment}/schedules/{row['id']}"
        httpx.patch(url, json={"active": False}).raise_for_status()


def test_a_backup_is_made_and_proven_and_both_schedules_put_right(
    vps: PracticeVps, guardia: Guardia, cron: str
) -> None:
    faults.inject(vps, "web-cron-gone")
    pause(guardia, "daily-backup")
    assert guardia.wait(guardia.start("backup-failed", mode="plan"))["name"] == "Planned"
    assert "There is no backup yet" in guardia.command("backups").stdout, "plan mode made a backup"

    run = guardia.start("backup-failed")
    while guardia.wait_for_gate(run)["type"] == "PAUSED":
        done = guardia.command("approve", run, "--as", "Ana")
        assert done.returncode == 0, done.stderr
        guardia.wait(run, lambda state: state["type"] != "PAUSED")
    state = guardia.wait(run)
    assert state["name"] == "Resolved", (state, guardia.timeline(run))
    assert "was made and proven" in state["message"]
    assert [act for act in guardia.acts(run) if act in {RESUME, ADD_LINE}] == [RESUME, ADD_LINE]
    assert guardia.acts(run).count("Dump the database into the bucket") == 1, "a resumed run backed up again"
    assert all(row["active"] for row in schedules(guardia, "daily-backup")[1])
    line = next(line for line in cron.splitlines() if "backup_db.sh" in line)
    assert vps.exec("cat", CRON).splitlines().count(line) == 1


def test_when_all_is_in_order_it_is_a_false_alarm(vps: PracticeVps, guardia: Guardia) -> None:
    mark = vps.audit()
    run = guardia.start("backup-failed")
    state = guardia.wait(run)
    assert (state["name"], state["message"]) == ("False alarm", "The backups are in order.")
    assert guardia.acts(run) == []
    assert mark.changes() == []


def test_a_refused_schedule_stays_paused_and_the_backup_is_there(vps: PracticeVps, guardia: Guardia) -> None:
    pause(guardia, "verify-backup")
    run = guardia.start("backup-failed")
    assert guardia.wait_for_gate(run)["name"] == "Suspended"
    done = guardia.command("approve", run, "--as", "Ana", "--refuse", "--reason", "a migration is under way")
    assert done.returncode == 0, done.stderr
    state = guardia.wait(run)
    assert state["name"] == "Refused"
    assert not any(row["active"] for row in schedules(guardia, "verify-backup")[1])
    assert guardia.command("backups").stdout.count("proven") >= 2
