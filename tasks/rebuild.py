"""A new data folder for a database that is corrupted, with the newest proven backup in it; the old one is kept.

Serves the guide's "Database Connection Lost", step 5: restore from backup if the database is corrupted.
"""

from datetime import datetime
from pathlib import PurePosixPath

from pydantic import BaseModel

from blocks.errors import BadBackup, CommandError, ConfigError, GuardiaError, NoSpace
from blocks.site import Site
from tasks import backups, cluster, compose, host, postgres, restoring, ssh, swap, timeline, volume
from tasks.command import Command, Plan, Statement
from tasks.docker import QUICK
from tasks.postgres import Server
from tasks.steps import act, look

ROOM = 2  # times the database's size: its archive and its log are there too while it is restored
PATIENCE = 180  # seconds that a new cluster may take to be made

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


def move(path: str, aside: str) -> Command:
    """Rename a folder; within one file system that takes no time and no space."""
    return Command(("mv", "--no-target-directory", path, aside), changes=True, timeout=QUICK)


def new_folder(folder: volume.Folder) -> Command:
    """An empty data folder of the right user, in which the image makes a new cluster."""
    owner = ("-o", str(folder.uid), "-g", str(folder.gid))
    return Command(("install", "-d", "-m", "700", *owner, folder.path), changes=True, timeout=QUICK)


# --- looks ----------------------------------------------------------------------------------------------------


class Choice(BaseModel):
    """The backup to restore, how long that took when it was proven, the data folder and where the old one goes."""

    backup: str
    snapshot_at: datetime
    proven_at: datetime
    restore_seconds: float
    folder: volume.Folder
    aside: str

    @property
    def summary(self) -> str:
        """One line for the timeline."""
        return f"{self.backup} with the data of {self.snapshot_at:%Y-%m-%d %H:%M:%S} UTC, proven"


@look("Choose the newest proven backup", kept=True)
def newest_proven(site: Site) -> Choice:
    """What to restore; kept, so that a resumed run goes on with it. Raises BadBackup if no backup is proven,
    NoSpace, ConfigError if there is no bucket.

    (Database Connection Lost, step 5.)
    """
    if site.database is None or site.backups is None:
        raise ConfigError(
            f"{site.name} has no [database] or no [backups] to restore from.",
            f"Restore by hand: {site.folder}/infra/backups/restore_db.sh FILE.",
        )
    for backup in backups.every(site):
        if backup.manifest is not None and backup.proof is not None and backup.proof.verdict == "proven":
            folder = volume.where(site)
            _refuse_small_disk(site, folder.path, backup.manifest.database_bytes)
            return Choice(
                backup=backup.name, snapshot_at=backup.manifest.snapshot_at, proven_at=backup.proof.at,
                restore_seconds=backup.proof.restore_seconds, folder=folder, aside=_aside(site, folder.path),
            )  # fmt: skip
    raise BadBackup(
        f"No backup of {site.name} is proven.", "Prove one with `guardia verify BACKUP`, then start this one again."
    )


def _refuse_small_disk(site: Site, path: str, database_bytes: int) -> None:
    """Before the old folder is moved, not after it: it stays on the same disk."""
    size, free = host.space_at(ssh.run(site.host, host.disk_space()).stdout, path)
    if size and free < ROOM * database_bytes:
        raise NoSpace(
            f"{path} on {site.host.address} has {free >> 20} MiB free; a second database needs about "
            f"{ROOM * database_bytes >> 20}.",
            "Free some or enlarge the disk, then start this one again.",
        )


def _aside(site: Site, path: str) -> str:
    """Where the old folder goes: with the backups if that is the same file system, else beside itself."""
    run = timeline.current()
    name, backup_root = str(run.id) if run else "guardia", "/var/backups"
    try:
        first, second = ssh.run(site.host, same_place(path, backup_root)).stdout.split()
    except CommandError:
        first, second = "", "no /var/backups"
    if first == second:
        return f"{backup_root}/{site.name}/volumes/{name}"
    return f"{path}.old-{name}"


@look("See whether a rebuild of this run was cut off")
def begun(site: Site) -> bool:
    """The old data folder is aside already: an empty server runs in its place, and nothing but going on helps."""
    try:
        return _there(site, _aside(site, volume.where(site).path))
    except GuardiaError:
        return False  # nobody can say where the data is: then nothing was moved by this run


# --- the act --------------------------------------------------------------------------------------------------


def _rebuild(_plan: Plan, site: Site, found: Choice) -> str:
    """Each step is skipped if it is done: a process that was killed on the way is followed by another."""
    if not _there(site, found.aside):
        for command in _move_away(site, found):
            ssh.run(site.host, command)
    try:
        for command in _begin_anew(site, found):
            ssh.run(site.host, command)
        volume.wait_until_serving(site, PATIENCE)
        restoring.restore_beside(site, found.backup)  # and compare it
        _put_in_place(postgres.production(site), restoring.names(site, found.backup))
    except GuardiaError as error:
        raise type(error)(
            f"{error.what} The new data folder is EMPTY; the old one is whole in {found.aside}; web is stopped.",
            f"{error.cure} Then retry this run in the Prefect UI; do NOT start web before.",
        ) from error
    ssh.run(site.host, compose.start(site))
    return f"{found.backup} is live; the old data folder is {found.aside}"


def _put_in_place(server: Server, names: swap.Names) -> None:
    """Swap, and drop the empty database that the image made: nobody shall take it for what was live before."""
    with cluster.maintenance(server) as connection:
        restored = cluster.exists(connection, names.new)
    if restored:
        swap.swap(server, names)
    with cluster.maintenance(server) as connection:
        cluster.drop(connection, names.kept)


@act("Restore into a new data folder", gate="restore", do=_rebuild, by=("site",))
def rebuild(site: Site, found: Choice) -> Plan:
    """The old folder is moved aside, a new cluster made, the backup restored, compared and swapped in.

    (Database Connection Lost, step 5.)
    """
    names = restoring.names(site, found.backup)
    before = f'CREATE DATABASE "{names.new}"  -- the backup goes there and is compared exactly'
    after = f'DROP DATABASE "{names.kept}"  -- the empty one that the image made'
    sql = (before, *swap.statements(names), after)
    return Plan(
        what=f"Restore the backup {found.backup} into a new data folder",
        where=site.host.address,
        commands=(
            *_move_away(site, found), *_begin_anew(site, found),
            *(Statement("postgres", line) for line in sql), compose.start(site),
        ),
        cost=f"Everything written after {found.snapshot_at:%Y-%m-%d %H:%M:%S} UTC is lost to the site; it stays, as "
        f"far as it can be read, in {found.aside}. Down for about {found.restore_seconds + 30:.0f} s more.",
        facts=(
            f"{found.backup} was restored and found exact on {found.proven_at:%Y-%m-%d %H:%M:%S} UTC, "
            f"in {found.restore_seconds:.0f} s",
            f"the old data folder is kept whole in {found.aside}",
            "settings changed inside the old folder (postgresql.conf, pg_hba.conf) are as new afterwards",
        ),
    )  # fmt: skip


def _move_away(site: Site, found: Choice) -> tuple[Command, ...]:
    folder = str(PurePosixPath(found.aside).parent)
    stop = compose.stop(site, site.services.web, site.services.db)
    return stop, make_folder(folder), move(found.folder.path, found.aside)


def _begin_anew(site: Site, found: Choice) -> tuple[Command, ...]:
    return new_folder(found.folder), compose.start(site, "--no-deps", site.services.db)


def _there(site: Site, path: str) -> bool:
    try:
        ssh.run(site.host, is_there(path), quiet=True)
    except CommandError:
        return False
    return True
