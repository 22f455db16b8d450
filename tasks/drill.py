"""A throwaway server of the production image, in which a backup is proven, and of which nothing may be left."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import BaseModel, SecretStr

from blocks.errors import CommandFailed, ConfigError, DatabaseUnreachable, GuardiaError
from blocks.host import Host
from blocks.site import Site
from tasks import postgres, ssh, timeline
from tasks.command import Command, Pipeline
from tasks.docker import QUICK
from tasks.postgres import Server
from tasks.steps import look

LABEL = "guardia.drill"
PATIENCE = 120  # seconds that an empty server may take to start

# --- commands -------------------------------------------------------------------------------------------------


def image_of(container: str) -> Command:
    """The id of the image that a container was made of, whatever its tag means by now."""
    return Command(("docker", "inspect", "--type", "container", "--format", "{{.Image}}", container), timeout=QUICK)


def image(id: str) -> Command:
    """Fails if the machine does not have the image."""
    return Command(("docker", "image", "inspect", "--format", "{{.Id}}", id), timeout=QUICK)


def make_network(site: Site, name: str) -> Command:
    """A network that leads nowhere: what is restored may hold functions and triggers."""
    words = ("--internal", "--label", f"{LABEL}={site.name}", name)
    return Command(("docker", "network", "create", *words), changes=True, timeout=60)


def run(site: Site, name: str, image: str) -> Pipeline:
    """Start the server; its password comes on standard input, which must be a pipe to be opened by name."""
    words = (
        "--detach", "--name", name, "--label", f"{LABEL}={site.name}", "--network", name,
        "--cpus", f"{site.drill.cpus:g}", "--memory", f"{site.drill.memory}m", "--shm-size", "256m",
        "--no-healthcheck", "--security-opt", "no-new-privileges", "--env-file", "/dev/stdin",
    )  # fmt: skip
    server = Command(("docker", "run", *words, image, *settings(site.drill.memory)), changes=True, timeout=120)
    return Pipeline((Command(("cat",)), server), timeout=120)


def settings(memory: int) -> tuple[str, ...]:
    """Options of a server that nobody will miss: as fast as `memory` MiB allow, safe against nothing."""
    options = {
        "fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "wal_level": "minimal",
        "max_wal_senders": "0", "autovacuum": "off", "jit": "off", "max_wal_size": "1GB",
        "shared_buffers": f"{memory // 4}MB", "maintenance_work_mem": f"{memory // 8}MB",
    }  # fmt: skip
    return tuple(word for name, value in options.items() for word in ("-c", f"{name}={value}"))


def left(site: Site, kind: str) -> Command:
    """The ids of the `container`s or `network`s of this site's drills."""
    every = ("--all",) if kind == "container" else ()
    words = ("docker", kind, "ls", *every, "--quiet", "--filter", f"label={LABEL}={site.name}")
    return Command(words, timeout=QUICK)


def remove(kind: str, *ids: str) -> Command:
    """Remove `container`s with their volumes, or `network`s."""
    how = ("--force", "--volumes") if kind == "container" else ()
    return Command(("docker", kind, "rm", *how, *ids), changes=True, timeout=120)


def log(container: str) -> Command:
    """What the server said last."""
    return Command(("docker", "logs", "--tail", "20", container), timeout=QUICK)


# --- the drill ------------------------------------------------------------------------------------------------


@contextmanager
def drill(site: Site) -> Iterator[Server]:
    """An empty server of the production image, within the site's limits, that only this block can reach.

    What an earlier drill of the site left, because its process was killed, is removed first: only one at a time.
    A failure to remove it afterwards is no failure of the drill; `left_behind` tells of it.
    Raises ConfigError if the machine for drills lacks the image, DatabaseUnreachable if the server does not start.
    """
    host = site.drill.host or site.host
    wanted = image_for(site)
    _remove_all(site, host)
    name = f"guardia-drill-{site.name}-{secrets.token_hex(3)}"
    password = secrets.token_urlsafe(24)
    try:
        ssh.run(host, make_network(site, name))
        user = site.database.user if site.database else "postgres"
        ssh.feed(host, run(site, name, wanted), [_environment(user, password)])
        server = Server(host, name, user, SecretStr(password), 5432, f"the drill of {site.name} on {host.address}")
        wait_for(server)
        yield server
    finally:
        try:
            _remove_all(site, host)
        except GuardiaError as error:
            timeline.record("note", "the drill could not be removed", outcome=str(error), ok=False)


class LeftBehind(BaseModel):
    """What drills could not take away: in words, with the cure."""

    summary: str = "nothing"
    ok: bool = True


@look("See what is left of the drill")
def left_behind(site: Site) -> LeftBehind:
    """A container that runs on holds a copy of the site's data."""
    host = site.drill.host or site.host
    ids = ssh.run(host, left(site, "container"), quiet=True).stdout.split()
    if not ids:
        return LeftBehind()
    words = f"The restored copy of the data could not be removed from {host.address}, and the next proof tries again."
    return LeftBehind(summary=f"{words} By hand, there: {remove('container', *ids).line}", ok=False)


def image_for(site: Site) -> str:
    """The id of the production image. Raises ConfigError if the machine for drills lacks it."""
    host = site.drill.host or site.host
    wanted = ssh.run(site.host, image_of(postgres.production(site).container)).stdout.strip()
    if host != site.host:
        try:
            ssh.run(host, image(wanted))
        except CommandFailed as error:
            raise ConfigError(
                f"{host.address} does not have the production image {wanted}.",
                f"Copy it: ssh {site.host.address} docker save {wanted} | ssh {host.address} docker load",
            ) from error
    return wanted


def _environment(user: str, password: str) -> bytes:
    """As the official image reads it, on the first start of an empty volume."""
    lines = {
        "POSTGRES_USER": user, "POSTGRES_PASSWORD": password, "POSTGRES_DB": "postgres",
        "POSTGRES_INITDB_ARGS": "--no-sync",
    }  # fmt: skip
    return "".join(f"{name}={value}\n" for name, value in lines.items()).encode()


def wait_for(server: Server) -> None:
    """Until it answers over TCP: while it is being made, it listens on its socket alone."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with postgres.connect(server, "postgres"):
                return
        except DatabaseUnreachable as error:
            if time.monotonic() > deadline or "not running" in error.what:
                output = ssh.run(server.host, log(server.container))
                said = (output.stdout + output.stderr).strip()[-500:]
                raise DatabaseUnreachable(
                    f"{server.name} does not start; it said: {said}", "Has that machine the memory and the space?"
                ) from error
        time.sleep(0.2)


def _remove_all(site: Site, host: Host) -> None:
    for kind in ("container", "network"):
        if ids := ssh.run(host, left(site, kind), quiet=True).stdout.split():
            ssh.run(host, remove(kind, *ids))
