"""A port that only the host reaches, as a socket here: who may use it, and how it ends."""

import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from blocks.errors import HostRefused, HostUnreachable
from blocks.host import Host
from tasks import ssh
from tasks.command import Command
from tasks.tunnel import tunnel
from tests.ssh_server import SshServer


@pytest.fixture
def host(ssh_server: SshServer) -> Iterator[Host]:
    host = ssh_server.host()
    yield host
    ssh.close(host)


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that says everything back."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer(connection: socket.socket) -> None:
            with suppress(OSError), connection:
                while data := connection.recv(65536):
                    connection.sendall(data)

        def serve() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def connected(folder: Path, port: int) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(5)
    connection.connect(str(folder / f".s.PGSQL.{port}"))
    return connection


def said_back(connection: socket.socket, data: bytes) -> bytes:
    threading.Thread(target=connection.sendall, args=(data,), daemon=True).start()
    answer = b""
    while len(answer) < len(data) and (part := connection.recv(65536)):
        answer += part
    return answer


def test_connections_pass_both_ways_side_by_side(host: Host, echo: int) -> None:
    data = bytes(range(256)) * 16384
    with tunnel(host, "127.0.0.1", echo) as folder, connected(folder, echo) as one, connected(folder, echo) as two:
        assert said_back(one, b"hello") == b"hello"
        assert said_back(two, data) == data
        assert said_back(one, data) == data


def test_nobody_else_may_enter_and_nothing_is_left(host: Host, echo: int) -> None:
    with tunnel(host, "127.0.0.1", echo) as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not folder.exists()


def test_connections_end_with_the_block(host: Host, echo: int) -> None:
    with tunnel(host, "127.0.0.1", echo) as folder:
        connection = connected(folder, echo)
        assert said_back(connection, b"hello") == b"hello"
    assert connection.recv(1) == b""
    connection.close()


def test_a_connection_ends_when_the_far_side_ends(host: Host) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with tunnel(host, "127.0.0.1", port) as folder, connected(folder, port) as connection:
            listener.accept()[0].close()  # that of the trial
            there, _ = listener.accept()
            there.sendall(b"last words")
            there.close()
            assert connection.recv(100) == b"last words"
            assert connection.recv(100) == b""


def test_a_lost_ssh_connection_ends_them_at_once_and_later_ones_go_over_a_new_one(
    ssh_server: SshServer, host: Host, echo: int
) -> None:
    with tunnel(host, "127.0.0.1", echo) as folder, connected(folder, echo) as connection:
        assert said_back(connection, b"hello") == b"hello"
        began = time.monotonic()
        ssh_server.drop()
        assert connection.recv(1) == b""
        assert time.monotonic() - began < 2
        with connected(folder, echo) as later:
            assert said_back(later, b"again") == b"again"
    assert ssh_server.connections == 2


def test_a_host_that_is_gone_ends_a_connection_instead_of_letting_it_hang(
    ssh_server: SshServer, host: Host, echo: int
) -> None:
    with tunnel(host, "127.0.0.1", echo) as folder:
        ssh_server.__exit__()
        with connected(folder, echo) as connection:
            assert connection.recv(1) == b""


def test_a_host_that_forbids_it_is_an_error_with_the_cure(ssh_server: SshServer, host: Host, echo: int) -> None:
    ssh_server.forwards = False
    with pytest.raises(HostRefused, match="AllowTcpForwarding local") as caught, tunnel(host, "127.0.0.1", echo):
        pass
    assert caught.value.permanent


def test_a_port_where_nothing_listens_is_named(ssh_server: SshServer, host: Host) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (
        pytest.raises(HostUnreachable, match=f"Nothing answers at 127.0.0.1 port {port}"),
        tunnel(host, "127.0.0.1", port),
    ):
        pass
    ssh.run(host, Command(("cat", "/dev/null")))
    assert ssh_server.connections == 1  # a refused channel is no reason to drop the connection
