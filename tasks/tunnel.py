"""A TCP port that only the host reaches, as a Unix socket here, through the SSH connection."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from blocks.errors import HostError
from blocks.host import Host
from tasks import ssh_connection

if TYPE_CHECKING:
    from paramiko import Channel

_PIECE = 1 << 16  # bytes


@contextmanager
def tunnel(host: Host, address: str, port: int) -> Iterator[Path]:
    """A private folder with a socket `.s.PGSQL.<port>`, as libpq looks for it, that leads to `address:port`.

    It serves any number of connections at once, and none longer than the block. If the SSH connection is lost, they
    end at once; later ones go over a new one. Raises HostRefused if sshd forbids it, HostUnreachable if nothing
    listens there.
    """
    ssh_connection.forwarded(host, address, port).close()  # what is wrong is said here, not to whoever connects
    folder = Path(tempfile.mkdtemp(prefix="guardia-"))  # only its owner may enter
    pairs: list[_Pair] = []
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(folder / f".s.PGSQL.{port}"))
            listener.listen()
            accepting = threading.Thread(target=_accept, args=(listener, host, address, port, pairs), daemon=True)
            accepting.start()
            try:
                yield folder
            finally:
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
                accepting.join()
                for pair in pairs:
                    pair.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _accept(listener: socket.socket, host: Host, address: str, port: int, pairs: list[_Pair]) -> None:
    while True:
        try:
            local, _ = listener.accept()
        except OSError:
            return
        try:
            pairs.append(_Pair(local, ssh_connection.forwarded(host, address, port)))
        except HostError:
            local.close()  # which the client reports as a lost connection


class _Pair:
    """A local connection and its channel, copied both ways until either ends, and then ended both."""

    def __init__(self, local: socket.socket, channel: Channel) -> None:
        self._local, self._channel = local, channel
        for receive, send in ((local.recv, channel.sendall), (channel.recv, local.sendall)):
            threading.Thread(target=self._copy, args=(receive, send), daemon=True).start()

    def close(self) -> None:
        """End both; closing alone would not wake who reads the socket."""
        with suppress(OSError):
            self._local.shutdown(socket.SHUT_RDWR)
        self._local.close()
        self._channel.close()

    def _copy(self, receive: Callable[[int], bytes], send: Callable[[bytes], None]) -> None:
        from paramiko import SSHException

        with suppress(SSHException, EOFError, OSError):
            while chunk := receive(_PIECE):
                send(chunk)
        self.close()
