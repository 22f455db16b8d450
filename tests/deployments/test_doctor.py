"""The doctor looks at everything that a playbook needs, changes nothing, and names the cure of what is wrong."""

import io
import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from blocks.errors import ConfigError
from blocks.site import Site
from deployments import command_list, doctor, limits
from tasks import backups, ssh
from tasks.backup import Backup, Backups
from tests import sample, stored
from tests.mail_server import MailServer
from tests.ssh_server import SshServer
from tests.web_server import WebServer

DOCKER = """
case "$*" in
version*) echo 28.0 ;;
*--services) echo web; echo db; echo nginx ;;
*ps*) for s in web db nginx; do printf '{"Service": "%s", "Name": "%s", "State": "running"}\\n' $s $s; done ;;
esac"""


@pytest.fixture
def settings(ssh_server: SshServer, web: WebServer, mail: MailServer) -> Iterator[dict[str, Any]]:
    """The settings of a site at which all is well."""
    for program, script in {
        "docker": DOCKER,
        "uptime": "echo up 3 days",
        "df": "echo '/dev/vda1 1 1 0 40% /'",
        "free": "echo 'Mem: 100 1 1 1 1 50'",
        "id": "echo 0",
        "systemctl": "echo systemd 252",
    }.items():
        ssh_server.stub(program, script)
    (ssh_server.work / ".env.prod").write_text("POSTGRES_PASSWORD=hunter2\n")
    host = ssh_server.host()
    yield {
        "name": "doctor", "url": web.url, "controls": [web.url], "folder": str(ssh_server.work), "host": host,
        "mailbox": mail.settings,
    }  # fmt: skip
    ssh.close(host)


def examined(site: Site) -> tuple[bool, dict[str, str]]:
    """Whether all is well, and what was found, by title; wrong things begin with a cross."""
    out = io.StringIO()
    well = doctor.examine(site, Console(file=out, width=2000))
    rows = [line.split("│") for line in out.getvalue().splitlines() if line.startswith("│")]
    return well, {row[2].strip(): f"{row[1].strip()} {row[3].strip()}" for row in rows}


@pytest.mark.usefixtures("prefect_server")
def test_a_site_at_which_all_is_well_is_well_and_nothing_was_changed(
    settings: dict[str, Any], ssh_server: SshServer, web: WebServer, mail: MailServer
) -> None:
    site = sample.site(**settings, gates={"reboot": "ask"})
    limits.ensure([site.name])
    well, found = examined(site)
    assert well, found
    assert found["SSH with the pinned host key"] == "✓ up 3 days"
    assert found["Docker answers"] == "✓ Docker 28.0"
    assert found["the compose file and its services"] == "✓ web running; db running; nginx running"
    assert found["the env file"] == "✓ 1 lines"
    assert found["disk and memory can be read"].startswith("✓ disk 40 % (/")
    assert found["systemctl and the right to reboot"] == "✓ root may"
    assert found["Caro: caro@tandil.site"].endswith("accepts the account (nothing was sent)")
    assert found["one flow at a time acts on the site"] == "✓ guardia-acting-doctor: 0 of 1 in use"
    assert "hunter2" not in str(found)
    assert mail.messages == []
    changing = {command.line for command in command_list.catalogue(site) if command.changes}
    assert changing.isdisjoint(line.split(" ", 3)[-1] for line in ssh_server.lines)


WRONG: dict[str, tuple[str, str, str]] = {
    "a dead docker daemon": ("docker", "echo Cannot connect to the Docker daemon >&2; exit 1", "Docker answers"),
    "no root": ("id", "echo 1000", "systemctl and the right to reboot"),
    "no free": ("free", "exit 127", "disk and memory can be read"),
}


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(("program", "script", "title"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_on_the_vps_is_crossed(
    settings: dict[str, Any], ssh_server: SshServer, program: str, script: str, title: str
) -> None:
    ssh_server.stub(program, script)
    well, found = examined(sample.site(**settings))
    assert not well
    assert found[title].startswith("✗ ")


@pytest.mark.usefixtures("prefect_server")
def test_everything_is_examined_even_if_everything_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "incidents").mkdir(mode=0o500)
    with socket.create_server(("127.0.0.1", 0)) as free:
        dead = f"http://127.0.0.1:{free.getsockname()[1]}"
    people = {"name": "Ana [/bold]", "channels": ["slack-webhook/no-such", "ana@tandil.site"]}
    site = sample.site(
        name="all-wrong", url=dead, controls=[dead], host__address="127.0.0.1", host__port=9,
        on_call={"primary": people},
    )  # fmt: skip
    well, found = examined(site)
    assert not well
    assert {title for title, what in found.items() if what.startswith("✓")} <= {"incident records can be written"}
    assert "correct url, health_path or address" in found["the site answers from outside"]
    assert "Set `controls`" in found[f"{dead}/ answers (tells an outage from our own network)"]
    assert "provider's console" in found["SSH with the pinned host key"]
    assert "slack-webhook" in found["Ana [/bold]: slack-webhook/no-such"]
    assert "Run `guardia apply` again" in found["one flow at a time acts on the site"]


def test_a_backup_that_was_never_proven_is_crossed(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [
        Backup(name="b", manifest=stored.manifest("b", snapshot_at=stored.NOON - timedelta(hours=age)))
        for age in (1, 30)
    ]
    found = Backups(items=items, at=stored.NOON, rpo=timedelta(hours=26))
    monkeypatch.setattr(backups, "seen", lambda _: found)
    with pytest.raises(ConfigError, match=r"^no backup is proven\. Prove the newest: `guardia verify`\.$"):
        doctor._fresh(stored.site())


def test_records_that_cannot_be_written_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARDIA_INCIDENTS", "/proc/incidents")
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(ConfigError, match=r"/proc/incidents cannot be written\. Set GUARDIA_INCIDENTS"):
        doctor._records()
