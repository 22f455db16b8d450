"""Run commands on a host over one reused SSH connection with a pinned host key.

Serves the guide's "SSH to VPS". Nothing here retries a command that may have begun: the steps know what is safe.
"""

from __future__ import annotations

import io
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blocks.errors import CommandFailed, CommandTimedOut, GuardiaError, HostRefused, HostUnreachable
from blocks.host import Host
from tasks import timeline
from tasks.command import Runnable
from tasks.masking import mask

if TYPE_CHECKING:
    from paramiko import Channel, PKey, Transport

OUTPUT_LIMIT = 1 << 20  # bytes kept of each stream; the rest is read and dropped, so that nothing blocks
_TIMED_OUT = {124, 137}  # what timeout(1) exits with after TERM and after KILL
_GRACE = 15  # seconds that the host gets to end a command by itself before the connection is given up

_open: dict[tuple[str, int, str], Transport] = {}
_lock = threading.Lock()


@dataclass(frozen=True)
class Output:
    """What a command left: exit status, both streams as text, seconds it took."""

    exit_code: int
    stdout: str
    stderr: str
    seconds: float


def run(host: Host, command: Runnable, *, quiet: bool = False) -> Output:
    """Run one command on the host and record it on the timeline (`quiet`: leave it off, for polling).

    Raises HostUnreachable, HostRefused, CommandTimedOut, and CommandFailed for any exit status but 0.
    """
    current = timeline.current()
    if command.changes and current is not None and current.planning:
        raise AssertionError(f"plan mode would have run {command.line}")
    started = time.monotonic()
    try:
        output = _exec(host, command)
    except GuardiaError as error:
        if not quiet:
            _record(host, command, str(error), time.monotonic() - started, ok=False)
        raise
    if not quiet:
        _record(host, command, f"exit {output.exit_code}", output.seconds, ok=output.exit_code == 0)
    return _checked(host, command, output)


def close(host: Host) -> None:
    """Drop the connection to a host; the next command opens a new one."""
    with _lock:
        transport = _open.pop(_key(host), None)
    if transport is not None:
        transport.close()


def _checked(host: Host, command: Runnable, output: Output) -> Output:
    if output.exit_code == 0:
        return output
    said = mask(output.stderr.strip() or output.stdout.strip())[-500:] or "nothing"  # a cut name would unmask
    if output.exit_code in _TIMED_OUT and output.seconds >= command.timeout:
        raise CommandTimedOut(
            f"`{command.line}` on {host.address} did not end within {command.timeout} s and was killed.",
            "What it talks to (often dockerd or a full disk) hangs.",
        )
    raise CommandFailed(
        f"`{command.line}` on {host.address} ended with exit status {output.exit_code} and said: {said}",
        "Run it by hand to see more.",
    )


def _record(host: Host, command: Runnable, outcome: str, seconds: float, *, ok: bool) -> None:
    timeline.record(
        "command", command.line, outcome=outcome, seconds=seconds, changes=command.changes, ok=ok,
        detail={"host": host.address},
    )  # fmt: skip


def _exec(host: Host, command: Runnable) -> Output:
    from paramiko import SSHException

    started = time.monotonic()
    channel = _channel(host)
    try:
        channel.settimeout(command.timeout + _GRACE)
        channel.exec_command(command.bounded)
        channel.shutdown_write()
        errors = _Drain(channel.recv_stderr)
        errors.start()
        stdout = _drain(channel.recv)
        errors.join(_GRACE)
        if not channel.status_event.wait(_GRACE):
            raise EOFError("no exit status")
        code = channel.recv_exit_status()
    except (SSHException, EOFError, OSError) as error:
        close(host)
        raise _lost(host, command, error) from error
    finally:
        channel.close()
    if code == -1:  # paramiko's word for "the connection ended before the command did"
        close(host)
        raise _lost(host, command, EOFError("connection ended"))
    return Output(code, stdout, errors.text, time.monotonic() - started)


def _lost(host: Host, command: Runnable, error: Exception) -> HostUnreachable:
    return HostUnreachable(
        f"The connection to {host.address} was lost during `{command.line}` ({str(error) or type(error).__name__}).",
        "Whether it ran to its end is not known; the next look tells.",
    )


def _drain(receive: object) -> str:
    assert callable(receive)
    kept, size = [], 0
    while chunk := receive(65536):
        if size < OUTPUT_LIMIT:
            kept.append(chunk[: OUTPUT_LIMIT - size])
        size += len(chunk)
    return b"".join(kept).decode("utf-8", "replace")


class _Drain(threading.Thread):
    """Reads standard error while the caller reads standard output: a full window on either would block both."""

    def __init__(self, receive: object) -> None:
        super().__init__(daemon=True)
        self._receive, self.text = receive, ""

    def run(self) -> None:
        try:
            self.text = _drain(self._receive)
        except OSError:
            self.text = ""  # the reader of standard output meets the same error and reports it


def _channel(host: Host) -> Channel:
    """A channel on the open connection; on a new one if that has died (the host rebooted, say)."""
    from paramiko import SSHException

    for attempt in (1, 2):
        transport = _transport(host)
        try:
            return transport.open_session(timeout=host.connect_timeout)
        except (SSHException, EOFError, OSError) as error:
            close(host)
            if attempt == 2:
                raise HostUnreachable(
                    f"{host.address} no longer answers on its SSH connection ({error}).", "Is the VPS up?"
                ) from error
    raise AssertionError("unreachable")


def _transport(host: Host) -> Transport:
    with _lock:
        transport = _open.get(_key(host))
        if transport is None or not transport.is_active():
            transport = _open[_key(host)] = _connect(host)
        return transport


def _key(host: Host) -> tuple[str, int, str]:
    return host.address, host.port, host.user


def _connect(host: Host) -> Transport:
    import paramiko

    where = f"{host.user}@{host.address} port {host.port}"
    transport = None
    try:
        key = load_key(host)
        transport = paramiko.Transport(_socket(host))
        transport.banner_timeout = transport.auth_timeout = host.connect_timeout
        _want(transport, host.host_key.split()[0])
        transport.start_client(timeout=host.connect_timeout)
        _check_host_key(host, transport.get_remote_server_key())
        transport.auth_publickey(host.user, key)
        transport.set_keepalive(15)
    except (paramiko.AuthenticationException, paramiko.ssh_exception.IncompatiblePeer, HostRefused) as error:
        if transport:
            transport.close()
        raise _refused(host, where, error) from error
    except (paramiko.SSHException, EOFError, OSError) as error:
        if transport:
            transport.close()
        raise HostUnreachable(
            f"{where} cannot be reached over SSH ({str(error) or type(error).__name__}).",
            "Is the VPS up? Look at the provider's console; check address, port and firewall.",
        ) from error
    return transport


def _refused(host: Host, where: str, error: Exception) -> HostRefused:
    import paramiko

    if isinstance(error, HostRefused):
        return error
    if isinstance(error, paramiko.AuthenticationException):
        return HostRefused(
            f"{where} refused the SSH key.",
            "Add its public half to ~/.ssh/authorized_keys there, or give the right key in the site file.",
        )
    return HostRefused(
        f"{where} does not offer the pinned host key's type {host.host_key.split()[0]} ({error}).",
        "Compare the key on the VPS's own console; only if it was changed on purpose, pin the new one.",
    )


def _check_host_key(host: Host, offered: PKey) -> None:
    import paramiko

    pinned = paramiko.PKey.from_type_string(*_decoded(host.host_key))
    if offered != pinned:
        raise HostRefused(
            f"{host.address} port {host.port} shows another host key ({offered.get_name()} {offered.fingerprint}) than "
            f"the pinned one ({pinned.fingerprint}): somebody may be in between, or the VPS was reinstalled.",
            "Compare it on the VPS's own console; only if it was changed on purpose, pin the new one in the site file.",
        )


def _decoded(host_key: str) -> tuple[str, bytes]:
    import base64

    kind, text = host_key.split()
    return kind, base64.b64decode(text)


def _want(transport: Transport, kind: str) -> None:
    """Ask for the pinned key's type, and for the cipher that is fast on every recent processor."""
    options = transport.get_security_options()
    options.key_types = ("rsa-sha2-512", "rsa-sha2-256") if kind == "ssh-rsa" else (kind,)
    fast = "aes128-gcm@openssh.com"
    options.ciphers = (fast, *(cipher for cipher in options.ciphers if cipher != fast))


def _socket(host: Host) -> socket.socket:
    connection = socket.create_connection((host.address, host.port), timeout=host.connect_timeout)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # 48 ms a command become 5
    return connection


def load_key(host: Host) -> PKey:
    """The private key, parsed; HostRefused, without a word of it, if it is not one that SSH knows."""
    import paramiko

    text = host.private_key.get_secret_value()
    text = text if text.endswith("\n") else text + "\n"
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        try:
            return kind.from_private_key(io.StringIO(text))
        except (paramiko.SSHException, ValueError, IndexError):
            continue
    raise HostRefused(
        f"The private key for {host.address} cannot be read.",
        "It must be an Ed25519, ECDSA or RSA key in OpenSSH or PEM format, without a passphrase.",
    )
