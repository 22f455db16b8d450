"""What a rebuild chooses and refuses, and that it touches nothing before it is whole. tests/lab has the real one."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from blocks.errors import BadBackup, CommandFailed, ConfigError, NoSpace
from blocks.site import Site
from tasks import backups, new_cluster, rebuild, ssh, volume
from tasks.backup import Backup
from tasks.rebuild import Choice
from tests.ssh_server import SshServer
from tests.stored import NOON, bucket_of, made, manifest, proved

DATA = "/var/lib/docker/volumes/pg/_data"
# A docker that knows the database's container, and whose containers do not start.
DOCKER = f"""
case "$*" in
*compose*) echo c0ffee;;
"inspect "*println*) echo POSTGRES_PASSWORD=secret;;
"inspect "*) echo '{{"mounts": [{{"Source": "{DATA}", "Destination": "/var/lib/postgresql/data"}}],' \
 '"user": "", "pgdata": "", "image": "sha256:feed", "command": ["postgres", "-c", "jit=off"]}}';;
"cp "*) echo 'postgres:x:999:998::/var/lib/postgresql:/bin/bash';;
"container ls "*) echo left;;
"run "*) echo no memory >&2; exit 125;;
esac
"""


@pytest.fixture
def site(ssh_server: SshServer) -> Iterator[Site]:
    """A site whose database is on a VPS with 4 GB free, and whose bucket is empty."""
    host = ssh_server.host()
    ssh_server.stub("docker", DOCKER)
    ssh_server.stub("stat", "echo 1; echo 1")
    ssh_server.stub("test", "exit 1")
    for name in ("install", "rm", "mv"):
        ssh_server.stub(name)
    disk(ssh_server, 4_000_000)
    with bucket_of() as made_site:
        yield made_site.model_copy(update={"host": host})
    ssh.close(host)


def disk(ssh_server: SshServer, free: int) -> None:
    """One file system with so many KiB free."""
    ssh_server.stub("df", f"echo Filesystem; echo '/dev/sda1 9000000 1 {free} 1% /'")


def test_the_newest_proven_backup_is_chosen_and_never_a_safety_backup(site: Site) -> None:
    old = made(site, NOON)
    proved(site, old)
    made(site, NOON + timedelta(days=1))
    proved(site, made(site, NOON + timedelta(days=2), kind="safety"))
    choice = rebuild.newest_proven.fn(site)
    assert (choice.backup, choice.new) == (old.name, f"{DATA}.guardia-new")
    assert choice.aside == "/var/backups/tandil/volumes/guardia"
    assert choice.like == new_cluster.Like(
        image="sha256:feed", command=["postgres", "-c", "jit=off"], pgdata="/var/lib/postgresql/data"
    )


def test_without_a_proven_backup_the_cure_is_named(site: Site) -> None:
    made(site)
    with pytest.raises(BadBackup, match=r"No backup of tandil is proven\. Prove one"):
        rebuild.newest_proven.fn(site)


def test_the_disk_must_hold_what_a_restore_needs_and_a_cluster(ssh_server: SshServer, site: Site) -> None:
    size = 400 << 20
    proved(site, made(site, database_bytes=size))
    needed = int(size * 1.2) + (256 << 20) + (64 << 20) + 1000  # the archive of this test has 1000 bytes
    disk(ssh_server, needed // 1024)
    with pytest.raises(NoSpace, match="a second database needs about 800"):
        rebuild.newest_proven.fn(site)
    disk(ssh_server, needed // 1024 + 1)
    assert rebuild.newest_proven.fn(site).folder.path == DATA


def test_a_folder_that_is_a_file_system_of_its_own_cannot_be_moved(ssh_server: SshServer, site: Site) -> None:
    proved(site, made(site))
    ssh_server.stub("stat", "echo 1; echo 2")
    with pytest.raises(ConfigError, match="is a file system of its own"):
        rebuild.newest_proven.fn(site)


def choice(site: Site) -> Choice:
    proved(site, made(site))
    return rebuild.newest_proven.fn(site)


def test_a_server_that_does_not_start_is_taken_away_and_nothing_is_moved(
    ssh_server: SshServer, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = choice(site)
    monkeypatch.setattr(backups, "find", lambda _site, name: Backup(name=name, manifest=manifest(name)))
    with pytest.raises(CommandFailed, match="no memory"):
        rebuild._rebuild(rebuild.rebuild.plan(site, found), site, found)
    assert ssh_server.calls("mv") == []
    assert ssh_server.calls("rm") == 2 * [["--recursive", "--force", found.new]]
    docker = ssh_server.calls("docker")
    assert [call for call in docker if call[:2] == ["container", "rm"]] == 2 * [["container", "rm", "--force", "left"]]
    assert not any("stop" in call for call in docker), "the site was touched"
    assert "secret" not in str(ssh_server.lines) + str(docker)


def test_a_rebuild_that_was_killed_between_the_two_renames_does_the_second(
    ssh_server: SshServer, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = choice(site)
    ssh_server.stub("test", "exit 0")  # both are there: the old folder where it is kept, the new one beside
    monkeypatch.setattr(volume, "wait_until_serving", lambda *_: 1.0)
    rebuild._rebuild(rebuild.rebuild.plan(site, found), site, found)
    assert ssh_server.calls("mv") == [["--no-target-directory", found.new, DATA]]
    assert not any("run" in call[:1] for call in ssh_server.calls("docker")), "it began anew"
