"""A new cluster in a folder of its own, made by the image and with the settings of the production container.

Serves the guide's "Database Connection Lost", step 5. It runs in a container of its own and in nobody's way: what is
made here takes the live folder's place only when it is whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import BaseModel

from blocks.errors import GuardiaError
from blocks.site import Site
from tasks import drill, ssh, timeline
from tasks.command import Command, Pipeline
from tasks.docker import QUICK
from tasks.postgres import Server
from tasks.volume import PGDATA, PGDATA_OF, Folder

LABEL = "guardia.rebuild"
SHUTDOWN = 120  # seconds that the server may take to write everything down
_FORMAT = (
    '{"image": {{json .Image}}, "command": {{json .Config.Cmd}}, "user": {{json .Config.User}}, "pgdata": '
    f'"{PGDATA_OF}"}}'
)

# --- commands -------------------------------------------------------------------------------------------------


def inspect(container: str) -> Command:
    """Image, command and user of a container, and its data folder."""
    return Command(("docker", "inspect", "--type", "container", "--format", _FORMAT, container), timeout=QUICK)


def environment(container: str) -> Command:
    """The container's settings as an env file. They hold its password and stay on the host: pipe them on."""
    each = "{{range .Config.Env}}{{println .}}{{end}}"
    return Command(("docker", "inspect", "--type", "container", "--format", each, container), timeout=QUICK)


def new_folder(path: str, folder: Folder) -> Command:
    """An empty folder of the database's user, in which the image makes a new cluster."""
    owner = ("-o", str(folder.uid), "-g", str(folder.gid))
    return Command(("install", "-d", "-m", "700", *owner, path), changes=True, timeout=QUICK)


def remove_folder(path: str) -> Command:
    """Remove a new folder; one that is not there is no error."""
    return Command(("rm", "--recursive", "--force", path), changes=True, timeout=600)


def run(site: Site, like: Like, folder: Folder, path: str) -> Pipeline:
    """Start a server like that of the site, its init scripts included, with its data in `path`."""
    words = (
        "--detach", "--name", name(site), "--label", f"{LABEL}={site.name}",
        "--volumes-from", folder.container, "--volume", f"{path}:{like.pgdata}", "--shm-size", "256m",
        "--no-healthcheck", *(("--user", like.user) if like.user else ()), "--env-file", "/dev/stdin",
    )  # fmt: skip
    server = Command(("docker", "run", *words, like.image, *like.command), changes=True, timeout=120)
    return Pipeline((environment(folder.container), server), timeout=120)


def stop(container: str) -> Command:
    """Let the server write everything down and end."""
    words = ("docker", "stop", "--time", str(SHUTDOWN), container)
    return Command(words, changes=True, timeout=SHUTDOWN + 30)


def left(site: Site) -> Command:
    """The containers in which new clusters of this site were being made."""
    return Command(
        ("docker", "container", "ls", "--all", "--quiet", "--filter", f"label={LABEL}={site.name}"), timeout=QUICK
    )


def remove(*containers: str) -> Command:
    """Remove these containers. Their volumes are those of the site and stay."""
    return Command(("docker", "container", "rm", "--force", *containers), changes=True, timeout=120)


# --- the cluster ----------------------------------------------------------------------------------------------


class Like(BaseModel):
    """What the production container was made of."""

    image: str
    command: list[str] = []
    user: str = ""
    pgdata: str


def name(site: Site) -> str:
    """Of the container in which a new cluster is made."""
    return f"guardia-rebuild-{site.name}"


def like(site: Site, container: str) -> Like:
    """What a container was made of; it need not run."""
    said = json.loads(ssh.run(site.host, inspect(container), quiet=True).stdout)
    return Like(**said | {"command": said["command"] or [], "pgdata": said["pgdata"] or PGDATA})


def server(site: Site) -> Server:
    """The server in which a new cluster is made, running or not."""
    assert site.database is not None
    database, called = site.database, f"the new cluster of {site.name} on {site.host.address}"
    return Server(site.host, name(site), database.user, database.password, database.port, called)


@contextmanager
def running(site: Site, like: Like, folder: Folder, path: str) -> Iterator[Server]:
    """A new cluster in `path`, to be filled. Afterwards it is shut down in order; if the block failed it is gone.

    What an earlier try left, because its process was killed, is removed first. Raises DatabaseUnreachable if the
    server does not start.
    """
    _clear(site, path)
    try:
        ssh.run(site.host, new_folder(path, folder))
        ssh.run(site.host, run(site, like, folder, path))
        made = server(site)
        drill.wait_for(made)
        yield made
        ssh.run(site.host, stop(made.container))
        ssh.run(site.host, remove(made.container))
    except BaseException:
        try:
            _clear(site, path)
        except GuardiaError as error:
            timeline.record("note", "the new cluster could not be removed", outcome=str(error), ok=False)
        raise


def _clear(site: Site, path: str) -> None:
    if ids := ssh.run(site.host, left(site), quiet=True).stdout.split():
        ssh.run(site.host, remove(*ids))
    ssh.run(site.host, remove_folder(path))
