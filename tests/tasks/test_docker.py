"""The docker daemon: what it says of itself and of what nobody uses."""

from collections.abc import Iterator

import pytest

from blocks.site import Site
from tasks import docker, ssh
from tests import sample
from tests.ssh_server import SshServer


@pytest.fixture
def site(ssh_server: SshServer) -> Iterator[Site]:
    host = ssh_server.host()
    yield sample.site(host=host)
    ssh.close(host)


COMMANDS = {
    docker.ping(): "docker version --format '{{.Server.Version}}'",
    docker.prune(): "docker system prune -f",
    docker.stopped_containers(): "docker ps --all --filter status=created --filter status=exited --filter status=dead"
    " --format '{{.Names}}'",
    docker.dangling_images(): "docker image ls --filter dangling=true --format '{{.ID}}'",
    docker.journal(): "journalctl --no-pager --output=short-iso --lines=100 --unit=docker.service",
}


def test_the_commands_are_exactly_these_and_only_the_prune_changes_anything() -> None:
    assert {command: command.line for command in COMMANDS} == COMMANDS
    assert [command.argv[1:3] for command in COMMANDS if command.changes] == [("system", "prune")]


def test_leftovers_are_listed_in_order(ssh_server: SshServer, site: Site) -> None:
    ssh_server.stub("docker", 'case "$*" in *status*) echo b; echo a;; *) echo 2; echo 1;; esac')
    found = docker.leftovers.fn(site)
    assert (found.containers, found.images, found.ok) == (["a", "b"], ["1", "2"], True)
    assert found.summary == "2 stopped containers, 2 dangling images"


def test_a_docker_that_does_not_say_is_a_finding_and_no_error(ssh_server: SshServer, site: Site) -> None:
    ssh_server.stub("docker", "echo the disk is full >&2; exit 1")
    found = docker.leftovers.fn(site)
    assert not found.ok
    assert found.summary.startswith("Docker does not say: `docker ps")
    assert "the disk is full" in found.summary
