"""Backups that are made, proven and listed by a served Guardia, from a practice VPS into a real bucket."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.seaweed import Store
from tests.lab.served import SITE, Guardia, served
from tests.lab.vps import PracticeVps, down, up

pytestmark = [pytest.mark.lab, pytest.mark.timeout(420)]


@pytest.fixture(scope="module")
def guardia(machine: PracticeVps, s3_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guardia]:
    with served(machine, tmp_path_factory.mktemp("backups"), store=s3_store) as running:
        yield running


@pytest.fixture
def another(lab: str) -> Iterator[PracticeVps]:
    """A second machine, which has the same image."""
    name = f"drills-{os.getpid()}"
    try:
        yield up(name)
    finally:
        down(name)


def backed_up(guardia: Guardia) -> str:
    """Make a backup through the API and return its name."""
    run = guardia.start("daily-backup")
    state = guardia.wait(run)
    assert state["name"] == "Backed up", (state, guardia.timeline(run))
    return str(state["message"].split()[2])


def proven(guardia: Guardia, name: str = "") -> dict[str, Any]:
    return guardia.wait(guardia.start("verify-backup", backup=name))


def test_a_backup_is_made_and_proven_and_leaves_no_trace_of_its_drill(vps: PracticeVps, guardia: Guardia) -> None:
    name = backed_up(guardia)
    assert re.search("runc .* exec --preserve-fds 1 .* pg_dump --format=custom", guardia.log()), (
        "not past Docker's daemon"
    )
    listing = guardia.command("backups").stdout
    assert name in listing and "not yet" in listing
    assert f"{name}.dump.zst" in vps.exec("ls", f"/var/backups/{SITE}/daily")
    before = vps.audit()
    state = proven(guardia)
    assert state["name"] == "Proven", state
    assert "proven" in guardia.command("backups").stdout
    assert [change for change in before.changes() if not change.startswith("docker:")] == []


def test_a_backup_is_proven_on_another_machine_and_production_does_not_notice(
    vps: PracticeVps, another: PracticeVps, s3_store: Store, tmp_path: Path
) -> None:
    host = (
        f'{{ address = "127.0.0.1", port = {another.ssh_port}, private_key = {{ file = "{another.key_file}" }}, '
        f'host_key = "{another.host_key}" }}'
    )
    with served(vps, tmp_path, store=s3_store, drill_host=host) as guardia:
        name = backed_up(guardia)
        here, there = vps.audit(), another.audit()
        state = proven(guardia, name)
        assert state["name"] == "Proven", state
        assert here.changes() == []
        events = there.events()
        assert any(event.startswith("container start guardia-drill-") for event in events), events
        assert [change for change in there.changes() if not change.startswith("docker:")] == []
        said = guardia.command("doctor").stdout
        assert "drill" in said, said
