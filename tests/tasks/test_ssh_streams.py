"""Streams of a command: what is read while it runs and what it is fed, and how each end of them is told apart."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from uuid import uuid4

import pytest

from blocks.errors import CommandFailed, CommandTimedOut, HostUnreachable
from blocks.host import Host
from tasks import ssh, timeline
from tasks.command import Command, Pipeline
from tests import sample
from tests.ssh_server import SshServer

MEBIBYTE = 1 << 20


@pytest.fixture
def host(ssh_server: SshServer) -> Iterator[Host]:
    host = ssh_server.host()
    yield host
    ssh.close(host)


def shell(script: str, timeout: int = 20, *, changes: bool = False) -> Command:
    """A script in the tests' own name; Guardia itself never builds one."""
    return Command(("/bin/sh", "-c", script), timeout=timeout, changes=changes)


def wait_until_all_ended(ssh_server: SshServer, seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while any(process.poll() is None for process in ssh_server.processes):
        assert time.monotonic() < deadline, "a command was left behind"
        time.sleep(0.02)


# --- reading --------------------------------------------------------------------------------------------------


def test_a_read_gives_exactly_what_was_asked_for_until_the_end(host: Host) -> None:
    with ssh.reading(host, shell("printf abc; sleep 0.1; printf defg")) as reader:
        assert [reader.read(2), reader.read(4), reader.read(4), reader.read(4)] == [b"ab", b"cdef", b"g", b""]
        assert reader.received == 7


def test_many_mebibytes_arrive_as_they_were_sent(host: Host) -> None:
    with ssh.reading(host, shell(f"head -c {20 * MEBIBYTE} /dev/zero")) as reader:
        assert reader.read(8 * MEBIBYTE) == bytes(8 * MEBIBYTE)
        assert len(reader.read(64 * MEBIBYTE)) == 12 * MEBIBYTE


def test_a_command_that_fails_after_its_output_never_looks_like_an_end(host: Host) -> None:
    with (
        pytest.raises(CommandFailed, match="ended with exit status 3 and said: the disk went away"),
        ssh.reading(host, shell("printf abcd; echo the disk went away >&2; exit 3")) as reader,
    ):
        assert reader.read(4) == b"abcd"
        assert reader.read(4) != b""


def test_a_short_read_of_a_failed_command_gives_nothing_out(host: Host) -> None:
    with pytest.raises(CommandFailed), ssh.reading(host, shell("printf abcd; exit 3")) as reader:
        pytest.fail(f"read {reader.read(10)!r}")


def test_a_pipeline_fails_with_its_first_stage(host: Host) -> None:
    pipeline = Pipeline((shell("printf half; echo out of memory >&2; exit 2"), Command(("cat",))), timeout=20)
    with pytest.raises(CommandFailed, match="out of memory"), ssh.reading(host, pipeline) as reader:
        reader.read(10)


def test_a_secret_on_standard_error_is_masked(host: Host) -> None:
    command = shell("printf 'password=%s' hunter; printf 'password=%s' hunter >&2; exit 1")
    with pytest.raises(CommandFailed) as caught, ssh.reading(host, command) as reader:
        reader.read(100)
    assert "said: password=" in str(caught.value)
    assert "said: password=hunter" not in str(caught.value)


def test_a_full_standard_error_does_not_block_what_is_read(host: Host) -> None:
    with ssh.reading(host, shell(f"head -c {20 * MEBIBYTE} /dev/zero >&2; printf done")) as reader:
        assert reader.read(10) == b"done"


def test_a_stream_that_stops_coming_is_ended_by_the_host(host: Host) -> None:
    with (
        pytest.raises(CommandTimedOut, match="did not end within 1 s"),
        ssh.reading(host, shell("printf a; sleep 30", timeout=1)) as reader,
    ):
        reader.read(2)


def test_a_command_that_dies_of_a_signal_has_failed_and_the_connection_has_not(
    ssh_server: SshServer, host: Host
) -> None:
    with (
        pytest.raises(CommandFailed, match="was killed and said: nothing"),
        ssh.reading(host, shell("printf a; sleep 0.3")) as reader,
    ):
        reader.read(1)
        ssh_server.processes[-1].kill()  # the outermost program, whose status sshd reports: none, then
        reader.read(1)
    assert ssh.run(host, shell("echo here")).stdout == "here\n"
    assert ssh_server.connections == 1


def test_a_connection_that_is_lost_while_reading_is_an_error_at_once(ssh_server: SshServer, host: Host) -> None:
    began = time.monotonic()
    with (
        pytest.raises(HostUnreachable, match="was lost during"),
        ssh.reading(host, shell("printf a; sleep 30", timeout=60)) as reader,
    ):
        assert reader.read(1) == b"a"
        threading.Timer(0.2, ssh_server.drop).start()
        reader.read(1)
    assert time.monotonic() - began < 5


def test_leaving_early_ends_the_command_and_keeps_the_connection(ssh_server: SshServer, host: Host) -> None:
    with ssh.reading(host, shell("while printf aaaaaaaa; do :; done")) as reader:
        assert reader.read(4) == b"aaaa"
    wait_until_all_ended(ssh_server)
    assert ssh.run(host, shell("echo here")).stdout == "here\n"
    assert ssh_server.connections == 1


def test_an_error_of_the_reader_is_passed_on_as_it_is(ssh_server: SshServer, host: Host) -> None:
    with pytest.raises(OSError, match="the bucket"), ssh.reading(host, shell("cat /dev/zero")) as reader:
        reader.read(10)
        raise OSError("the bucket")
    wait_until_all_ended(ssh_server)
    assert ssh.run(host, shell("exit 0")).exit_code == 0
    assert ssh_server.connections == 1


def test_several_streams_share_a_connection(ssh_server: SshServer, host: Host) -> None:
    with ExitStack() as stack:
        readers = [
            stack.enter_context(ssh.reading(host, shell(f"head -c {3 * MEBIBYTE} /dev/zero; printf {n}")))
            for n in range(4)
        ]
        ends = [reader.read(3 * MEBIBYTE + 10)[-2:] for reader in reversed(readers)]
    assert ends == [b"\x003", b"\x002", b"\x001", b"\x000"]
    assert ssh_server.connections == 1


# --- feeding --------------------------------------------------------------------------------------------------


def test_what_is_fed_arrives_whole_and_ends(ssh_server: SshServer, host: Host) -> None:
    chunks = [b"ab", b"", bytes(5 * MEBIBYTE), b"z"]
    assert ssh.feed(host, Command(("wc", "-c")), chunks).stdout.strip() == str(5 * MEBIBYTE + 3)
    ssh.feed(host, shell("cat > whole"), chunks)
    assert (ssh_server.work / "whole").read_bytes() == b"".join(chunks)


def test_a_command_that_answers_while_it_is_fed_blocks_nobody(host: Host) -> None:
    output = ssh.feed(host, Command(("cat",)), (bytes(MEBIBYTE) for _ in range(20)))
    assert len(output.stdout) == ssh.OUTPUT_LIMIT


def test_a_command_that_fails_early_is_quoted_and_fed_no_more(host: Host) -> None:
    drawn = 0

    def chunks() -> Iterator[bytes]:
        nonlocal drawn
        while True:
            drawn += 1
            yield bytes(MEBIBYTE)

    with pytest.raises(CommandFailed, match="ended with exit status 5 and said: no such database"):
        ssh.feed(host, shell("echo no such database >&2; exit 5"), chunks())
    assert drawn < 50


def test_a_command_that_ends_well_without_reading_everything_has_failed(host: Host) -> None:
    with pytest.raises(CommandFailed, match="ended before it had read all of its input"):
        ssh.feed(host, shell("head -c 10"), (bytes(MEBIBYTE) for _ in range(100)))


def test_an_error_of_the_source_is_passed_on_and_ends_the_command(ssh_server: SshServer, host: Host) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise OSError("the archive is damaged")

    with pytest.raises(OSError, match="the archive is damaged"):
        ssh.feed(host, Command(("cat",)), chunks())
    wait_until_all_ended(ssh_server)
    assert ssh.run(host, shell("exit 0")).exit_code == 0
    assert ssh_server.connections == 1


def test_a_connection_that_is_lost_while_feeding_is_an_error_at_once(ssh_server: SshServer, host: Host) -> None:
    def chunks() -> Iterator[bytes]:
        yield bytes(MEBIBYTE)
        ssh_server.drop()
        while True:
            yield bytes(MEBIBYTE)

    began = time.monotonic()
    with pytest.raises(HostUnreachable, match="was lost during"):
        ssh.feed(host, shell("cat > /dev/null", timeout=60), chunks())
    assert time.monotonic() - began < 5


# --- the record -----------------------------------------------------------------------------------------------


def test_streams_are_on_the_timeline_with_how_they_ended(host: Host) -> None:
    run = timeline.Run(id=uuid4(), playbook="test", site=sample.site(), planning=True)
    timeline.begin(run)
    try:
        with ssh.reading(host, Command(("head", "-c", "5", "/dev/zero"))) as reader:
            reader.read(10)
        with ssh.reading(host, Command(("cat", "/dev/zero"))) as reader:
            reader.read(10)
        with pytest.raises(KeyError), ssh.reading(host, Command(("cat", "/dev/null"))):
            raise KeyError
        with pytest.raises(CommandFailed), ssh.reading(host, Command(("cat", "/nowhere"))) as reader:
            reader.read(1)
        with ssh.reading(host, Command(("cat", "/dev/null")), quiet=True) as reader:
            reader.read(1)
    finally:
        timeline.end()
    assert [(entry.what, entry.outcome.split("(")[0][:40], entry.ok) for entry in run.entries] == [
        ("head -c 5 /dev/zero", "exit 0 after 5 bytes", True),
        ("cat /dev/zero", "left after 10 bytes", True),
        ("cat /dev/null", "KeyError", False),
        ("cat /nowhere", "`cat /nowhere` on 127.0.0.1 ended with e", False),
    ]


def test_a_stream_that_changes_something_cannot_run_in_plan_mode(ssh_server: SshServer, host: Host) -> None:
    timeline.begin(timeline.Run(id=uuid4(), playbook="test", site=sample.site(), planning=True))
    try:
        with pytest.raises(AssertionError, match="plan mode"):
            ssh.feed(host, shell("cat > canary", changes=True), [b"x"])
        with pytest.raises(AssertionError, match="plan mode"), ssh.reading(host, shell("exit 0", changes=True)):
            pass
    finally:
        timeline.end()
    assert ssh_server.lines == []
