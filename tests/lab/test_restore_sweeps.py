"""data_corruption, interrupted everywhere: after every step, and in the middle of restore, safety dump and swap.

One run is struck again and again, and retried as the UI's Retry does; it must end as Resolved with every committed
sale in the live or the kept database, and with no act done twice.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tasks.steps import acting_limit
from tests.lab import faults
from tests.lab.database import sql
from tests.lab.seaweed import Store
from tests.lab.served import SITE, Guardia, served
from tests.lab.sweep import acts_done, cut_ssh, flow_processes, kill, killed_after
from tests.lab.test_data_corruption import letters
from tests.lab.vps import PracticeVps, wait_healthy
from tests.lab.writers import Sales, selling

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]
LIVE = "ferreteria_db"
NO_GATES: dict[str, Any] = {"gates_restore": '"none"', "gates_notify": '"none"'}
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
STRUCK: Counter[str] = Counter()  # how often what was struck, for the summary
RUNS: list[tuple[int, int, int]] = []  # of each run: interruptions, rows lost, acts twice
# The act that gets the data back, how many databases are kept after it, and how many tenants at least are written to.
WAYS = {"whole restore": ("Put the restored database in the live one's place", 1, 2), "rescue": ("Put rows back", 0, 1)}
# As often as a try failed and started the web service again, or was cut off in the swap.
AGAIN = {
    "Stop the web service", "Start the web service again as it was", "Let clients connect to the database again",
}  # fmt: skip
# Once a try: what was saved in a try that failed lacks what was sold since.
SAVED = {
    "Dump the database into the bucket", "Write the manifest", "Keep the newest copies on the VPS",
    "Remove what retention lets go",
}  # fmt: skip


def summary() -> list[str]:
    """What the sweeps counted, for the end of the session."""
    struck, lost, twice = (sum(column) for column in zip(*RUNS, strict=True)) if RUNS else (0, 0, 0)
    how = ", ".join(f"{count} {what}" for what, count in STRUCK.items())
    line = (
        f"restore sweep: {sum(STRUCK.values())} interruptions ({how}); {struck} finished by the same run "
        f"or its retry, rows lost {lost}, acts twice {twice}"
    )
    return [line] if STRUCK else []


@pytest.fixture(scope="module")
def guardia(machine: PracticeVps, s3_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guardia]:
    folder = tmp_path_factory.mktemp("sweeps")
    with served(machine, folder, store=s3_store, **NO_GATES) as running:
        assert running.wait(running.start("daily-backup"))["name"] == "Backed up"
        assert running.wait(running.start("verify-backup"))["name"] == "Proven"
        yield running


@pytest.fixture
def seeded(vps: PracticeVps) -> str:
    """The sales of before the damage, as a checksum; then a tenant's are deleted."""
    rows = checksum(vps)
    faults.inject(vps, "tenant-sales-deleted")
    return rows


def checksum(vps: PracticeVps) -> str:
    """Of everything that the seed sold, whatever was sold since."""
    return sql(vps, "SELECT count(*), md5(string_agg(s::text, '|' ORDER BY id)) FROM sale s WHERE id <= 100000")


def settled(vps: PracticeVps, guardia: Guardia, run: str, before: str, *sellers: Sales, kept: int = 1) -> None:
    """The run is Resolved, the site healthy, `kept` databases are there besides, no sale is lost, no act done twice."""
    state = guardia.wait(run)
    assert state["name"] == "Resolved", (state, guardia.timeline(run)[-4:])
    wait_healthy(vps)
    assert checksum(vps) == before
    names = sql(vps, "SELECT datname FROM pg_database WHERE datname ~ '^ferreteria' ORDER BY 1").splitlines()
    assert len(names) == 1 + kept and all("_old_" in name for name in names[1:]), names
    lost = [token for sales in sellers for token in sales.lost(vps, *names)]
    assert lost == []
    assert any(sales.sold for sales in sellers), "nobody sold anything"
    done = acts_done(guardia, run)
    tries = done["Start the web service again as it was"] + 1
    twice = {what: n for what, n in done.items() if what not in AGAIN and n > (tries if what in SAVED else 1)}
    assert twice == {}
    assert done["Stop the web service"] == done["Start the web service again as it was"] + 1
    assert vps.shell("docker inspect -f '{{.State.Running}}' ferreteria_web_prod").strip() == "true"
    RUNS.append((sum(STRUCK.values()) - sum(row[0] for row in RUNS), len(lost), len(twice)))


@contextmanager
def web_events(vps: PracticeVps) -> Iterator[Callable[[], Counter[str]]]:
    """Counts how often the web container was stopped and started; Docker itself remembers only its last 256 events."""
    only = "--filter container=ferreteria_web_prod --filter event=stop --filter event=start"
    vps.shell(f"setsid docker events {only} --format '{{{{.Action}}}}' > /run/web-events 2>&1 < /dev/null & sleep 0.3")
    try:
        yield lambda: Counter(vps.shell("cat /run/web-events").split())
    finally:
        vps.shell("pkill -f '^docker events --filter container=ferreteria_web_prod'", check=False)


@pytest.mark.parametrize("how", WAYS)
def test_killed_after_every_step_in_turn_the_same_run_ends_resolved(
    vps: PracticeVps, guardia: Guardia, seeded: str, how: str
) -> None:
    act, kept, at_least = WAYS[how]
    written = Counter(letters(vps))
    with selling(vps, 1, "killed", pause=0.1, tenants=2) as sales, web_events(vps) as events:
        run, struck = "", []
        for count in range(60):
            with killed_after(guardia, count) as killer:
                if run:
                    guardia.retry(run, frees=acting_limit(SITE))
                else:
                    run = guardia.start("data-corruption", how=how)
                state = guardia.wait(run)
            if killer.at is None:
                break
            assert state["type"] == "CRASHED", (state, killer)
            STRUCK["flow killed after a step"] += 1
            struck.append(killer.at)
        settled(vps, guardia, run, seeded, sales, kept=kept)
        assert events() == {"stop": 1, "start": 1}
    new = Counter(letters(vps)) - written
    assert len(new) >= at_least and set(new.values()) == {1}, "a tenant was written to twice"
    assert act in struck and len(struck) > 20, struck


def kill_flow(_: PracticeVps, guardia: Guardia) -> None:
    kill(flow_processes(guardia))


def kill_postmaster(vps: PracticeVps, _: Guardia) -> None:
    vps.shell("kill -9 $(docker inspect -f '{{.State.Pid}}' ferreteria_db_prod)")


def cut_connections(vps: PracticeVps, _: Guardia) -> None:
    cut_ssh(vps)


def cut_power(vps: PracticeVps, _: Guardia) -> None:
    vps.power_cut()


BLOWS: dict[str, Callable[[PracticeVps, Guardia], None]] = {
    "flow killed": kill_flow, "SSH cut": cut_connections, "PostgreSQL killed": kill_postmaster, "power cut": cut_power,
}  # fmt: skip
ENDING = {"flow killed", "power cut"}  # the run cannot get over these by itself
PROGRAMS = {"the restore": "pg_restore", "the safety dump": "pg_dump"}
PSQL = "docker exec ferreteria_db_prod psql -X -q -A -t -U ferreteria_user -d postgres"


def strike(vps: PracticeVps, guardia: Guardia, run: str, moment: str, blow: str) -> None:
    """Strike the run in the moment, once; if it has ended before, it is retried until the moment comes."""
    before = "|".join(["none", *vps.shell(f"pgrep -x {PROGRAMS[moment]}", check=False).split()])  # of a try that died
    look = f"pgrep -x {PROGRAMS[moment]} | grep -vxE '{before}' > /dev/null"
    deadline = time.monotonic() + 120
    if guardia.get(f"/flow_runs/{run}")["state"]["type"] in FINAL:
        retry(vps, guardia, run)
    while "yes" not in vps.shell(f"for _ in $(seq 100); do {look} && echo yes && exit; sleep 0.02; done", check=False):
        assert time.monotonic() < deadline, (moment, blow, guardia.timeline(run)[-3:])
        if guardia.get(f"/flow_runs/{run}")["state"]["type"] in FINAL:
            retry(vps, guardia, run)
    BLOWS[blow](vps, guardia)
    STRUCK[f"{blow} in {moment}"] += 1


def retry(vps: PracticeVps, guardia: Guardia, run: str) -> None:
    """As a person would: when the machine and its database are there again."""
    deadline = time.monotonic() + 60
    while "1" not in vps.shell(f"{PSQL} -c 'SELECT 1'", check=False):
        assert time.monotonic() < deadline, "the database did not come back"
        time.sleep(0.5)
    assert guardia.get(f"/flow_runs/{run}")["state"]["name"] != "Resolved", "it ended before it was struck"
    guardia.retry(run, frees=acting_limit(SITE))


def finish(vps: PracticeVps, guardia: Guardia, run: str) -> None:
    """Retry until it is Resolved; twice must do."""
    for _ in range(2):
        if guardia.wait(run)["name"] == "Resolved":
            return
        retry(vps, guardia, run)


def test_struck_in_the_middle_of_restore_and_dump_the_same_run_ends_resolved(
    vps: PracticeVps, guardia: Guardia, seeded: str
) -> None:
    with selling(vps, 2, "struck", pause=0.1, tenants=2) as sales:
        time.sleep(1)
        run = guardia.start("data-corruption", how="whole restore")
        for moment in ("the restore", "the safety dump"):
            for blow in BLOWS:
                strike(vps, guardia, run, moment, blow)
                if blow in ENDING:
                    assert guardia.wait(run)["name"] != "Resolved"
    finish(vps, guardia, run)
    settled(vps, guardia, run, seeded, sales)


def test_struck_between_the_two_renames_the_same_run_ends_resolved(
    vps: PracticeVps, guardia: Guardia, seeded: str
) -> None:
    def strike_again(blow: str) -> None:
        if guardia.get(f"/flow_runs/{run}")["state"]["type"] in FINAL:
            retry(vps, guardia, run)
        with between_the_renames(vps, "_new_"):
            BLOWS[blow](vps, guardia)
            STRUCK[f"{blow} between the renames"] += 1
            if blow in ENDING:
                assert guardia.wait(run)["name"] != "Resolved"

    with selling(vps, 2, "renames", pause=0.1, tenants=2) as sales:
        time.sleep(1)
        run = guardia.start("data-corruption", how="whole restore")
        strike_again("flow killed")
        strike_again("power cut")  # which ends the sellers too
    with selling(vps, 2, "renames-again", pause=0.1, tenants=2) as more:
        strike_again("PostgreSQL killed")
        if guardia.wait(run)["name"] != "Resolved":  # else its own second try was late enough
            strike_again("SSH cut")
        finish(vps, guardia, run)
    settled(vps, guardia, run, seeded, sales, more)


@contextmanager
def between_the_renames(vps: PracticeVps, incoming: str) -> Iterator[None]:
    """The block begins when the live database is renamed, not yet committed, and the other rename waits for a lock.

    The lock is taken the moment the live database is closed: before that it would hold up what comes earlier.
    """
    hold = f"""DO $$ DECLARE new text; BEGIN
        WHILE new IS NULL LOOP
            PERFORM pg_sleep(0.001);
            SELECT datname INTO new FROM pg_database WHERE datname ~ '{incoming}' AND EXISTS
                (SELECT FROM pg_database WHERE datname = '{LIVE}' AND NOT datallowconn);
        END LOOP;
        EXECUTE format('COMMENT ON DATABASE %I IS $c$held$c$', new);
        PERFORM pg_sleep(300);
    END $$"""  # noqa: S608 - of the test's own words
    waits = "SELECT 'yes' FROM pg_locks WHERE NOT granted AND classid = 'pg_database'::regclass"
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ~ 'held' AND pid <> pg_backend_pid()"
    vps.exec("docker", "exec", "--detach", *PSQL.split()[2:], "-c", hold)
    try:
        until(vps, waits)
        yield
    finally:
        vps.exec(*PSQL.split(), "-c", end, check=False)


def until(vps: PracticeVps, query: str, seconds: float = 180) -> None:
    """Wait until the query answers."""
    deadline = time.monotonic() + seconds
    while not vps.exec(*PSQL.split(), "-c", query, check=False).strip():
        assert time.monotonic() < deadline, f"{query} has no answer after {seconds:.0f} s"
