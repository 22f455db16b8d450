"""One SSH connection a host, reused by everything that speaks to it, with a pinned host key."""

from __future__ import annotations

import io
import logging
import socket
import threading
from typing import TYPE_CHECKING, Any

from blocks.errors import HostRefused, HostUnreachable
from blocks.host import Host

if TYPE_CHECKING:
    from paramiko import Channel, PKey, Transport

_WINDOW = 8 << 20  # bytes in flight on a channel: at 40 ms round trip 2 MiB gave 39 MiB/s, this 146, 32 MiB 51
_ASK = 15.0  # seconds between two questions whether the host is still there
_SILENCE = 90.0  # seconds without an answer after which a connection is given up; TCP's own limit is 15 minutes
_NEVER = 1 << 62
_PROHIBITED = 1  # SSH_OPEN_ADMINISTRATIVELY_PROHIBITED

_open: dict[tuple[str, int, str], Transport] = {}
_lock = threading.Lock()


def close(host: Host) -> None:
    """Drop the connection to a host; the next command opens a new one."""
    transport = _open.get(_key(host))
    if transport is not None:
        drop(host, transport)


def drop(host: Host, transport: Transport) -> None:
    """Drop this connection to a host, and not the one that another thread has opened since."""
    with _lock:
        if _open.get(_key(host)) is transport:
            del _open[_key(host)]
    transport.close()


def session(host: Host) -> Channel:
    """A channel for one command, on the open connection; on a new one if that has died (the host rebooted, say).

    Raises HostUnreachable, HostRefused.
    """
    from paramiko import SSHException

    for attempt in (1, 2):
        transport = opened(host)
        try:
            return transport.open_session(timeout=host.connect_timeout)
        except (SSHException, EOFError, OSError) as error:
            drop(host, transport)
            if attempt == 2:
                raise HostUnreachable(
                    f"{host.address} no longer answers on its SSH connection ({error}).", "Is the VPS up?"
                ) from error
    raise AssertionError("unreachable")


def forwarded(host: Host, address: str, port: int) -> Channel:
    """A channel to a TCP port as the host itself reaches it.

    Raises HostUnreachable if nothing listens there or the host is gone, HostRefused if sshd forbids it.
    """
    from paramiko import ChannelException, SSHException

    transport = opened(host)
    try:
        return transport.open_channel("direct-tcpip", (address, port), ("127.0.0.1", 0), timeout=host.connect_timeout)
    except ChannelException as error:
        if error.code == _PROHIBITED:
            raise HostRefused(
                f"sshd on {host.address} does not forward connections to {address} port {port}.",
                "Set `AllowTcpForwarding local` for this user in /etc/ssh/sshd_config there, and reload sshd.",
            ) from error
        raise HostUnreachable(f"Nothing answers at {address} port {port}, as seen from {host.address}.") from error
    except (SSHException, EOFError, OSError) as error:
        drop(host, transport)
        raise HostUnreachable(
            f"{host.address} no longer answers on its SSH connection ({error}).", "Is the VPS up?"
        ) from error


def opened(host: Host) -> Transport:
    """The connection to a host; a new one if there is none or it has died. Raises HostUnreachable, HostRefused."""
    with _lock:
        transport = _open.get(_key(host))
        if transport is None or not transport.is_active():
            transport = _open[_key(host)] = _connect(host)
        return transport


def survives(transport: Transport) -> bool:
    """Whether it outlived a channel that has ended; one that breaks closes its channels a moment before itself."""
    transport.join(1)
    return transport.is_active()


def _key(host: Host) -> tuple[str, int, str]:
    return host.address, host.port, host.user


def _connect(host: Host) -> Transport:
    import paramiko

    where = f"{host.user}@{host.address} port {host.port}"
    transport = None
    try:
        key = load_key(host)
        logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # its errors are raised here, with their cure
        transport = paramiko.Transport(_socket(host), default_window_size=_WINDOW)
        _leave_rekeying_to_the_server(transport)
        transport.banner_timeout = transport.auth_timeout = host.connect_timeout
        _want(transport, host.host_key.split()[0])
        transport.start_client(timeout=host.connect_timeout)
        _check_host_key(host, transport.get_remote_server_key())
        transport.auth_publickey(host.user, key)
        threading.Thread(target=_watch, args=(transport,), daemon=True).start()
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


def _watch(transport: Transport) -> None:
    """End a connection whose other end has gone silent, so that nobody who reads from it hangs."""
    transport.join(_ASK)
    while transport.is_active():
        giving_up = threading.Timer(_SILENCE, transport.close)
        giving_up.daemon = True
        giving_up.start()
        transport.global_request("keepalive@openssh.com", wait=True)  # returns too when the connection ends
        giving_up.cancel()
        transport.join(_ASK)


def _leave_rekeying_to_the_server(transport: Transport) -> None:
    """Paramiko asks for new keys after 512 MiB and then mostly times out; sshd does when the cipher needs them."""
    packets: Any = transport.packetizer
    packets.REKEY_BYTES = packets.REKEY_PACKETS = _NEVER


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
