"""daily_backup, interrupted everywhere: after every step and in mid-dump, by kills, S3, SSH, power, disk and server.

After each blow the same run, its retry or the next run makes a whole backup, nothing is left that looks like one and
is none, and no act was done twice. The upload is slowed down for as long as a blow needs to hit its middle.
"""

import mailbox
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from blocks.errors import BadBackup, DatabaseRefused, StoreRefused
from blocks.site import Site
from tasks import backups, bucket, copies, dump, keeping, ssh
from tests import sample
from tests.lab import faults, stores
from tests.lab.database import sql
from tests.lab.seaweed import Store
from tests.lab.served import SITE, Guardia, env_prod, served
from tests.lab.stores import Proxy
from tests.lab.sweep import acts_done, cut_ssh, flow_processes, kill, killed_after, wait_for_process
from tests.lab.test_faults import wait_for
from tests.lab.vps import PracticeVps, wait_healthy
from tests.lab.writers import selling

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]
FOLDER = f"/var/backups/{SITE}/daily"
LIMIT = "guardia-daily-backup-" + SITE
SLOW = 1_500_000  # bytes a second: an upload takes half a minute
MIDDLE = 3_000_000  # bytes uploaded, while the dump of 40 MB is still being written
NOISE = """
CREATE TABLE noise (id integer PRIMARY KEY, bytes bytea);
ALTER TABLE noise ALTER bytes SET STORAGE EXTERNAL;
INSERT INTO noise SELECT row, (SELECT string_agg(decode(md5(random()::text || row || part), 'hex'), '')
                               FROM generate_series(1, 512) part) FROM generate_series(1, 5000) row
"""
CLERK = """
CREATE ROLE clerk LOGIN PASSWORD 'clerk';
GRANT SELECT ON ALL TABLES IN SCHEMA public TO clerk;
GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO clerk;
ALTER TABLE sale ENABLE ROW LEVEL SECURITY
"""
STRUCK: list[str] = []  # each interruption
FINISHED: list[str] = []  # for each, who made the backup then: the "same" run, or the "next"
TWICE: list[str] = []  # acts done more than once in a run
HALF: list[str] = []  # what looks like a backup and is none


def summary() -> list[str]:
    """What the suite prints at its end."""
    if not STRUCK:
        return []
    same = FINISHED.count("same")
    return [
        f"backup sweep: {len(STRUCK)} interruptions, {same} finished by the same run or its retry, "
        f"{len(FINISHED) - same} by the next, {len(TWICE)} acts twice, {len(HALF)} half backups"
    ]


@pytest.fixture(scope="module")
def s3(s3_store: Store) -> Iterator[Proxy]:
    with stores.proxy(s3_store) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def guardia(machine: PracticeVps, s3: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guardia]:
    sql(machine, NOISE)  # what no compressor makes smaller
    try:
        with served(machine, tmp_path_factory.mktemp("backup-sweeps"), store=s3.store, drill_memory="512") as running:
            yield running
    finally:
        sql(machine, "DROP TABLE noise")


@pytest.fixture(scope="module")
def site(machine: PracticeVps, s3_store: Store, guardia: Guardia) -> Iterator[Site]:
    """The same site, for what needs no run; its bucket is never broken."""
    host = {
        "address": "127.0.0.1", "port": machine.ssh_port, "private_key": machine.key_file.read_text(),
        "host_key": machine.host_key,
    }  # fmt: skip
    database = {"name": "ferreteria_db", "user": "ferreteria_user", "password": env_prod("POSTGRES_PASSWORD")}
    made = sample.site(host=host, database=database, backups=s3_store.settings(prefix=guardia.folder.name))
    yield made
    ssh.close(made.host)


@dataclass(frozen=True)
class Stage:
    """A machine, the Guardia that backs it up, its bucket behind a proxy, and the bucket itself."""

    vps: PracticeVps
    guardia: Guardia
    s3: Proxy
    store: Store
    site: Site


@pytest.fixture
def on(vps: PracticeVps, guardia: Guardia, s3: Proxy, s3_store: Store, site: Site) -> Iterator[Stage]:
    """All of it, and whole again after the test."""
    yield Stage(vps, guardia, s3, s3_store, site)
    s3.well()


def with_settings(site: Site, part: str, **changes: Any) -> Site:
    """The same site after a change of one part of its file."""
    return Site.model_validate(site.model_dump() | {part: getattr(site, part).model_dump() | changes})


# --- what must hold after each --------------------------------------------------------------------------------


def alarms(vps: PracticeVps, ended: str = "Failed") -> int:
    """How often the primary was told that a backup ended so."""
    wanted = ("ana@ferreteria.test", f"ALARM - daily-backup on {SITE}: {ended}")
    return sum((str(one["To"]), str(one["Subject"])) == wanted for one in mailbox.Maildir(vps.mail, create=False))


def whole(on: Stage, run: str) -> None:
    """The run has made a backup, did nothing twice, and nothing half is left anywhere."""
    state = on.guardia.wait(run)
    assert state["name"] == "Backed up", (state, on.guardia.timeline(run)[-4:])
    name = str(state["message"].split()[2])
    assert backups.find(on.site, name).problem == ""
    done = acts_done(on.guardia, run)
    TWICE.extend(what for what, count in done.items() if count > 1)
    assert [what for what, count in done.items() if count > 1] == []
    left = half(on)
    HALF.extend(left)
    assert left == []


def names(site: Site) -> list[str]:
    """Of all backups that are listed."""
    return [backup.name for backup in backups.every(site)]


def half(on: Stage) -> list[str]:
    """What looks like a backup and is none, and what a cut short one left; sessions get a moment to end."""
    assert on.site.backups is not None
    found = [f"{backup.name}: {backup.problem}" for backup in backups.every(on.site) if backup.problem]
    found += stores.unfinished(on.store, on.site.backups.prefix)
    found += on.vps.shell(f"ls {FOLDER} | grep part || true").split()
    deadline = time.monotonic() + 10
    while (sessions := dumping(on.vps)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found + sessions


def dumping(vps: PracticeVps) -> list[str]:
    query = "SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'guardia-dump-%'"
    return sql(vps, query).split()


@contextmanager
def in_mid_dump(on: Stage) -> Iterator[str]:
    """A run whose dump is half on its way, and slow until the block ends."""
    before = on.s3.uploaded
    on.s3.slow(SLOW)
    run = on.guardia.start("daily-backup")
    wait_for("the upload", lambda: on.s3.uploaded > before + MIDDLE, 60)
    yield run
    on.s3.well()


# --- killed ---------------------------------------------------------------------------------------------------


def test_killed_after_every_step_in_turn_the_same_run_makes_one_backup(on: Stage) -> None:
    run = ""
    for count in range(20):
        with killed_after(on.guardia, count) as killer:
            if run:
                on.guardia.retry(run, frees=LIMIT)
            else:
                run = on.guardia.start("daily-backup")
            state = on.guardia.wait(run)
        if killer.at is None or state["type"] != "CRASHED":
            break
        STRUCK.append(f"killed after {killer.at}")
    assert count >= 6, STRUCK
    FINISHED.extend(["same"] * count)
    whole(on, run)
    proof = on.guardia.wait(on.guardia.start("verify-backup"))
    assert proof["name"] == "Proven", proof


def begun(on: Stage) -> str:
    run = on.guardia.start("daily-backup")
    wait_for_process(on.vps, "pg_dump")
    kill(flow_processes(on.guardia, run))
    return run


def half_way(on: Stage) -> str:
    with in_mid_dump(on) as run:
        kill(flow_processes(on.guardia, run))
    return run


def uploaded(on: Stage) -> str:
    with killed_after(on.guardia, 4, "command") as killer:
        run = on.guardia.start("daily-backup")
        on.guardia.wait(run)
    assert killer.at is not None and "pg_dumpall" in killer.at, killer
    return run


@pytest.mark.parametrize(
    ("moment", "who"), [(begun, "same"), (half_way, "same"), (half_way, "next"), (uploaded, "next")]
)
def test_killed_in_the_dump_it_leaves_nothing_once_it_was_retried_or_another_ran(
    on: Stage, moment: Callable[[Stage], str], who: str
) -> None:
    told = alarms(on.vps, "Crashed")
    run = moment(on)
    assert on.guardia.wait(run)["type"] == "CRASHED"
    STRUCK.append(f"killed when {moment.__name__}")
    assert [backup.problem for backup in backups.every(on.site) if backup.problem] == []
    if who == "same":
        on.guardia.retry(run, frees="" if moment is half_way else LIMIT)
    else:
        on.guardia.post("/v2/concurrency_limits/decrement", {"names": [LIMIT], "slots": 1})
        run = on.guardia.start("daily-backup")
    FINISHED.append(who)
    whole(on, run)
    if who == "next":  # nobody retried it
        wait_for("an alarm", lambda: alarms(on.vps, "Crashed") > told, 60)


# --- cut, refused, full ---------------------------------------------------------------------------------------


def refused(on: Stage) -> str:
    on.s3.refuse()
    return on.guardia.start("daily-backup")


def clock_skewed(on: Stage) -> str:
    on.s3.skew_clock()
    return on.guardia.start("daily-backup")


def dead_in_mid_upload(on: Stage) -> str:
    on.s3.die_after(8_000_000)
    return on.guardia.start("daily-backup")


def cut_off_again_and_again(on: Stage) -> str:
    with in_mid_dump(on) as run:
        while on.guardia.get(f"/flow_runs/{run}")["state"]["type"] == "RUNNING":
            cut_ssh(on.vps)
            time.sleep(0.5)
    return run


def disk_filled(on: Stage) -> str:
    with in_mid_dump(on) as run:
        most = "fallocate -l $(($(stat -f -c '%f*%S' /) - (4 << 20))) /root/filler"  # what root alone may use, too
        on.vps.shell(f"{most}; dd if=/dev/zero of=/root/rest bs=64k || true")
    try:
        on.guardia.wait(run)
    finally:
        on.vps.shell("rm -f /root/filler /root/rest")
    return run


@pytest.mark.parametrize(
    ("fault", "words", "cure"),
    [
        (refused, "does not answer", "Check endpoint in [backups]"),
        (clock_skewed, "RequestTimeTooSkewed", "see timedatectl"),
        (dead_in_mid_upload, "does not answer", "Check endpoint in [backups]"),
        (cut_off_again_and_again, r"connection to 127\.0\.0\.1 was lost|over SSH|on its SSH connection", ""),
        (disk_filled, "No space left on device", ""),
    ],
)
def test_what_stops_a_backup_is_named_and_told_and_the_next_one_is_whole(
    on: Stage, fault: Callable[[Stage], str], words: str, cure: str
) -> None:
    told, before = alarms(on.vps), names(on.site)
    run = fault(on)
    state = on.guardia.wait(run)
    STRUCK.append(fault.__name__)
    print(fault.__name__, state["name"], state["message"], flush=True)
    assert state["name"] == "Failed", state
    assert re.search(words, state["message"]) and cure in state["message"], state["message"]
    assert alarms(on.vps) == told + 1
    assert names(on.site) == before, "a failed backup is listed"
    on.s3.well()
    wait_healthy(on.vps)
    FINISHED.append("next")
    whole(on, on.guardia.start("daily-backup"))


def test_one_cut_and_some_errors_of_a_slow_bucket_do_not_stop_it(on: Stage) -> None:
    told = alarms(on.vps)
    with in_mid_dump(on) as run:
        cut_ssh(on.vps)
        STRUCK.append("cut once")
        on.s3.cut_after(1_000_000)
        STRUCK.append("upload cut once")
        time.sleep(2)
        on.s3.busy(3)
        STRUCK.append("three times 503")
        time.sleep(2)
        on.s3.slow(4 * SLOW)
        state = on.guardia.wait(run)
    assert state["name"] == "Backed up", state
    FINISHED.extend(["same"] * 3)
    whole(on, run)
    assert alarms(on.vps) == told


def server_killed(vps: PracticeVps) -> None:
    faults.inject(vps, "db-killed")


def power_cut(vps: PracticeVps) -> None:
    vps.power_cut()


@pytest.mark.parametrize("fault", [server_killed, power_cut])
def test_what_comes_back_by_itself_is_backed_up_by_the_same_run_or_the_next(
    on: Stage, fault: Callable[[PracticeVps], None]
) -> None:
    told = alarms(on.vps)
    with in_mid_dump(on) as run:
        fault(on.vps)
        state = on.guardia.wait(run)
    STRUCK.append(fault.__name__)
    print(fault.__name__, state["name"], state["message"], flush=True)
    same = state["name"] == "Backed up"
    assert same or alarms(on.vps) == told + 1
    FINISHED.append("same" if same else "next")
    wait_healthy(on.vps)
    whole(on, run if same else on.guardia.start("daily-backup"))


def test_without_space_for_a_copy_the_backup_is_made_without(on: Stage) -> None:
    before = on.vps.shell(f"ls {FOLDER}").split()
    on.vps.shell("fallocate -l $(($(stat -f -c '%a*%S' /) - (300 << 20))) /root/filler")
    try:
        run = on.guardia.start("daily-backup")
        whole(on, run)
    finally:
        on.vps.shell("rm /root/filler")
    assert on.vps.shell(f"ls {FOLDER}").split() == before
    looked = next(entry for entry in on.guardia.timeline(run) if entry["what"] == "Check space and connection")
    assert "NO copy" in looked["outcome"]


# --- without a run --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("prefect_server")
def test_an_archive_that_the_bucket_loses_is_no_backup_before_the_commit_and_a_bad_one_after(on: Stage) -> None:
    before = names(on.site)
    lost = dump.name_it.fn(on.site, "daily")
    made = dump.dump.fn(on.site, lost, "daily", dump.space.fn(on.site))
    stores.lose(on.store, made.archive.key)
    with pytest.raises(BadBackup, match=r"no bytes where \d+ were written.*Back up again"):
        keeping.commit.fn(on.site, made)
    assert names(on.site) == before
    again = dump.dump.fn(on.site, lost, "daily", dump.space.fn(on.site))
    keeping.commit.fn(on.site, again)
    stores.lose(on.store, again.archive.key)
    with pytest.raises(BadBackup, match="is lost"):
        backups.find(on.site, lost)
    for left in stores.keys(on.store, again.archive.key.removesuffix("archive")):
        stores.lose(on.store, left)


@pytest.mark.usefixtures("prefect_server")
def test_a_daily_backup_ends_what_a_daily_one_left_and_not_what_a_playbook_saves_meanwhile(on: Stage) -> None:
    lefts = [f"2026-01-0{day}T030000Z{kind}" for day, kind in ((1, ""), (2, "-safety"))]
    assert on.site.backups is not None
    for left in lefts:
        session = f'psql -U ferreteria_user "dbname=ferreteria_db application_name=guardia-dump-{left}"'
        on.vps.shell(f"docker exec --detach ferreteria_db_prod {session} -c 'SELECT pg_sleep(120)'")
        on.vps.shell(f"touch {FOLDER}/{left}.dump.part")
        key = bucket.archive_key(on.site, left)
        stores.s3(on.store).create_multipart_upload(Bucket=on.store.bucket, Key=key)
    wait_for("two sessions", lambda: len(dumping(on.vps)) == 2)
    name = dump.name_it.fn(on.site, "daily")
    keeping.commit.fn(on.site, dump.dump.fn(on.site, name, "daily", dump.space.fn(on.site)))
    copies.prune.fn(on.site, name)
    left = lefts[1]
    try:
        assert half(on) == [bucket.archive_key(on.site, left), f"{left}.dump.part", f"guardia-dump-{left}"]
    finally:
        keeping.abandon(on.site, "safety")
        on.vps.shell(f"rm -f {FOLDER}/*.part")
        sql(
            on.vps,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'guardia-dump-%'",
        )


def test_wrong_credentials_are_named_before_anything_is_begun(on: Stage) -> None:
    with pytest.raises(StoreRefused, match="access_key_id and secret_access_key"):
        dump.space.fn(with_settings(on.site, "backups", secret_access_key="another"))


def test_row_level_security_that_hides_rows_is_refused_before_anything_is_begun(on: Stage) -> None:
    sql(on.vps, CLERK)
    try:
        with pytest.raises(DatabaseRefused, match="sale"):
            dump.space.fn(with_settings(on.site, "database", user="clerk", password="clerk"))
    finally:
        sql(on.vps, "ALTER TABLE sale DISABLE ROW LEVEL SECURITY; DROP OWNED BY clerk; DROP ROLE clerk")


# --- written to -----------------------------------------------------------------------------------------------


def test_a_backup_under_a_hundred_selling_clients_is_exact(on: Stage) -> None:
    with selling(on.vps, 100, "backup") as sales:
        began = len(sales.sold)
        run = on.guardia.start("daily-backup")
        whole(on, run)
        sold = len(sales.sold) - began
    assert sold > 100
    name = str(on.guardia.wait(run)["message"].split()[2])
    proof = on.guardia.wait(on.guardia.start("verify-backup", backup=name))
    assert proof["name"] == "Proven", proof
    made = backups.find(on.site, name).manifest
    assert made is not None
    held, now = made.contents.tables["public.receipt_mail"].rows, int(sql(on.vps, "SELECT count(*) FROM receipt_mail"))
    assert held < now, "nobody sold after its moment"
    print(f"{sold} sales while it was made, {now - held} of them after its moment; longest gap "
          f"{max(sales.gaps().values()):.1f} s")  # fmt: skip
