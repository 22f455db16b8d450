"""A new data folder for a database that is corrupted, with the newest proven backup in it; the old one is kept.

Serves the guide's "Database Connection Lost", step 5: restore from backup if the database is corrupted. The new folder
takes the old one's place when the whole backup is in it, never before: no shop can start on an empty database.
"""

from datetime import datetime
from pathlib import PurePosixPath

from pydantic import BaseModel

from blocks.errors import BadBackup, CommandError, ConfigError, GuardiaError, NoSpace
from blocks.site import Site
from tasks import backups, cluster, compose, host, inventory, manifest, new_cluster, restore, ssh, timeline, volume
from tasks.command import Command, Plan, Statement
from tasks.docker import QUICK
from tasks.manifest import Manifest
from tasks.progress import progress
from tasks.steps import act, look

EMPTY = 64 << 20  # bytes of a cluster with nothing in it
DOCKER = "/var/lib/docker"  # where a container's own files are, the archive to be restored among them
PATIENCE = 180  # seconds until the database serves again

# --- commands -------------------------------------------------------------------------------------------------


def same_place(*paths: str) -> Command:
    """The number of the file system that each folder is on."""
    return Command(("stat", "--format", "%d", *paths), timeout=QUICK)


def is_there(path: str) -> Command:
    """Fails if there is nothing."""
    return Command(("test", "-e", path), timeout=QUICK)


def make_folder(path: str) -> Command:
    """A folder for root alone."""
    return Command(("install", "-d", "-m", "700", path), changes=True, timeout=QUICK)


def move(path: str, to: str) -> Command:
    """Rename a folder; within one file system that takes no time and no space."""
    return Command(("mv", "--no-target-directory", path, to), changes=True, timeout=QUICK)


# --- looks ----------------------------------------------------------------------------------------------------


class Choice(BaseModel):
    """The backup to restore, how long that took when it was proven, the data folder, where the old one goes, and what
    the server that makes the new one must be like.
    """

    backup: str
    snapshot_at: datetime
    proven_at: datetime
    restore_seconds: float
    folder: volume.Folder
    aside: str
    like: new_cluster.Like

    @property
    def new(self) -> str:
        """The new folder until it takes the old one's place; beside it, for a rename."""
        return f"{self.folder.path}.guardia-new"

    @property
    def summary(self) -> str:
        """One line for the timeline."""
        return f"{self.backup} with the data of {self.snapshot_at:%Y-%m-%d %H:%M:%S} UTC, proven"


@look("Choose the newest proven backup", kept=True)
def newest_proven(site: Site) -> Choice:
    """What to restore; kept, so that a resumed run goes on with it. Raises BadBackup if no backup is proven,
    NoSpace, ConfigError if there is no bucket or the data folder cannot be moved.

    (Database Connection Lost, step 5.)
    """
    if site.database is None or site.backups is None:
        raise ConfigError(
            f"{site.name} has no [database] or no [backups] to restore from.",
            f"Restore by hand: {site.folder}/infra/backups/restore_db.sh FILE.",
        )
    backup = next((backup for backup in backups.seen(site).usable if backup.proven), None)
    if backup is None or backup.manifest is None or backup.proof is None:
        raise BadBackup(
            f"No backup of {site.name} is proven.",
            "Prove one with `guardia verify BACKUP`, then start this one again.",
        )
    folder = volume.where(site)
    _refuse_small_disk(site, folder.path, backup.manifest)
    return Choice(
        backup=backup.name, snapshot_at=backup.manifest.snapshot_at, proven_at=backup.proof.at,
        restore_seconds=backup.proof.restore_seconds, folder=folder, aside=_aside(site, folder.path),
        like=new_cluster.like(site, folder.container),
    )  # fmt: skip


def _refuse_small_disk(site: Site, path: str, backup: Manifest) -> None:
    """The old folder stays on the same disk, and often the archive is there too while it is restored."""
    disks = ssh.run(site.host, host.disk_space()).stdout
    archive, restored = restore.room(backup)
    (size, free), docker = host.space_at(disks, path), host.space_at(disks, DOCKER)
    needed = restored + EMPTY + (archive if (size, free) == docker else 0)
    if size and free < needed:
        raise NoSpace(
            f"{path} on {site.host.address} has {free >> 20} MiB free; a second database needs about {needed >> 20}.",
            "Free some or enlarge the disk, then start this one again.",
        )


def _aside(site: Site, path: str) -> str:
    """Where the old folder goes: with the backups if that is the same file system, else beside itself."""
    if not _same_disk(site, path, str(PurePosixPath(path).parent)):
        raise ConfigError(
            f"{path} on {site.host.address} is a file system of its own, and cannot be moved aside.",
            f"Restore by hand: {site.folder}/infra/backups/restore_db.sh FILE.",
        )
    run = timeline.current()
    name, backup_root = str(run.id) if run else "guardia", "/var/backups"
    if _same_disk(site, path, backup_root):
        return f"{backup_root}/{site.name}/volumes/{name}"
    return f"{path}.old-{name}"


def _same_disk(site: Site, *paths: str) -> bool:
    try:
        return len(set(ssh.run(site.host, same_place(*paths)).stdout.split())) == 1
    except CommandError:
        return False  # one of them is not there


@look("See whether a rebuild of this run was cut off")
def begun(site: Site) -> bool:
    """The old data folder is aside already, so nothing but going on helps."""
    try:
        return _there(site, _aside(site, volume.where(site).path))
    except GuardiaError:
        return False  # nobody can say where the data is: then nothing was moved by this run


# --- the act --------------------------------------------------------------------------------------------------


def _rebuild(_plan: Plan, site: Site, found: Choice) -> str:
    """What is done is skipped: a process that was killed on the way is followed by another."""
    if not _there(site, found.aside):
        _make(site, found)
        for command in _change_places(site, found):
            ssh.run(site.host, command)
    elif _there(site, found.new):  # killed between the two renames
        ssh.run(site.host, move(found.new, found.folder.path))
    try:
        ssh.run(site.host, compose.start(site, "--no-deps", site.services.db))
        volume.wait_until_serving(site, PATIENCE)
        ssh.run(site.host, compose.start(site))
    except GuardiaError as error:
        raise type(error)(
            f"{error.what} {found.backup} is in place, whole; the old data folder is {found.aside}; web is stopped.",
            f"{error.cure} Then retry this run in the Prefect UI.",
        ) from error
    return f"{found.backup} is live; the old data folder is {found.aside}"


def _make(site: Site, found: Choice) -> None:
    """The backup, whole and compared, in the new folder; nothing live is touched."""
    assert site.database is not None
    live, backup = site.database.name, backups.find(site, found.backup)
    assert backup.manifest is not None
    with (
        progress(f"restore-{site.name}", f"Restore {found.backup} into a new data folder") as report,
        new_cluster.running(site, found.like, found.folder, found.new) as server,
    ):
        with cluster.maintenance(server) as connection:
            cluster.drop(connection, live)  # the empty one that the image made
        restore.restore(server, site, backup, live, report)
        if differences := manifest.differences(backup.manifest.contents, inventory.of(server, live)):
            raise BadBackup(
                f"{found.backup} restored is not what was backed up: {'; '.join(differences[:5])}.",
                "Nothing live was changed. Prove another with `guardia verify BACKUP`, then start this one again.",
            )


@act("Restore into a new data folder", gate="restore", do=_rebuild, by=("site",))
def rebuild(site: Site, found: Choice) -> Plan:
    """A new cluster is made beside the old one, the backup restored and compared; then the folders change places.

    (Database Connection Lost, step 5.)
    """
    assert site.database is not None
    live, made = site.database.name, new_cluster.server(site)
    return Plan(
        what=f"Restore the backup {found.backup} into a new data folder",
        where=site.host.address,
        commands=(
            new_cluster.new_folder(found.new, found.folder),
            new_cluster.run(site, found.like, found.folder, found.new),
            Statement("postgres", f'DROP DATABASE "{live}"  -- the empty one that the image made in there'),
            *restore.steps(made, live),
            new_cluster.stop(made.container), new_cluster.remove(made.container),
            *_change_places(site, found), compose.start(site, "--no-deps", site.services.db), compose.start(site),
        ),
        cost=f"Everything written after {found.snapshot_at:%Y-%m-%d %H:%M:%S} UTC is lost to the site; it stays, as "
        f"far as it can be read, in {found.aside}. Down for about {found.restore_seconds + 30:.0f} s more.",
        facts=(
            f"{found.backup} was restored and found exact on {found.proven_at:%Y-%m-%d %H:%M:%S} UTC, "
            f"in {found.restore_seconds:.0f} s",
            "it is restored beside the old data and compared exactly before anything that is there is touched",
            f"the old data folder is kept whole in {found.aside}",
            "settings changed inside the old folder (postgresql.conf, pg_hba.conf) are as new afterwards",
        ),
    )  # fmt: skip


def _change_places(site: Site, found: Choice) -> tuple[Command, ...]:
    return (
        make_folder(str(PurePosixPath(found.aside).parent)),
        compose.stop(site, site.services.web, site.services.db),
        move(found.folder.path, found.aside),
        move(found.new, found.folder.path),
    )


def _there(site: Site, path: str) -> bool:
    try:
        ssh.run(site.host, is_there(path), quiet=True)
    except CommandError:
        return False
    return True
