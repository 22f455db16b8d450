"""The playbook from its first look to its last, on a machine whose programs are stubs; tests/lab has real ones."""

import io
from collections.abc import Iterator
from typing import Any

import pytest
from prefect.client.schemas.objects import State
from rich.console import Console

from blocks import site_file
from blocks.site import Site
from deployments import follow, limits
from flows.site_down import site_down
from tasks import ssh
from tests import sample
from tests.mail_server import MailServer
from tests.ssh_server import SshServer
from tests.web_server import WebServer

DOCKER = """
case "$*" in
*--services) echo web; echo db; echo nginx ;;
*" restart") touch restarted ;;
*" ps "*) for s in web db nginx; do printf '{"Service": "%s", "Name": "%s", "State": "running"}\\n' $s $s; done ;;
esac"""


@pytest.fixture
def sick(site: Site, page: WebServer, post: MailServer, ssh_server: SshServer) -> Iterator[Site]:
    """A site that is down until its services are restarted."""
    for program, script in {
        "docker": DOCKER,
        "uptime": "echo up 3 days",
        "df": "echo '/dev/vda1 1 1 0 95% /'",
        "free": "echo 'Mem: 100 1 1 1 1 50'",
    }.items():
        ssh_server.stub(program, script)
    page.sick_until = ssh_server.work / "restarted"
    made = sample.site(
        name="sick", url=page.url, host=ssh_server.host(), folder=str(ssh_server.work), mailbox=post.settings,
        env_file=None, healthy_in_a_row=1,
    )  # fmt: skip
    site_file.register(made)
    limits.ensure([made.name])
    yield made
    ssh.close(made.host)


def docker_calls(server: SshServer) -> list[str]:
    """What docker was told, without the files it was told it for."""
    return [" ".join(call[3:] if call[0] == "compose" else call) for call in server.calls("docker")]


LOOKS = ["config --services", "ps --all --format json"] + [
    f"logs --no-color --timestamps --tail=100 {service}" for service in ("web", "db", "nginx")
]


def test_a_restart_that_heals_is_the_last_thing_that_is_done(
    sick: Site, ssh_server: SshServer, post: MailServer
) -> None:
    state: State[Any] = site_down(sick.name, return_state=True)  # type: ignore[assignment]
    assert (state.name, state.message) == ("Resolved", "a restart of all services healed it")
    assert docker_calls(ssh_server) == [*LOOKS, "version --format {{.Server.Version}}", "restart"]
    assert {message["Subject"] for message in post.messages} == {
        "INCIDENT ALERT - P1: site-down on sick",
        "INCIDENT RESOLVED - P1: site-down on sick",
    }


def test_a_plan_shows_every_command_in_order_and_runs_none_that_changes_anything(
    sick: Site, ssh_server: SshServer, post: MailServer
) -> None:
    out = io.StringIO()
    follow.plan(site_down, sick.name, Console(file=out, width=300))
    shown = out.getvalue()
    steps = [
        "Verify from outside", "Reach the VPS over SSH", "Check all services", "Read the logs",
        "would restart all services", "Check disk space and memory", "would ask for approval to delete unused",
        "docker system prune -f", "would restart all services", "would reboot the vps", "systemctl reboot", "Planned",
    ]  # fmt: skip
    rest = shown
    for step in steps:
        assert step in rest, f"{step} is not in its place in\n{shown}"
        rest = rest.split(step, 1)[1]
    assert not (ssh_server.work / "restarted").exists()
    assert {"restart", "system prune -f"}.isdisjoint(docker_calls(ssh_server))
    assert post.messages == []
