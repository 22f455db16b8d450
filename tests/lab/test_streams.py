"""Streams over the practice VPS's own sshd: sizes at which other clients break, and every way to be cut off."""

import threading
import time
from collections.abc import Iterator

import pytest

from blocks.errors import CommandFailed, HostUnreachable
from blocks.host import Host
from tasks import ssh, ssh_connection
from tasks.command import Command
from tests.lab import faults
from tests.lab.vps import PracticeVps

pytestmark = pytest.mark.lab

BIG = 513 << 20  # bytes; paramiko asks for new keys after 512 MiB, which mostly ended in a timeout
PART = 16 << 20


@pytest.fixture
def host(vps: PracticeVps) -> Iterator[Host]:
    host = host_of(vps)
    yield host
    ssh.close(host)


def host_of(vps: PracticeVps) -> Host:
    return Host.model_validate(
        {
            "address": "127.0.0.1",
            "port": vps.ssh_port,
            "private_key": vps.key_file.read_text(),
            "host_key": vps.host_key,
            "connect_timeout": 4,
        }
    )


def read_all(host: Host, command: Command) -> int:
    with ssh.reading(host, command) as reader:
        while reader.read(PART):
            pass
        return reader.received


def cut(vps: PracticeVps) -> None:
    """End what serves the connections; sshd itself goes on listening."""
    vps.shell("pkill -f '^sshd: root'")


def left_behind(vps: PracticeVps, word: str, seconds: float = 5) -> str:
    """What still runs on the machine with this word in its command line, once it had time to end."""
    deadline = time.monotonic() + seconds
    while (found := vps.shell(f"pgrep -af '[{word[0]}]{word[1:]}' || true")) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def test_513_mebibytes_arrive_and_end(host: Host) -> None:
    assert read_all(host, Command(("head", "-c", str(BIG), "/dev/zero"), timeout=120)) == BIG


def test_513_mebibytes_are_sent_and_end(host: Host) -> None:
    chunks = (bytes(PART) for _ in range(BIG // PART))
    output = ssh.feed(host, Command(("wc", "-c"), timeout=120), (*chunks, bytes(BIG % PART)))
    assert output.stdout.strip() == str(BIG)


def test_a_server_that_asks_for_new_keys_all_the_time_gets_them(vps: PracticeVps, host: Host) -> None:
    vps.shell("echo 'RekeyLimit 16M' > /etc/ssh/sshd_config.d/rekey.conf && systemctl reload ssh")
    try:
        assert read_all(host, Command(("head", "-c", str(BIG // 4), "/dev/zero"), timeout=60)) == BIG // 4
        chunks = (bytes(1 << 20) for _ in range(128))
        assert ssh.feed(host, Command(("wc", "-c"), timeout=60), chunks).stdout.strip() == str(128 << 20)
    finally:
        vps.shell("rm /etc/ssh/sshd_config.d/rekey.conf && systemctl reload ssh")


def test_a_command_that_sshd_says_was_killed_has_failed(host: Host) -> None:
    with (
        pytest.raises(CommandFailed, match="was killed"),
        ssh.reading(host, Command(("bash", "-c", "echo half; kill -9 $PPID"), timeout=20)) as reader,
    ):
        reader.read(100)
    assert ssh.run(host, Command(("true",))).exit_code == 0


def test_a_cut_connection_is_noticed_at_once_and_leaves_nothing_on_the_host(vps: PracticeVps, host: Host) -> None:
    with (
        pytest.raises(HostUnreachable, match="was lost during"),
        ssh.reading(host, Command(("cat", "/dev/zero"), timeout=300)) as reader,
    ):
        reader.read(PART)
        threading.Thread(target=cut, args=(vps,)).start()
        began = time.monotonic()
        while reader.read(PART):
            assert time.monotonic() - began < 20
    assert left_behind(vps, "cat /dev/zero") == ""
    assert ssh.run(host, Command(("echo", "back"))).stdout == "back\n"


def test_a_cut_while_feeding_is_noticed_at_once_and_leaves_nothing_on_the_host(vps: PracticeVps, host: Host) -> None:
    def chunks() -> Iterator[bytes]:
        yield bytes(PART)
        threading.Thread(target=cut, args=(vps,)).start()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            yield bytes(PART)

    with pytest.raises(HostUnreachable, match="was lost during"):
        ssh.feed(host, Command(("wc", "-c", "-"), timeout=300), chunks())
    assert left_behind(vps, "wc -c -") == ""


def test_a_network_that_goes_silent_is_noticed_in_time(
    vps: PracticeVps, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_connection, "_ASK", 0.5)
    monkeypatch.setattr(ssh_connection, "_SILENCE", 2.0)
    with (
        pytest.raises(HostUnreachable, match="was lost during"),
        ssh.reading(host, Command(("sleep", "200"), timeout=300)) as reader,
    ):
        faults.inject(vps, "unreachable")
        began = time.monotonic()
        reader.read(1)
    assert time.monotonic() - began < 10


def test_leaving_a_stream_early_ends_its_command_on_the_host(vps: PracticeVps, host: Host) -> None:
    with ssh.reading(host, Command(("cat", "/dev/zero"), timeout=300)) as reader:
        reader.read(PART)
    assert left_behind(vps, "cat /dev/zero") == ""
