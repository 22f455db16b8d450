"""The database's data folder on the host: where it is, whose files it holds, and giving them back.

Serves the guide's "Database Connection Lost", step 4: check volume permissions.
"""

import json
import re
import time
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any

from pydantic import BaseModel

from blocks.errors import CommandFailed, ConfigError, DatabaseUnreachable
from blocks.site import Site
from tasks import compose, postgres, ssh
from tasks.command import Command, Plan
from tasks.docker import QUICK
from tasks.steps import act, look

ENOUGH = 2  # looks in a row that find the database well, a second apart
SHOWN = 10  # files that a plan names
PGDATA_OF = (  # what is asked of a container: no more of its environment than the one word that is wanted
    '{{range .Config.Env}}{{with split . "="}}{{if eq (index . 0) "PGDATA"}}{{index . 1}}{{end}}{{end}}{{end}}'
)
_FORMAT = f'{{"mounts": {{{{json .Mounts}}}}, "user": {{{{json .Config.User}}}}, "pgdata": "{PGDATA_OF}"}}'
PGDATA = "/var/lib/postgresql/data"  # of the official image, unless its environment says otherwise

# --- commands -------------------------------------------------------------------------------------------------


def inspect(container: str) -> Command:
    """Mounts, user and data folder of a container, running or not."""
    return Command(("docker", "inspect", "--type", "container", "--format", _FORMAT, container), timeout=QUICK)


def users(container: str) -> Command:
    """The users that a container knows, as a tar archive with one file: it can be read when nothing can be run."""
    return Command(("docker", "cp", f"{container}:/etc/passwd", "-"), timeout=QUICK)


def wrong_files(path: str, uid: int) -> Command:
    """Files below `path` that the user cannot read and write, and a folder that others may enter."""
    locked = ("!", "-perm", "-u=rw", "-o", "-type", "d", "!", "-perm", "-u=rwx")
    others = ("-path", path, "-perm", "/g=w,o=rwx")
    tests = ("(", "!", "-uid", str(uid), "-o", "!", "-type", "l", "(", *locked, ")", "-o", *others, ")")
    return Command(("find", path, *tests, "-printf", r"%U:%G %m %p\n"), timeout=60)


def give(path: str, owner: str) -> Command:
    """Give everything below `path` to `UID:GID`."""
    return Command(("chown", "--recursive", owner, path), changes=True, timeout=600)


def open_up(path: str) -> Command:
    """Let the owner, and nobody else, read and write everything below `path`."""
    return Command(("chmod", "--recursive", "u=rwX,go=", path), changes=True, timeout=600)


# --- looks ----------------------------------------------------------------------------------------------------


class Folder(BaseModel):
    """The data folder on the host, the numbers of the user and group that it must belong to, and its container."""

    path: str
    uid: int
    gid: int
    container: str

    @property
    def owner(self) -> str:
        """For chown."""
        return f"{self.uid}:{self.gid}"


class Wrong(BaseModel):
    """Files that PostgreSQL cannot use as they are: owner, mode and path of the first ones, and how many there are."""

    folder: Folder
    files: list[str] = []
    count: int = 0

    @property
    def ok(self) -> bool:
        """All belong to the right user."""
        return not self.count

    @property
    def summary(self) -> str:
        """One line for the timeline."""
        return f"{self.count} files in {self.folder.path} are not as {self.folder.owner} needs them"

    @property
    def text(self) -> str:
        """Evidence."""
        return "\n".join(self.files)


@look("Check the permissions of the database's files")
def permissions(site: Site) -> Wrong:
    """Whose files the data folder holds. (Database Connection Lost, step 4.)"""
    folder = where(site)
    lines = ssh.run(site.host, wrong_files(folder.path, folder.uid)).stdout.splitlines()
    by_path = sorted(lines, key=lambda line: line.split(" ", 2)[-1])  # the folder itself first
    return Wrong(folder=folder, files=by_path[:SHOWN], count=len(lines))


def where(site: Site) -> Folder:
    """The data folder of the site's database. Raises ConfigError if it is not on the host."""
    container = ssh.run(site.host, postgres.container(site), quiet=True).stdout.strip()
    if not container:
        raise ConfigError(f"{site.services.db} on {site.host.address} has no container.", "Run `docker compose up -d`.")
    said = json.loads(ssh.run(site.host, inspect(container), quiet=True).stdout)
    passwd = ssh.run(site.host, users(container), quiet=True).stdout
    uid, gid = owner(said["user"], passwd)
    return Folder(path=on_host(said["mounts"], said["pgdata"] or PGDATA), uid=uid, gid=gid, container=container)


def on_host(mounts: list[dict[str, Any]], pgdata: str) -> str:
    """Where the host keeps what the container sees at `pgdata`."""
    inside = PurePosixPath(pgdata)
    over = [mount for mount in mounts if inside.is_relative_to(mount["Destination"])]
    if not over:
        raise ConfigError(f"{pgdata} of the database is on no volume.", "Its data ends with the container: add one.")
    nearest = max(over, key=lambda mount: len(mount["Destination"]))
    return str(PurePosixPath(nearest["Source"]) / inside.relative_to(nearest["Destination"]))


def owner(user: str, passwd: str) -> tuple[int, int]:
    """User and group of the server: the container's own user, else `postgres`, which the image changes to."""
    name, _, group = user.partition(":")
    if name.isdigit() and name != "0":
        return int(name), int(group) if group.isdigit() else int(name)
    wanted = name if name not in {"", "0", "root"} else "postgres"
    found = re.search(rf"(?:^|\0){re.escape(wanted)}:[^:]*:(\d+):(\d+):", passwd, re.M)
    if not found:
        raise ConfigError(f"The database's image has no user {wanted}.", "Guardia knows the official postgres images.")
    return int(found[1]), int(found[2])


# --- acts -----------------------------------------------------------------------------------------------------


@act("Give the database's files back to its user", gate="chown", by=("site",))
def give_back(site: Site, found: Wrong) -> Plan:
    """Owner and mode as PostgreSQL needs them, then a restart. (Database Connection Lost, step 4.)"""
    path, more = found.folder.path, found.count - len(found.files)
    facts = tuple(f"now {file}" for file in found.files) + ((f"and {more} more",) if more > 0 else ())
    return Plan(
        what="Give the database's files back to its user",
        where=site.host.address,
        commands=(give(path, found.folder.owner), open_up(path), compose.restart(site, site.services.db)),
        cost="No data is lost. Only the database's user can read the files afterwards.",
        facts=facts,
    )


def wait_until_serving(site: Site, patience: int) -> float:
    """Seconds until the database is well for Docker and takes connections. Raises CommandFailed if it never is."""
    started, in_a_row = time.monotonic(), 0
    while time.monotonic() - started < patience:
        in_a_row = in_a_row + 1 if _serves(site) else 0
        if in_a_row == ENOUGH:
            return time.monotonic() - started
        time.sleep(1)
    raise CommandFailed(
        f"{site.services.db} on {site.host.address} did not get ready within {patience} s.", "See its log."
    )


def _serves(site: Site) -> bool:
    """A health check that asks the socket is content while a new cluster is still being made, so it is not enough."""
    containers = compose.parse_ps(ssh.run(site.host, compose.ps(site, site.services.db), quiet=True).stdout)
    if not containers or not all(container.ok for container in containers):
        return False
    if site.database is None:
        return True
    with suppress(DatabaseUnreachable), postgres.connect(postgres.production(site), site.database.name):
        return True
    return False
