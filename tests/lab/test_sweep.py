"""The lab's own knives: sellers that lose nothing silently, and kills, cuts and power cuts that hit their moment."""

import threading
import time
from collections.abc import Iterator

import pytest

from tests.lab import database, faults, sweep
from tests.lab.conftest import ssh
from tests.lab.home import LabError
from tests.lab.served import Guardia, served
from tests.lab.site.invariants import invariants
from tests.lab.vps import PracticeVps, wait_healthy
from tests.lab.writers import Sales, selling

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module", autouse=True)
def _as_before(machine: PracticeVps) -> Iterator[None]:
    """The shop's data as it was, for the tests that come after these."""
    database.keep(machine, "sweep")
    yield
    database.put_back(machine, "sweep")


@pytest.fixture(scope="module")
def guardia(machine: PracticeVps, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guardia]:
    with served(machine, tmp_path_factory.mktemp("sweep")) as running:
        yield running


@pytest.mark.parametrize("clients", [100])
def test_every_acknowledged_sale_survives_a_killed_database_and_the_gap_shows(vps: PracticeVps, clients: int) -> None:
    with selling(vps, clients, f"killed{clients}") as sales:
        time.sleep(1)
        faults.inject(vps, "db-killed")
        wait_healthy(vps)
        before = len(sales.sold)
        time.sleep(2)
    assert len(sales.sold) > before, "they did not come back"
    assert sales.lost(vps, "ferreteria_db") == []
    assert len(sales.gaps()) == clients
    assert 0.2 < max(sales.gaps().values()) < 10
    for name, query in invariants().items():
        assert database.sql(vps, query) == "", name


def test_a_sale_that_was_undone_behind_the_clients_back_counts_as_lost(vps: PracticeVps) -> None:
    with selling(vps, 2, "undone") as sales:
        time.sleep(0.5)
    newest = "DELETE FROM receipt_mail WHERE id = (SELECT max(id) FROM receipt_mail) RETURNING recipient"
    assert [database.sql(vps, newest)] == sales.lost(vps, "ferreteria_db") != []


def test_every_acknowledged_sale_survives_a_power_cut(vps: PracticeVps) -> None:
    with selling(vps, 8, "power") as sales:
        time.sleep(1)
        vps.power_cut()
        wait_healthy(vps)
    assert sales.over is None
    assert sales.sold
    assert sales.lost(vps, "ferreteria_db") == []


def test_what_the_sellers_say_becomes_gaps() -> None:
    sales = Sales()
    for line in ("sold r-0-1 1.0", "sold r-0-2 1.5", "sold r-1-1 1.1", "failed r-1-2 ReadOnly", "over 3.0"):
        sales.hear(line)
    assert sales.gaps() == {"r-0": 1.5, "r-1": pytest.approx(1.9)}
    assert sales.failed == {"ReadOnly": 1}


@pytest.mark.parametrize("count", [3])
def test_a_flow_is_killed_when_the_step_has_just_ended(vps: PracticeVps, guardia: Guardia, count: int) -> None:
    faults.inject(vps, "web-stopped")
    since = sweep.size(guardia)
    with sweep.killed_after(guardia, count) as killer:
        run = guardia.start()
        assert guardia.wait(run)["type"] == "CRASHED"
    ended = sweep.moments(guardia, since=since)
    assert killer.at == (["the beginning", *ended][count])
    assert count <= len(ended) <= count + 1, "the kill came late"
    assert sweep.flow_processes(guardia, run) == []


def test_a_cut_ends_the_connection_in_mid_stream_and_the_next_one_works(vps: PracticeVps) -> None:
    began = time.monotonic()
    cut = threading.Timer(2, sweep.cut_ssh, [vps])
    cut.start()
    assert ssh(vps, "sleep 15").returncode == 255
    cut.join()
    assert time.monotonic() - began < 12
    assert ssh(vps, "true").returncode == 0


def test_silence_hangs_and_ends_with_the_block(vps: PracticeVps) -> None:
    with sweep.silent_ssh(vps):
        assert "timed out" in ssh(vps, "true").stderr
    assert ssh(vps, "true").returncode == 0


def test_a_process_in_a_container_is_waited_for(vps: PracticeVps) -> None:
    vps.shell("docker exec --detach ferreteria_db_prod sleep 7")
    sweep.wait_for_process(vps, "sleep", 5)
    with pytest.raises(LabError, match="no pg_restore ran"):
        sweep.wait_for_process(vps, "pg_restore", 0.5)
