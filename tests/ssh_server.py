"""A real SSH server on loopback. It runs each command line with `sh -c` in a folder where stubs are the only programs.

A stub writes down the arguments it got and says what the test wants; what runs is on PATH, and nothing else is.
Connections are forwarded to what really listens here.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import paramiko
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from paramiko.common import (
    AUTH_FAILED,
    AUTH_SUCCESSFUL,
    OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED,
    OPEN_FAILED_CONNECT_FAILED,
    OPEN_FAILED_RESOURCE_SHORTAGE,
    OPEN_SUCCEEDED,
)

from blocks.host import Host
from tests.sample import private_key

REAL = ("bash", "cat", "env", "head", "sleep", "timeout", "touch", "wc")
_RECORD = """#!/bin/sh
printf '%s\\0' "$#" "$@" >> {calls}
{script}
"""


class SshServer:
    """Knows one key, counts connections, and drops them when told to."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.work, self._bin = folder, folder / "work", folder / "bin"
        self.work.mkdir()
        self._bin.mkdir()
        for program in REAL:
            (self._bin / program).symlink_to(str(shutil.which(program)))
        key = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        (folder / "host_key").write_bytes(key)
        self.key = paramiko.Ed25519Key(filename=str(folder / "host_key"))
        self.connections = 0
        self.forwards = True  # as `AllowTcpForwarding` says
        self.lines: list[str] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        self._transports: list[paramiko.Transport] = []
        self._sessions: list[_Session] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        self.drop()

    def host(self, **changes: Any) -> Host:
        """This server as the operator configures it."""
        said = {
            "address": "127.0.0.1", "port": self.port, "private_key": private_key(), "connect_timeout": 5,
            "host_key": f"{self.key.get_name()} {self.key.get_base64()}",
        }  # fmt: skip
        return Host.model_validate(said | changes)

    def stub(self, name: str, script: str = "") -> None:
        """Put a program on PATH that records its arguments and then does what the shell script says."""
        (self._bin / name).write_text(_RECORD.format(calls=self._calls(name), script=script))
        (self._bin / name).chmod(0o755)
        self._calls(name).unlink(missing_ok=True)

    def calls(self, name: str) -> list[list[str]]:
        """The arguments of each call of a stub since it was made."""
        words = self._calls(name).read_bytes().decode().split("\0")[:-1] if self._calls(name).exists() else []
        calls = []
        while words:
            count = int(words[0])
            calls.append(words[1 : count + 1])
            words = words[count + 1 :]
        return calls

    def wedge(self) -> None:
        """Keep every connection of now open, but start nothing more on it."""
        for session in self._sessions:
            session.wedged = True

    def drop(self) -> None:
        """Lose every connection at once, and end what runs."""
        for transport in self._transports:
            transport.close()
        self._transports.clear()
        for process in self.processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(5)
        self.processes.clear()

    def _calls(self, name: str) -> Path:
        return self.folder / f"{name}.calls"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as sshd does
            transport = paramiko.Transport(connection)
            transport.add_server_key(self.key)
            self._transports.append(transport)
            self._sessions.append(_Session(self))
            with suppress(paramiko.SSHException, EOFError, OSError):
                transport.start_server(event=threading.Event(), server=self._sessions[-1])
                self.connections += 1
                threading.Thread(target=self._sessions[-1].forward, args=(transport,), daemon=True).start()

    def serve(self, channel: paramiko.Channel, line: str) -> None:
        """Run a command line, as sshd does, with both streams on their way at the same time."""
        self.lines.append(line)
        process = subprocess.Popen(
            ["/bin/sh", "-c", line], cwd=self.work, env={"PATH": str(self._bin)}, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self.processes.append(process)
        accepted = threading.Event()
        threading.Thread(target=_input, args=(channel, process.stdin, accepted), daemon=True).start()
        pumps = [
            threading.Thread(target=_pump, args=(process.stdout, channel.sendall), daemon=True),
            threading.Thread(target=_pump, args=(process.stderr, channel.sendall_stderr), daemon=True),
        ]
        for pump in pumps:
            pump.start()
        for pump in pumps:
            pump.join()
        status = process.wait()
        accepted.wait(1)
        with suppress(paramiko.SSHException, EOFError, OSError):
            if status >= 0:
                channel.send_exit_status(status)
            channel.close()


class _Session(paramiko.ServerInterface):
    def __init__(self, server: SshServer) -> None:
        self._server, self.wedged = server, False
        self._forwarded: dict[int, socket.socket] = {}
        authorized = server.folder / "authorized"
        authorized.write_text(private_key())
        self._authorized = paramiko.Ed25519Key(filename=str(authorized))

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return AUTH_SUCCESSFUL if key == self._authorized else AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return OPEN_FAILED_RESOURCE_SHORTAGE if self.wedged else OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=self._server.serve, args=(channel, command.decode()), daemon=True).start()
        return True

    def check_channel_direct_tcpip_request(self, chanid: int, origin: object, destination: tuple[str, int]) -> int:
        if not self._server.forwards:
            return OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
        try:
            self._forwarded[chanid] = socket.create_connection(destination, 5)
        except OSError:
            return OPEN_FAILED_CONNECT_FAILED
        return OPEN_SUCCEEDED

    def forward(self, transport: paramiko.Transport) -> None:
        """Copy what is forwarded, both ways, as long as the connection lives."""
        while transport.is_active():
            channel = transport.accept(0.5)
            there = self._forwarded.pop(channel.get_id(), None) if channel else None
            if channel and there:
                there.settimeout(None)
                for receive, send in ((channel.recv, there.sendall), (there.recv, channel.sendall)):
                    threading.Thread(target=_copy, args=(receive, send, channel, there), daemon=True).start()


def _copy(receive: Any, send: Any, channel: paramiko.Channel, there: socket.socket) -> None:
    with suppress(paramiko.SSHException, EOFError, OSError):
        while chunk := receive(65536):
            send(chunk)
    with suppress(OSError):
        there.shutdown(socket.SHUT_RDWR)
    there.close()
    channel.close()


def _input(channel: paramiko.Channel, stdin: Any, accepted: threading.Event) -> None:
    """Copy standard input, which comes once the client has read that the command was accepted."""
    with suppress(paramiko.SSHException, EOFError, OSError), stdin:
        while chunk := channel.recv(65536):
            accepted.set()
            stdin.write(chunk)
            stdin.flush()
    accepted.set()


def _pump(source: Any, send: Any) -> None:
    with suppress(paramiko.SSHException, EOFError, OSError), source:
        while chunk := source.read1(65536):
            send(chunk)
