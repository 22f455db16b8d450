"""Free disk space so that a database which stopped for want of it starts again, and does not stop again.

Serves the guide's "Database Connection Lost", step 4: free up space, restart. Nothing in `pg_wal` is ever deleted by
hand: what holds it there, a replication slot that nobody uses, is dropped once the server runs. To start it then, the
file system lends the blocks that it reserves for root.
"""

import re
import time

from pydantic import BaseModel

from blocks.errors import CommandError, GuardiaError
from blocks.site import Site
from tasks import backups, compose, copies, docker, host, postgres, ssh, volume
from tasks.command import Command, Plan, Statement, Step
from tasks.docker import QUICK, Leftovers
from tasks.steps import act, look

JOURNAL = "16M"  # what stays of the system's journal
WAL_SHARE = 10  # a log that takes a tenth of the disk is kept by something
RECONNECT = 20  # seconds that a replica gets to connect again: it tries every 5
PATIENCE = 120  # seconds that the database may take to recover
DROP_SLOT = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = {} AND NOT active"

# --- commands -------------------------------------------------------------------------------------------------


def wal_size(path: str) -> Command:
    """KiB of the write-ahead log, wherever its folder really is."""
    return Command(("du", "-s", "-k", "--dereference-args", f"{path}/pg_wal"), timeout=QUICK)


def list_slots(path: str) -> Command:
    """Replication slots by name, from the files: the server does not run."""
    words = ("-mindepth", "1", "-maxdepth", "1", "-type", "d", "-printf", r"%f\n")
    return Command(("find", f"{path}/pg_replslot", *words), timeout=QUICK)


def device(path: str) -> Command:
    """The device whose file system a folder is on."""
    return Command(("findmnt", "--noheadings", "--output", "SOURCE", "--target", path), timeout=QUICK)


def reserve(block_device: str) -> Command:
    """What an ext4 file system keeps for root, among other facts."""
    return Command(("tune2fs", "-l", block_device), timeout=QUICK)


def set_reserve(block_device: str, blocks: int) -> Command:
    """Keep this many blocks for root."""
    return Command(("tune2fs", "-r", str(blocks), block_device), changes=True, timeout=60)


def shrink_journal() -> Command:
    """Delete old files of the system's journal."""
    return Command(("journalctl", f"--vacuum-size={JOURNAL}"), changes=True, timeout=60)


# --- looks ----------------------------------------------------------------------------------------------------


class Occupied(BaseModel):
    """What fills the disk and can be let go.

    `slots` are the replication slots if the write-ahead log has outgrown its share, `copies` files on the VPS of
    backups that are proven in the bucket, `reserved` the blocks of `device` that the file system keeps for root.
    """

    wal: int = 0
    size: int = 0
    slots: list[str] = []
    copies: list[str] = []
    device: str = ""
    reserved: int = 0

    @property
    def summary(self) -> str:
        """One line for the timeline."""
        slots = f", kept by the replication slots {', '.join(self.slots)}" if self.slots else ""
        return f"the write-ahead log takes {self.wal >> 20} of {self.size >> 20} MiB{slots}; {len(self.copies)} copies"


@look("See what fills the disk", kept=True)
def occupied(site: Site) -> Occupied:
    """What can be let go; kept, so that a resumed run knows the reserve that it must put back.

    (Database Connection Lost, step 4.)
    """
    path = volume.where(site).path
    size, _ = host.space_at(ssh.run(site.host, host.disk_space()).stdout, path)
    wal = int(_said(site, wal_size(path)).split("\t")[0] or 0) * 1024
    outgrown = site.database is not None and wal * WAL_SHARE > size
    slots = _said(site, list_slots(path)).split() if outgrown else []
    source = _said(site, device(path)).split("[")[0].strip() if slots else ""
    blocks = re.search(r"^Reserved block count: +(\d+)", _said(site, reserve(source)) if source else "", re.M)
    return Occupied(
        wal=wal, size=size, slots=sorted(slots), copies=_proven_copies(site),
        device=source if blocks else "", reserved=int(blocks[1]) if blocks else 0,
    )  # fmt: skip


def _proven_copies(site: Site) -> list[str]:
    """Copies on the VPS that the bucket has too, restored and found exact. None if that cannot be known."""
    if site.backups is None:
        return []
    try:
        proven = {backup.name for backup in backups.every(site) if backup.proven}
    except GuardiaError:
        return []
    files = _said(site, copies.list_files(copies.folder(site))).split()
    return sorted(f"{copies.folder(site)}/{file}" for file in files if file.split(".")[0] in proven)


def _said(site: Site, command: Command) -> str:
    """What a command printed; nothing if it failed, for what can be done without."""
    try:
        return ssh.run(site.host, command).stdout
    except CommandError:
        return ""


# --- the act --------------------------------------------------------------------------------------------------


def _free(_plan: Plan, site: Site, _: Leftovers, found: Occupied) -> str:
    try:
        for command in _before(site, found):
            ssh.run(site.host, command)
        seconds = volume.wait_until_serving(site, PATIENCE)
        if found.slots:
            time.sleep(RECONNECT)
            _drop_slots(site, found)
    finally:
        if found.reserved:
            ssh.run(site.host, set_reserve(found.device, found.reserved))
    ssh.run(site.host, compose.start(site))
    return f"the database was ready after {seconds:.0f} s"


@act("Free disk space for the database", gate="free_space", do=_free, by=("site",))
def free_space(site: Site, leftovers: Leftovers, found: Occupied) -> Plan:
    """Delete what nobody needs, start the database, drop the slots that hold its log. (… Lost, step 4.)"""
    facts = tuple(f"deletes the stopped container {name}" for name in leftovers.containers)
    facts += tuple(f"deletes the dangling image {image}" for image in leftovers.images)
    facts += tuple(
        f"drops the replication slot {slot}, unless a replica uses it within {RECONNECT} s or it holds little log"
        for slot in found.slots
    )
    facts += (f"lends the database the {found.reserved} blocks reserved for root meanwhile",) if found.reserved else ()
    lost = "Deleted: what stopped containers wrote outside volumes, old lines of the system's journal"
    lost += ", copies of backups that are proven in the bucket" if found.copies else ""
    replica = " A replica that used a dropped slot must be made anew." if found.slots else ""
    return Plan(
        what="Free disk space and restart the database",
        where=site.host.address,
        commands=(*_before(site, found), *_after(site, found), compose.start(site)),
        cost=f"{lost}. The database's own data is not touched.{replica}",
        facts=facts,
    )


def _before(site: Site, found: Occupied) -> tuple[Command, ...]:
    """Up to the start of the database."""
    db = site.services.db
    old = (copies.remove(*found.copies),) if found.copies else ()
    lend = (set_reserve(found.device, 0),) if found.reserved else ()
    start = (compose.start(site, "--no-deps", db), compose.restart(site, db))
    return docker.ping(), docker.prune(), shrink_journal(), *old, *lend, *start


def _after(site: Site, found: Occupied) -> tuple[Step, ...]:
    """What only a running server can do, and the reserve put back."""
    database = site.database.name if site.database else ""
    sql = [DROP_SLOT.format(f"'{slot}'") for slot in found.slots] + ["CHECKPOINT"] * bool(found.slots)
    back = (set_reserve(found.device, found.reserved),) if found.reserved else ()
    return (*(Statement(database, line) for line in sql), *back)


def _drop_slots(site: Site, found: Occupied) -> None:
    """Those that nobody uses and that hold back most of the log, each in its own database.

    After that a checkpoint removes the log that they held.
    """
    assert site.database is not None
    server = postgres.production(site)
    with postgres.connect(server, site.database.name) as connection:
        query = (
            "SELECT slot_name, coalesce(database, current_database()) FROM pg_replication_slots "
            "WHERE NOT active AND pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) > %s"
        )
        there = dict(connection.execute(query, [found.wal // 2]).fetchall())
    for slot in [slot for slot in found.slots if slot in there]:
        with postgres.connect(server, str(there[slot])) as connection:
            connection.execute(DROP_SLOT.format("%s"), [slot])
    with postgres.connect(server, site.database.name) as connection:
        connection.execute("CHECKPOINT")
