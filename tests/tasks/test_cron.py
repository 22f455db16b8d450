"""The site's own backup script: what its log says, and the line that starts it."""

import shutil
from collections.abc import Iterator

import pytest

from blocks.errors import ConfigError
from blocks.site import Site
from tasks import cron, ssh
from tests import sample
from tests.ssh_server import SshServer

LINE = "0 3 * * * root /root/ferreteria/infra/backups/backup_db.sh >> /var/log/backup.log 2>&1"
STARTED = "[2026-11-24 03:00:01] Starting backup\n"
CREATED = "[2026-11-24 03:00:09] Backup created: /var/backups/x.sql.gz (12M)\n"
FINISHED = "[2026-11-24 03:00:09] Deleted 0 backups older than 30 days\n[2026-11-24 03:00:09] Backup finished\n"


@pytest.mark.parametrize(
    "log", [STARTED + CREATED + FINISHED, STARTED + CREATED, STARTED + "error\n" + STARTED + CREATED]
)
def test_a_run_that_left_a_backup_is_well_even_if_the_script_stopped_after_pruning(log: str) -> None:
    assert cron.wrong_in(log, "/var/log/b.log") == []


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (STARTED + CREATED + FINISHED + STARTED + "pg_dump: error: connection failed\n", "pg_dump: error: connection"),
        (STARTED + "[…] ERROR: the backup file is empty\n", "ERROR: the backup file is empty"),
        (STARTED + CREATED + "ERROR: no space\n", "ERROR: no space"),
        (STARTED, "it said: nothing"),
        ("", "it said: nothing"),
    ],
)
def test_a_run_that_did_not_is_told_with_its_last_words(log: str, said: str) -> None:
    (problem,) = cron.wrong_in(log, "/var/log/b.log")
    assert said in problem
    assert "/var/log/b.log" in problem


@pytest.mark.parametrize(
    ("table", "there"),
    [(f"PATH=/bin\n{LINE}\n", True), (LINE.replace(" ", "\t", 4), True), (f"# {LINE}\n", False),
     (LINE + " extra", False), ("", False)],
)  # fmt: skip
def test_only_the_whole_line_counts(table: str, there: bool) -> None:
    assert cron.has(table, LINE) == there


@pytest.fixture
def site(ssh_server: SshServer) -> Iterator[Site]:
    (ssh_server.work / "log").mkdir()
    (ssh_server.work / "log" / "b.log").write_text(STARTED + CREATED)
    for program in ("tail", "tee"):
        ssh_server.stub(program, f'exec {shutil.which(program)} "$@"')
    host = ssh_server.host()
    scripts = {"log": f"{ssh_server.work}/log/b.log", "cron_file": f"{ssh_server.work}/log/cron", "cron_line": LINE}
    yield sample.site(host=host, own_scripts=scripts)
    ssh.close(host)


@pytest.mark.parametrize("before", ["", "PATH=/bin\n", f"PATH=/bin\n# {LINE}", None])
def test_a_missing_line_is_added_once_and_nothing_else_changes(
    site: Site, ssh_server: SshServer, before: str | None
) -> None:
    table = ssh_server.work / "log" / "cron"
    if before is not None:
        table.write_text(before)
    found = cron.own_script.fn(site)
    assert found.line_missing
    assert found.problems == [f"{table} does not hold the line that starts the site's own backup"]
    plan = cron.add_line.plan(site, found)
    assert [command.line for command in plan.commands] == [f"tee --append {table}"]
    for outcome in ("done", "the line was there already"):
        assert cron._append(plan, site, cron.own_script.fn(site)) == outcome
        assert table.read_text().rstrip("\n").splitlines() == [*(before or "").splitlines(), LINE]
    assert cron.own_script.fn(site).ok


def test_a_script_that_has_not_run_yet_has_no_log_and_that_is_no_failure(site: Site, ssh_server: SshServer) -> None:
    (ssh_server.work / "log" / "b.log").unlink()
    (ssh_server.work / "log" / "cron").write_text(LINE + "\n")
    found = cron.own_script.fn(site)
    assert found.ok
    assert "(no log yet: `tail --lines=100" in found.text


def test_a_log_that_ends_badly_is_a_finding(site: Site, ssh_server: SshServer) -> None:
    (ssh_server.work / "log" / "b.log").write_text(STARTED + "pg_dump: error: out of memory\n")
    (ssh_server.work / "log" / "cron").write_text(LINE + "\n")
    found = cron.own_script.fn(site)
    assert "pg_dump: error: out of memory" in found.summary
    assert not found.line_missing


def test_a_site_without_scripts_of_its_own_has_nothing_wrong() -> None:
    found = cron.own_script.fn(sample.site())
    assert found.ok
    with pytest.raises(ConfigError, match=r"no cron_line .* Add it to \[own_scripts\]"):
        cron.add_line.plan(sample.site(), found)
