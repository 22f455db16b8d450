"""The machine: its resources, and a reboot that happens once and is proven by the boot id."""

import time
from collections.abc import Iterator

import pytest

from blocks.errors import CommandFailed, HostLost
from blocks.site import Site
from tasks import host, ssh
from tests import sample
from tests.ssh_server import SshServer

DF = """\
Filesystem     1024-blocks     Used Available Capacity Mounted on
/dev/vda1         81106868 70000000   7000000      91% /
/dev/vdb1            10000     1000      9000      10% /srv/with a space
/dev/fuse                -        -         -        - /odd
"""
FREE = """\
               total        used        free      shared  buff/cache   available
Mem:      4000000000  2800000000   100000000    10000000  1100000000  1000000000
Swap:              0           0           0
"""


def test_the_percent_of_every_file_system_is_read() -> None:
    assert host.parse_df(DF) == [(91, "/"), (10, "/srv/with a space")]


def test_memory_in_use_is_what_is_not_available() -> None:
    assert host.parse_free(FREE) == 75


@pytest.mark.parametrize("text", ["", "Mem: 1 2 3", "Mem: 0 0 0 0 0 0"])
def test_an_unknown_answer_of_free_is_an_error_that_quotes_it(text: str) -> None:
    with pytest.raises(CommandFailed, match="answered something unknown"):
        host.parse_free(text)


@pytest.mark.parametrize(
    ("disk", "memory", "short"), [(84, 89, False), (85, 0, True), (0, 90, True), (100, 100, True), (0, 0, False)]
)
def test_a_machine_is_short_from_its_limits_on(disk: int, memory: int, short: bool) -> None:
    found = host.Resources(disk=disk, memory=memory, disk_limit=85, memory_limit=90)
    assert (found.short, found.ok) == (short, not short)


@pytest.fixture
def site(ssh_server: SshServer) -> Iterator[Site]:
    at = ssh_server.host()
    yield sample.site(host=at, reboot_timeout=10)
    ssh.close(at)


def test_resources_are_those_of_the_fullest_file_system(ssh_server: SshServer, site: Site) -> None:
    ssh_server.stub("df", f'case "$*" in *-i*) ;; *) cat <<END\n{DF}END\n;; esac')
    ssh_server.stub("free", f"cat <<END\n{FREE}END")
    found = host.resources.fn(site)
    assert found.summary == "disk 91 % (/, short from 85 %), memory 75 % (short from 90 %)"
    assert found.short


def test_inodes_count_like_blocks(ssh_server: SshServer, site: Site) -> None:
    ssh_server.stub("df", 'case "$*" in *-i*) echo "a 1 1 0 100% /var" ;; *) echo "a 1 1 0 7% /" ;; esac')
    ssh_server.stub("free", f"cat <<END\n{FREE}END")
    assert (host.resources.fn(site).disk, host.resources.fn(site).fullest) == (100, "/var")


def test_resources_that_cannot_be_read_are_unknown_and_not_short(ssh_server: SshServer, site: Site) -> None:
    ssh_server.stub("df", "echo broken >&2; exit 1")
    found = host.resources.fn(site)
    assert (found.short, found.ok) == (False, False)
    assert "broken" in found.summary


def boots(server: SshServer, *, comes_back: bool = True) -> None:
    """A machine that has a new boot id once it was told to reboot."""
    (server.work / "boot_id").write_text("first\n")
    boot_id = f"{server.work}/boot_id"
    reboot = f"echo second > {boot_id}" if comes_back else ":"
    server.stub("systemctl", reboot)
    (server.folder / "bin" / "cat").unlink()
    server.stub("cat", f"while read -r line; do echo $line; done < {boot_id}")
    server.stub("docker")


def test_a_reboot_is_proven_by_the_boot_id_and_starts_what_is_missing(ssh_server: SshServer, site: Site) -> None:
    boots(ssh_server)
    before = host.boot_id_before.fn(site)
    assert before.boot_id == "first"
    said = host._reboot(host.reboot.plan(site, before), site, before)
    assert said.startswith("rebooted; SSH and Docker back after ")
    assert ssh_server.calls("systemctl") == [["reboot"]]
    assert [call[0] for call in ssh_server.calls("docker")] == ["version", "compose"]


def test_a_reboot_that_has_happened_already_is_not_done_again(ssh_server: SshServer, site: Site) -> None:
    boots(ssh_server)
    before = host.BootId(boot_id="an earlier boot")
    host._reboot(host.reboot.plan(site, before), site, before)
    assert ssh_server.calls("systemctl") == []


def test_a_machine_that_does_not_come_back_is_lost_for_good(ssh_server: SshServer, site: Site) -> None:
    boots(ssh_server, comes_back=False)
    before, site = host.BootId(boot_id="first"), site.model_copy(update={"reboot_timeout": 1})
    started = time.monotonic()
    with pytest.raises(HostLost, match=r"did not come back within 1 s .*provider's console") as caught:
        host._reboot(host.reboot.plan(site, before), site, before)
    assert caught.value.permanent
    assert time.monotonic() - started < 5


def test_the_plan_of_a_reboot_says_which_boot_it_ends() -> None:
    plan = host.reboot.plan(sample.site(), host.BootId(boot_id="first"))
    assert plan.facts == ("ends the boot first",)
    assert plan.commands[0].line == "systemctl reboot"
    assert plan.hash != host.reboot.plan(sample.site(), host.BootId(boot_id="second")).hash


def test_a_reached_machine_says_how_long_it_is_up(ssh_server: SshServer, site: Site) -> None:
    boots(ssh_server)
    ssh_server.stub("uptime", "echo ' up 3 days '")
    assert host.reach.fn(site).summary == "reached; up 3 days"
