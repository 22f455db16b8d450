"""Backups that are made, proven and listed by a served Guardia, from a practice VPS into a real bucket."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.seaweed import Store
from tests.lab.served import SITE, Guardia, served
from tests.lab.vps import PracticeVps

pytestmark = [pytest.mark.lab, pytest.mark.timeout(420)]


@pytest.fixture(scope="module")
def guardia(machine: PracticeVps, s3_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guardia]:
    with served(machine, tmp_path_factory.mktemp("backups"), store=s3_store) as running:
        yield running


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
    listing = guardia.command("backups").stdout
    assert name in listing and "not yet" in listing
    assert f"{name}.dump.zst" in vps.exec("ls", f"/var/backups/{SITE}/daily")
    before = vps.audit()
    state = proven(guardia)
    assert state["name"] == "Proven", state
    assert "proven" in guardia.command("backups").stdout
    assert [change for change in before.changes() if not change.startswith("docker:")] == []
