"""Commands on a host: what is sent, what comes back, and which error each failure becomes."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from blocks.errors import CommandFailed, CommandTimedOut, GuardiaError, HostRefused, HostUnreachable
from blocks.host import Host
from tasks import ssh, ssh_connection, timeline
from tasks.command import Command
from tests import sample
from tests.ssh_server import SshServer

MEBIBYTE = 1 << 20


@pytest.fixture
def host(ssh_server: SshServer) -> Iterator[Host]:
    host = ssh_server.host()
    yield host
    ssh.close(host)


def shell(script: str, timeout: int = 20) -> Command:
    """A script in the tests' own name; Guardia itself never builds one."""
    return Command(("/bin/sh", "-c", script), timeout=timeout)


def test_a_command_comes_back_with_its_streams_and_status(host: Host) -> None:
    output, _ = ssh._fed(host, shell("printf 'á\\n'; echo no >&2; exit 3"), ())
    assert (output.exit_code, output.stdout, output.stderr) == (3, "á\n", "no\n")


def test_the_host_itself_bounds_the_time_of_a_command(ssh_server: SshServer, host: Host) -> None:
    ssh.run(host, Command(("cat", "/dev/null"), timeout=7))
    assert ssh_server.lines == ["env LC_ALL=C timeout --kill-after=5 7 cat /dev/null"]


def test_an_exit_status_other_than_0_is_an_error_that_quotes_what_was_said(host: Host) -> None:
    with pytest.raises(CommandFailed, match=r"on 127\.0\.0\.1 ended with exit status 4 and said: it broke") as caught:
        ssh.run(host, shell("echo fine; echo it broke >&2; exit 4"))
    assert caught.value.permanent


def test_a_failing_command_that_is_silent_is_said_to_have_said_nothing(host: Host) -> None:
    with pytest.raises(CommandFailed, match="said: nothing"):
        ssh.run(host, shell("exit 1"))


def test_two_mebibytes_on_both_streams_at_once_block_nobody_and_are_cut(host: Host) -> None:
    fill = f"head -c {2 * MEBIBYTE} /dev/zero"
    output = ssh.run(host, shell(f"{fill} & {fill} >&2; wait"))
    assert (len(output.stdout), len(output.stderr)) == (ssh.OUTPUT_LIMIT, ssh.OUTPUT_LIMIT)


def test_output_that_is_not_text_is_no_error(host: Host) -> None:
    assert ssh.run(host, shell(r"printf '\377ok'")).stdout == "\N{REPLACEMENT CHARACTER}ok"


def test_a_command_that_hangs_is_killed_on_the_host(ssh_server: SshServer, host: Host) -> None:
    with pytest.raises(CommandTimedOut, match=r"`sleep 30` on 127\.0\.0\.1 did not end within 1 s and was killed"):
        ssh.run(host, Command(("sleep", "30"), timeout=1))
    assert ssh_server.processes[0].wait(1) == 124


@pytest.mark.parametrize("status", [124, 137])
def test_a_status_like_that_of_a_timeout_is_none_when_it_came_in_time(host: Host, status: int) -> None:
    with pytest.raises(CommandFailed, match=f"ended with exit status {status}"):
        ssh.run(host, shell(f"exit {status}"))


def test_one_connection_serves_all_commands(ssh_server: SshServer, host: Host) -> None:
    for _ in range(5):
        ssh.run(host, shell("exit 0"))
    assert ssh_server.connections == 1


def test_small_packets_are_not_held_back(host: Host) -> None:
    ssh.run(host, shell("exit 0"))
    connection = ssh_connection._open[ssh_connection._key(host)].sock
    assert isinstance(connection, socket.socket)
    assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_the_fast_cipher_is_asked_for(host: Host) -> None:
    ssh.run(host, shell("exit 0"))
    assert ssh_connection._open[ssh_connection._key(host)].local_cipher == "aes128-gcm@openssh.com"


def test_a_dropped_connection_is_opened_again(ssh_server: SshServer, host: Host) -> None:
    ssh.run(host, shell("exit 0"))
    ssh_server.drop()
    assert ssh.run(host, shell("echo back")).stdout == "back\n"
    assert ssh_server.connections == 2


def test_a_connection_that_starts_nothing_more_is_replaced(ssh_server: SshServer, host: Host) -> None:
    ssh.run(host, shell("exit 0"))
    ssh_server.wedge()
    assert ssh.run(host, shell("echo back")).stdout == "back\n"
    assert ssh_server.connections == 2


def test_a_connection_that_is_lost_during_a_command_is_reported_and_not_tried_again(
    ssh_server: SshServer, host: Host
) -> None:
    def drop_soon() -> None:
        while not ssh_server.processes:
            time.sleep(0.01)
        ssh_server.drop()

    threading.Thread(target=drop_soon).start()
    with pytest.raises(HostUnreachable, match=r"was lost during `sleep 30` \(.+\)") as caught:
        ssh.run(host, Command(("sleep", "30"), timeout=40))
    assert not caught.value.permanent
    assert ssh_server.lines == ["env LC_ALL=C timeout --kill-after=5 40 sleep 30"]


def test_a_host_that_stopped_listening_is_unreachable(ssh_server: SshServer, host: Host) -> None:
    ssh.run(host, shell("exit 0"))
    ssh_server.__exit__()
    with pytest.raises(HostUnreachable):
        ssh.run(host, shell("exit 0"))


REFUSALS = {
    "another key": ({"private_key": sample.private_key("other")}, "refused the SSH key", "authorized_keys"),
    "another host key": ({"host_key": sample.host_key()}, "shows another host key", "pin the new one"),
    "a host key of another type": (
        {"host_key": "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQDE"},
        "does not offer the pinned host key's type ssh-rsa",
        "pin the new one",
    ),
    "a broken private key": (
        {"private_key": "-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n-----END OPENSSH PRIVATE KEY-----"},
        "private key for 127.0.0.1 cannot be read",
        "without a passphrase",
    ),
}


@pytest.mark.parametrize(("changes", "what", "cure"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_names_the_cure_and_is_permanent(
    ssh_server: SshServer, changes: dict[str, str], what: str, cure: str
) -> None:
    with pytest.raises(HostRefused) as caught:
        ssh.run(ssh_server.host(**changes), shell("exit 0"))
    assert what in caught.value.what
    assert cure in caught.value.cure
    assert caught.value.permanent
    assert ssh_server.lines == []


def test_a_dead_port_is_unreachable_and_worth_another_try() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    host = sample.site(host__address="127.0.0.1", host__port=port).host
    with pytest.raises(HostUnreachable, match=f"root@127.0.0.1 port {port} cannot be reached over SSH") as caught:
        ssh.run(host, shell("exit 0"))
    assert not caught.value.permanent
    assert "provider's console" in caught.value.cure


def test_a_port_that_says_nothing_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        host = sample.site(host__address="127.0.0.1", host__port=mute.getsockname()[1], host__connect_timeout=0.5).host
        started = time.monotonic()
        with pytest.raises(HostUnreachable):
            ssh.run(host, shell("exit 0"))
    assert time.monotonic() - started < 5


KEYS = {
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "ECDSA": lambda: ec.generate_private_key(ec.SECP256R1()),
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
}


@pytest.mark.parametrize("made", KEYS.values(), ids=KEYS)
def test_keys_are_read_in_the_format_of_openssh_with_or_without_a_last_newline(made: Callable[[], Any]) -> None:
    text = made().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    for written in (text, text.rstrip()):
        assert ssh_connection.load_key(sample.site(host__private_key=written).host).can_sign()


def test_a_key_with_a_passphrase_is_refused_with_the_cure() -> None:
    locked = ed25519.Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.OpenSSH, BestAvailableEncryption(b"hunter2")
    )
    with pytest.raises(HostRefused, match="without a passphrase"):
        ssh_connection.load_key(sample.site(host__private_key=locked.decode()).host)


def test_no_error_and_no_repr_holds_a_word_of_the_private_key(ssh_server: SshServer) -> None:
    secret = sample.private_key().splitlines()[2]
    host = ssh_server.host(private_key=sample.private_key().replace(secret, f"{secret}broken"))
    with pytest.raises(GuardiaError) as caught:
        ssh.run(host, shell("exit 0"))
    for said in (str(caught.value), repr(caught.value), repr(host), str(host), host.model_dump_json()):
        assert secret not in said


def test_a_secret_in_what_a_command_says_is_masked_even_where_its_name_is_cut_off(host: Host) -> None:
    with pytest.raises(CommandFailed) as caught:
        ssh.run(host, shell("printf 'password=%0600d' 7 >&2; exit 1"))
    assert "000" not in str(caught.value)


def test_each_command_is_on_the_timeline_unless_it_is_quiet(host: Host) -> None:
    run = timeline.Run(id=uuid4(), playbook="test", site=sample.site(), planning=True)
    timeline.begin(run)
    try:
        ssh.run(host, Command(("cat", "/dev/null")))
        ssh.run(host, Command(("cat", "/dev/null")), quiet=True)
        with pytest.raises(CommandFailed):
            ssh.run(host, Command(("cat", "/nowhere")))
    finally:
        timeline.end()
    assert [(entry.what, entry.outcome, entry.ok) for entry in run.entries] == [
        ("cat /dev/null", "exit 0", True),
        ("cat /nowhere", "exit 1", False),
    ]


def test_a_command_that_changes_something_cannot_run_in_plan_mode(ssh_server: SshServer, host: Host) -> None:
    timeline.begin(timeline.Run(id=uuid4(), playbook="test", site=sample.site(), planning=True))
    try:
        with pytest.raises(AssertionError, match="plan mode would have run touch canary"):
            ssh.run(host, Command(("touch", "canary"), changes=True))
    finally:
        timeline.end()
    assert ssh_server.lines == []
