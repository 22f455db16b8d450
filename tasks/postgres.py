"""PostgreSQL servers in containers: their programs by `docker exec` or `runc`, their databases through a tunnel.

Nothing parses what psql prints, and no port is published.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from blocks.database import Database
from blocks.errors import (
    CommandFailed,
    ConfigError,
    DatabaseRefused,
    DatabaseUnreachable,
    GuardiaError,
    HostUnreachable,
    NoSpace,
)
from blocks.host import Host
from blocks.site import Site
from tasks import compose, ssh, ssh_connection
from tasks.command import Command
from tasks.docker import QUICK
from tasks.masking import mask
from tasks.tunnel import tunnel

if TYPE_CHECKING:
    import psycopg

# How a session writes values down, whatever the server, the database or the role have set: two servers that hold the
# same must say the same. And nothing that ends a long session.
SETTINGS = {
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "3",
    "lc_monetary": "C",
    "row_security": "off",
    "search_path": "",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}
# A statement ends soon after whoever waits for it is gone: it may hold locks. And a quiet session is not ended.
_FROM_14_ON = "SET client_connection_check_interval = '2s'; SET idle_session_timeout = 0"
# In English, where the user may ask for it: only a superuser, and a connection must not fail over it.
_ENGLISH = "SELECT set_config('lc_messages', 'C', false) WHERE current_setting('is_superuser') = 'on'"
_RUNC = ("runc", "--root", "/run/docker/runtime-runc/moby")
_ADDRESS = "{{.State.Status}} {{.HostConfig.NetworkMode}} {{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"


@dataclass(frozen=True)
class Server:
    """A PostgreSQL server in a container of a host. `container` is its id, `name` what people call it."""

    host: Host
    container: str
    user: str
    password: SecretStr
    port: int
    name: str


# --- commands -------------------------------------------------------------------------------------------------


def container(site: Site) -> Command:
    """The id of the database's container, running or not."""
    return compose.compose(site, "ps", "--all", "--quiet", site.services.db, timeout=QUICK)


def whereabouts(server: Server) -> Command:
    """State, network mode and addresses of a server's container."""
    return Command(("docker", "inspect", "--type", "container", "--format", _ADDRESS, server.container), timeout=QUICK)


def inside(server: Server, *argv: str, stdin: bool = False, changes: bool = False, timeout: int = 60) -> Command:
    """One program in the server's container, without a shell and without a terminal; `stdin`: it is fed.

    The host's time limit ends `docker exec`, not the program in the container: end its session on the server.
    """
    words = ("docker", "exec", *(("--interactive",) if stdin else ()), server.container)
    return Command((*words, *argv), changes=changes, timeout=timeout)


def straight(server: Server, *argv: str, timeout: int = 60) -> Command:
    """The same program in the same container, by the runtime below Docker, which hands it our own standard output.

    What `docker exec` prints goes through the daemon and two more programs: a dump of 790 MB took 13.0 s through them
    and 8.8 s without. The runtime itself would copy standard output too, for 3 s of a core; a third file it passes on
    as it is. User, capabilities, limits and namespaces are the container's, either way. Signals are passed on to the
    program, so the host's time limit ends it.

    It must start no other program and wait for it, as `timeout` does: if that one died first, by a signal that was
    passed on, PostgreSQL's first process would inherit the other and take its end for a crash of its own server.
    """
    ours = ("sh", "-c", 'exec "$@" 3>&1 >&2', "sh", *_RUNC, "exec", "--preserve-fds", "1", server.container)
    return Command((*ours, "sh", "-c", 'exec "$@" >&3 3>&-', "sh", *argv), timeout=timeout)


def straight_works(server: Server) -> Command:
    """Whether that way is open: only to root, and where the runtime is runc in its usual place."""
    return straight(server, "pg_dump", "--version", timeout=QUICK)


# --- servers and sessions -------------------------------------------------------------------------------------


def named(site: Site) -> Server:
    """The site's server in what people read: only the VPS knows the container's id, so a word stands for it."""
    assert site.database is not None
    user, port = site.database.user, site.database.port
    return Server(site.host, "CONTAINER", user, SecretStr(""), port, f"{site.services.db} of {site.name}")


def production(site: Site) -> Server:
    """The server that the site uses, whose container may be stopped.

    Raises ConfigError without a [database] or for an unknown service, DatabaseUnreachable if there is no container.
    """
    if site.database is None:
        raise ConfigError(f"The site {site.name} has no database.", "Add [database] to the site file.")
    service, where = site.services.db, site.host.address
    try:
        ids = ssh.run(site.host, container(site), quiet=True).stdout.split()
    except CommandFailed as error:
        if "no such service" in error.what.lower():
            raise ConfigError(
                f"{site.folder}/{site.compose_file} on {where} has no service {service}.",
                "Correct [services] in the site file.",
            ) from error
        raise compose.explain(site, error) from error
    if len(ids) > 1:
        raise ConfigError(f"The service {service} on {where} has {len(ids)} containers.", "Guardia knows only one.")
    if not ids:
        raise DatabaseUnreachable(
            f"The service {service} on {where} has no container.", f"Create it: `docker compose up -d {service}`."
        )
    name = f"{service} of {site.name} on {where}"
    return Server(site.host, ids[0], site.database.user, site.database.password, site.database.port, name)


@contextmanager
def live(site: Site) -> Iterator[tuple[Server, psycopg.Connection[tuple[Any, ...]], Database]]:
    """The site's own database: its server, a session in it, and its settings. Raises as `production` and `connect`."""
    server = production(site)
    assert site.database is not None
    with connect(server, site.database.name) as connection:
        yield server, connection, site.database


@contextmanager
def connect(
    server: Server, database: str, *, application: str = "guardia"
) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """One session, in which each statement is its own transaction unless one is begun.

    Raises DatabaseUnreachable, DatabaseRefused, NoSpace, also for what fails in the block; HostError.
    """
    with connections(server, database, 1, application=application) as (connection,):
        yield connection


@contextmanager
def connections(
    server: Server, database: str, count: int, *, application: str = "guardia"
) -> Iterator[list[psycopg.Connection[tuple[Any, ...]]]]:
    """Several sessions through one tunnel, for work side by side; otherwise as `connect`."""
    where = f"{database} in {server.name}"
    with _tunnel(server) as folder, _blaming_ssh(server.host, where), errors(where), ExitStack() as open_:
        yield [open_.enter_context(_session(server, database, folder, application=application)) for _ in range(count)]


@contextmanager
def errors(where: str) -> Iterator[None]:
    """Turn what psycopg raises in the block into DatabaseUnreachable, DatabaseRefused or NoSpace.

    Rows may be quoted in an error's details, so only its first line is kept.
    """
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        known = _explained(where, error)
        if known is None:
            raise
        raise known from error


@contextmanager
def _blaming_ssh(host: Host, where: str) -> Iterator[None]:
    """Say so where a session was lost because the SSH connection under it was: the server's log would tell nothing."""
    transport = ssh_connection.opened(host)
    try:
        yield
    except DatabaseUnreachable as error:
        if ssh_connection.survives(transport):
            raise
        raise DatabaseUnreachable(
            f"{where} does not answer: the SSH connection to {host.address} was lost.", "Is the VPS up?"
        ) from error


@contextmanager
def _session(
    server: Server, database: str, folder: Path, *, application: str
) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """One session, closed at the end without a commit: what was not committed by then is undone."""
    import psycopg

    connection = psycopg.connect(
        host=str(folder),
        port=server.port,
        dbname=database,
        user=server.user,
        password=server.password.get_secret_value(),
        application_name=application,
        client_encoding="UTF8",
        connect_timeout=max(2, int(server.host.connect_timeout)),
        options=" ".join(f"-c {name}={value}" for name, value in SETTINGS.items()),
        sslmode="disable",  # SSH encrypts, and a Unix socket has no TLS
        autocommit=True,
    )
    try:
        if connection.info.server_version >= 140000:
            connection.execute(_FROM_14_ON)
        connection.execute(_ENGLISH)
        yield connection
    finally:
        connection.close()


@contextmanager
def _tunnel(server: Server) -> Iterator[Path]:
    address = _address(server)
    with ExitStack() as open_:
        try:
            folder = open_.enter_context(tunnel(server.host, address, server.port))
        except HostUnreachable as error:
            raise DatabaseUnreachable(f"{server.name} cannot be reached: {error.what}", error.cure) from error
        yield folder


def _address(server: Server) -> str:
    """Where the host reaches the server's container."""
    cure = "See `docker compose ps --all` and its log there, and start it."
    try:
        state, mode, *addresses = ssh.run(server.host, whereabouts(server), quiet=True).stdout.split()
    except CommandFailed as error:
        if "no such" in error.what.lower():
            raise DatabaseUnreachable(f"The container of {server.name} is gone.", cure) from error
        raise
    if state != "running":
        raise DatabaseUnreachable(f"The container of {server.name} is not running, but {state}.", cure)
    if mode == "host":
        return "127.0.0.1"
    if not addresses:
        raise DatabaseUnreachable(f"The container of {server.name} has no network address.", cure)
    return addresses[0]


# What makes a session impossible now and possible later, in the words of the server.
_LATER = re.compile(r"starting up|shutting down|recovery mode|not yet accepting|too many (?:clients|connections)|slots")
_FULL = "53100"
_CONNECTION = ("08", "57P01", "57P02", "57P03", "53300")  # lost, server stopped, crashed or starting, no slot left
_CURES = {
    "password authentication failed": "Correct user and password of [database] in the site file.",
    "no pg_hba.conf entry": "Allow this user from the container's own network in pg_hba.conf.",
    "does not exist": "Correct name and user of [database] in the site file.",
}


def _explained(where: str, error: psycopg.Error) -> GuardiaError | None:
    """What an error means; None if it is the caller's own mistake, as a wrong number of parameters is."""
    import psycopg

    said = _said(error)
    code = error.sqlstate or ""
    cure = "" if code else next((cure for words, cure in _CURES.items() if words in said), "")
    if code == _FULL:
        return NoSpace(f"{where} has no disk space left: {said}", "Free some on the VPS.")
    if code and not code.startswith(_CONNECTION):
        return DatabaseRefused(f"{where} refused: {said} (SQLSTATE {code}).", cure)
    if not code and not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return None
    if not code and "FATAL:" in said and not _LATER.search(said):
        return DatabaseRefused(f"{where} refused a connection: {said}.", cure)
    return DatabaseUnreachable(f"{where} does not answer: {said}.", "See the log of its container.")


def _said(error: psycopg.Error) -> str:
    """The first line of what the server or libpq said, without the name of our own end of the tunnel."""
    text = error.diag.message_primary or str(error)
    line = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    return mask(re.sub(r'^connection (?:failed|is bad): connection to server on socket "[^"]*" failed: ', "", line))
