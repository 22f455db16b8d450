"""Which of the guide's common issues a log, a disk and a folder show."""

import pytest

from tasks import diagnosis
from tasks.diagnosis import Kind

STARTING = "starting PostgreSQL 15.18 on x86_64-pc-linux-gnu"
READY = "database system is ready to accept connections"
DOWN = "database system is shut down"


def log(*said: str, minute: int = 30) -> str:
    """A log as Compose shows it."""
    return "".join(f"db-1  | 2026-11-24T20:{minute}:35.123456789Z 2026-11-24 20:26 UTC [1] {s}\n" for s in said)


LOGS: dict[str, tuple[str, Kind]] = {
    "the disk is full": (
        log(STARTING, 'FATAL:  could not write to file "pg_wal/xlogtemp.29": No space left on device', DOWN),
        "disk full",
    ),
    "the lock file finds no space": (
        log('FATAL:  could not create lock file "postmaster.pid": No space left on device'),
        "disk full",
    ),
    "another user's folder": (
        log('FATAL:  data directory "/var/lib/postgresql/data" has wrong ownership'),
        "wrong permissions",
    ),
    "a folder that others may read": (
        log('FATAL:  data directory "/var/lib/postgresql/data" has invalid permissions'),
        "wrong permissions",
    ),
    "a file that cannot be opened": (
        log(STARTING, 'PANIC:  could not open file "global/pg_control": Permission denied'),
        "wrong permissions",
    ),
    "the entry point may not chown": (
        log("chown: changing ownership of '/var/lib/postgresql/data': Operation not permitted"),
        "wrong permissions",
    ),
    "a spoilt control file": (log(STARTING, "FATAL:  incorrect checksum in control file"), "corrupted"),
    "no checkpoint": (
        log(STARTING, "LOG:  invalid primary checkpoint record", "PANIC:  could not locate a valid checkpoint record",
            "LOG:  aborting startup due to startup process failure", f"LOG:  {DOWN}"),
        "corrupted",
    ),
    "a missing control file": (
        log('postgres: could not find the database system: could not open file "/var/lib/postgresql/data/global/'
            'pg_control": No such file or directory'),
        "corrupted",
    ),
    "a missing folder": (log('FATAL:  could not open directory "pg_notify": No such file or directory'), "corrupted"),
    "recovery meets a broken page": (
        log(STARTING, "PANIC:  WAL contains references to invalid pages", f"LOG:  {DOWN}"),
        "corrupted",
    ),
    "another major version": (
        log("FATAL:  database files are incompatible with server",
            "DETAIL:  The data directory was initialized by PostgreSQL version 14"),
        "unknown",
    ),
    "a wrong setting": (log('FATAL:  configuration file "postgresql.conf" contains errors'), "unknown"),
    "nothing": ("", "unknown"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "kind"), LOGS.values(), ids=LOGS)
def test_a_log_tells_why_the_server_does_not_start(text: str, kind: Kind) -> None:
    found = diagnosis.cause(text, well=False, free=10 << 30, wrong=[])
    assert found.kind == kind
    assert not text or found.lines, "the lines that show it are evidence"


def test_the_newest_sign_counts() -> None:
    text = log("FATAL:  could not write: No space left on device") + log("FATAL:  incorrect checksum in control file")
    assert diagnosis.cause(text, well=False, free=0, wrong=[]).kind == "corrupted"


def test_what_was_wrong_long_before_says_nothing() -> None:
    text = log("FATAL:  could not write: No space left on device", minute=10) + log("something else", minute=30)
    assert diagnosis.cause(text, well=False, free=10 << 30, wrong=[]).kind == "unknown"


def test_without_a_sign_the_disk_and_then_the_files_tell() -> None:
    text = log("error: exit status 1 in a language that nobody reads")
    assert diagnosis.cause(text, well=False, free=4096, wrong=["0:0 600 x"]).kind == "disk full"
    found = diagnosis.cause(text, well=False, free=None, wrong=["0:0 600 x"])
    assert (found.kind, found.lines) == ("wrong permissions", ["0:0 600 x"])


@pytest.mark.parametrize(
    "said",
    ['ERROR:  could not read block 3 in file "base/16384/16400": read only 0 of 8192 bytes',
     "ERROR:  invalid page in block 7 of relation base/16384/16400",
     'ERROR:  could not open file "base/16384/16400": No such file or directory'],
)  # fmt: skip
def test_a_server_that_runs_with_a_damaged_table_is_not_to_be_made_anew(said: str) -> None:
    for text, well in ((log(STARTING, READY, said), False), (log(said), True)):
        found = diagnosis.cause(text, well=well, free=10 << 30, wrong=[])
        assert found.kind == "damaged table"
        assert "start the playbook data-corruption" in found.advice


def test_a_client_that_may_not_read_a_file_is_no_reason_to_touch_the_volume() -> None:
    text = log(STARTING, READY, 'ERROR:  could not open file "/tmp/x.csv" for reading: Permission denied')
    found = diagnosis.cause(text, well=True, free=0, wrong=["0:0 600 x"])
    assert found.kind == "not the database"
    assert "start the playbook site-down" in found.advice
