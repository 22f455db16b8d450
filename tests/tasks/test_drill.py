"""The throwaway server: its commands, and that it is taken away whatever happens. tests/lab/test_restore.py runs it."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from blocks.errors import CommandFailed, ConfigError
from blocks.site import Site
from tasks import drill, ssh, timeline
from tests import sample
from tests.ssh_server import SshServer

DATABASE = {"name": "shop", "user": "owner", "password": "practice-only"}
# A docker that knows one database container and its image, keeps one old drill, and cannot start another.
DOCKER = """
case "$*" in
*compose*) echo c0ffee;;
"inspect "*) echo sha256:feed;;
"container ls "*) echo old;;
"network ls "*) echo oldnet;;
"image inspect "*) {image};;
"run "*) cat > "$PWD/said"; cat /dev/stdin; echo no memory >&2; exit 125;;
esac
"""


@pytest.fixture
def site(ssh_server: SshServer) -> Iterator[Site]:
    host = ssh_server.host()
    ssh_server.stub("docker", DOCKER.format(image="echo yes"))
    yield sample.site(host=host, database=DATABASE)
    ssh.close(host)


def test_the_commands_are_exactly_these() -> None:
    site = sample.site(drill={"cpus": 1.5, "memory": 1024})
    assert drill.image_of("c0ffee").line == "docker inspect --type container --format '{{.Image}}' c0ffee"
    assert drill.image("sha256:feed").line == "docker image inspect --format '{{.Id}}' sha256:feed"
    network = drill.make_network(site, "guardia-drill-tandil-1")
    assert network.line == "docker network create --internal --label guardia.drill=tandil guardia-drill-tandil-1"
    assert drill.left(site, "container").line == (
        "docker container ls --all --quiet --filter label=guardia.drill=tandil"
    )
    assert drill.left(site, "network").line == "docker network ls --quiet --filter label=guardia.drill=tandil"
    assert drill.remove("container", "a", "b").line == "docker container rm --force --volumes a b"
    assert drill.remove("network", "n").line == "docker network rm n"
    assert drill.run(site, "guardia-drill-tandil-1", "sha256:feed").line == (
        "cat | docker run --detach --name guardia-drill-tandil-1 --label guardia.drill=tandil "
        "--network guardia-drill-tandil-1 --cpus 1.5 --memory 1024m --shm-size 256m --no-healthcheck "
        "--security-opt no-new-privileges --env-file /dev/stdin sha256:feed -c fsync=off -c full_page_writes=off "
        "-c synchronous_commit=off -c wal_level=minimal -c max_wal_senders=0 -c autovacuum=off -c jit=off "
        "-c max_wal_size=1GB -c shared_buffers=256MB -c maintenance_work_mem=128MB"
    )


def test_a_drill_that_does_not_start_is_taken_away_with_what_an_earlier_one_left(
    ssh_server: SshServer, site: Site
) -> None:
    with pytest.raises(CommandFailed, match="no memory"), drill.drill(site):
        pytest.fail("it started")
    calls = [call for call in ssh_server.calls("docker") if "rm" in call]
    assert calls == 2 * [["container", "rm", "--force", "--volumes", "old"], ["network", "rm", "oldnet"]]


def test_a_drill_that_cannot_be_taken_away_is_noted_and_hides_no_other_failure(
    ssh_server: SshServer, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung = """esac
case "$*" in
"run "*) touch ran; echo no memory >&2; exit 125;;
"container rm "*) if test -e ran; then echo it is busy >&2; exit 1; fi;;
esac"""
    stub = DOCKER.replace('"run "*) cat', '"not run"*) cat').format(image="echo yes")
    ssh_server.stub("docker", stub.replace("esac", hung, 1))
    monkeypatch.setattr(timeline, "send", lambda *_: None)
    run = timeline.Run(id=uuid4(), playbook="test", site=site)
    timeline.begin(run)
    try:
        with pytest.raises(CommandFailed, match="no memory"), drill.drill(site):
            pytest.fail("it started")
    finally:
        timeline.end()
    (note,) = [entry for entry in run.entries if entry.kind == "note"]
    assert (note.what, note.ok) == ("the drill could not be removed", False) and "it is busy" in note.outcome


def test_what_is_left_of_a_drill_is_named_with_the_cure(ssh_server: SshServer, site: Site) -> None:
    left = drill.left_behind.fn(site)
    assert not left.ok and left.summary.endswith("By hand, there: docker container rm --force --volumes old")
    ssh_server.stub("docker")
    assert drill.left_behind.fn(site).ok


def test_the_password_is_in_no_command_line(ssh_server: SshServer, site: Site) -> None:
    ssh_server.stub("docker", DOCKER.format(image="echo yes").replace("cat /dev/stdin;", ""))
    with pytest.raises(CommandFailed), drill.drill(site):
        pytest.fail("it started")
    said = dict(line.split("=", 1) for line in (ssh_server.work / "said").read_text().splitlines())
    assert (said["POSTGRES_USER"], said["POSTGRES_DB"]) == ("owner", "postgres")
    assert len(said["POSTGRES_PASSWORD"]) >= 32
    assert said["POSTGRES_PASSWORD"] not in str(ssh_server.lines) + str(ssh_server.calls("docker"))


def test_another_machine_without_the_production_image_is_the_operators_to_correct(
    ssh_server: SshServer, site: Site
) -> None:
    ssh_server.stub("docker", DOCKER.format(image="echo No such image >&2; exit 1"))
    elsewhere = ssh_server.host(user="drill")
    other = site.model_copy(update={"drill": site.drill.model_copy(update={"host": elsewhere})})
    missing = pytest.raises(ConfigError, match=r"production image sha256:feed\. Copy it: .*docker save sha256:feed")
    with missing, drill.drill(other):
        pytest.fail("it started")
    ssh.close(elsewhere)
