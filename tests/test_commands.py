"""The whole catalogue of commands, word for word: a change here is a change of what Guardia does on a VPS."""

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from rich.console import Console

from blocks.host import Host
from blocks.site import Site
from deployments import doctor
from tasks import ssh
from tests import hostile, sample
from tests.ssh_server import SshServer

CATALOGUE = """\
  uptime
  cat /proc/sys/kernel/random/boot_id
  df -P -k -x tmpfs -x devtmpfs -x overlay -x squashfs -x efivarfs
  df -P -i -x tmpfs -x devtmpfs -x overlay -x squashfs -x efivarfs
  free -b
  id -u
  systemctl --version
  COMPOSE config --services
  COMPOSE ps --all --format json
  docker ps --all --filter status=created --filter status=exited --filter status=dead --format '{{.Names}}'
  docker image ls --filter dangling=true --format '{{.ID}}'
  COMPOSE logs --no-color --timestamps --tail=100 web
  COMPOSE logs --no-color --timestamps --tail=100 db
  COMPOSE logs --no-color --timestamps --tail=100 nginx
  journalctl --no-pager --output=short-iso --lines=100 --unit=docker.service
  cat /root/ferreteria/.env.prod
  docker version --format '{{.Server.Version}}'
* COMPOSE restart
* systemctl reboot
* COMPOSE up --detach --no-build --no-recreate
* docker system prune -f
""".replace(
    "COMPOSE", "docker compose -f /root/ferreteria/docker-compose.prod.yml --env-file /root/ferreteria/.env.prod"
)


def test_guardia_runs_these_commands_and_no_others(capsys: pytest.CaptureFixture[str]) -> None:
    doctor.print_commands(sample.site(), Console(soft_wrap=True))
    assert capsys.readouterr().out == CATALOGUE


# Every text that reaches a command, and every text of the operator's that might.
PLACES = (
    "name", "url", "health_path", "address", "folder", "compose_file", "env_file", "services__web", "services__db",
    "services__nginx", "host__address", "host__user", "host__host_key", "host__private_key", "on_call__primary__name",
    "mailbox__host", "mailbox__sender", "mailbox__user", "mailbox__password", "sentry_url", "github_url",
    "ca_certificates", "gates__restart", "mailbox__security",
)  # fmt: skip


def hostile_site(place: str, text: str) -> Site | None:
    """The site with this text in that place; None if the place refuses it, and says that it does."""
    raw: dict[str, Any] = sample.raw(**{place: text})
    try:
        return Site.model_validate(raw)
    except ValidationError as error:
        assert {".".join(str(part) for part in problem["loc"]) for problem in error.errors()} == {
            place.replace("__", ".")
        }
        return None


@given(st.sampled_from(PLACES), hostile.text)
def test_hostile_text_is_refused_by_name_or_stays_one_word(place: str, text: str) -> None:
    site = hostile_site(place, text)
    for command in doctor.catalogue(site) if site else []:
        assert tuple(shlex.split(command.line)) == command.argv
        assert len(command.argv) in LENGTHS


LENGTHS = {len(command.argv) for command in doctor.catalogue(sample.site())}


@pytest.fixture(scope="module")
def vps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with SshServer(tmp_path_factory.mktemp("vps")) as server:
        yield server


@pytest.fixture(scope="module")
def host(vps: SshServer) -> Iterator[Host]:
    host = vps.host()
    yield host
    ssh.close(host)


@settings(max_examples=50)
@given(st.sampled_from(["folder", "compose_file", "env_file", "services__web"]), hostile.text)
def test_the_vps_runs_docker_with_exactly_these_words_and_nothing_else(
    vps: SshServer, host: Host, place: str, text: str
) -> None:
    raw = sample.raw(**{place: text if place != "folder" else f"/{text}"})
    try:
        site = Site.model_validate(raw | {"host": host})
    except ValidationError:
        assume(False)
    vps.stub("docker")
    commands = [command for command in doctor.catalogue(site) if command.argv[0] == "docker"]
    for command in commands[:1] + commands[-1:]:
        ssh.run(host, command)
    assert vps.calls("docker") == [list(command.argv[1:]) for command in commands[:1] + commands[-1:]]
    assert list(vps.work.iterdir()) == []
