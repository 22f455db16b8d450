"""The steps of getting data back: look at the damage beside the live database, put rows back or swap databases.

Serves the guide's "Data Loss / Corruption", steps 2 to 5. Live rows are never overwritten by a restore: it goes into a
new database, and the live one is kept under another name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from blocks.database import Database
from blocks.errors import BadBackup, ConfigError
from blocks.site import Site
from tasks import (
    backups,
    cluster,
    damage,
    invariants,
    loss,
    manifest,
    own_dumps,
    postgres,
    rescue,
    restore,
    snapshot,
    swap,
    timeline,
)
from tasks.backups import Backups
from tasks.command import Plan, Statement
from tasks.damage import Damage
from tasks.loss import How, Loss
from tasks.own_dumps import OwnFile
from tasks.postgres import Server
from tasks.progress import progress
from tasks.rescue import Rescue
from tasks.steps import act, look

if TYPE_CHECKING:
    from psycopg import Connection

# --- looks ----------------------------------------------------------------------------------------------------


class Recent(BaseModel):
    """What the guide's queries for recent data show."""

    text: str

    @property
    def summary(self) -> str:
        """One line for the timeline."""
        return f"{len(self.text.splitlines())} lines"


class Checked(BaseModel):
    """The site's invariants by name, with the rows that violate each, or why they cannot be asked."""

    violations: dict[str, int] = {}
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Whether all hold."""
        return not self.problem and not any(self.violations.values())

    @property
    def summary(self) -> str:
        """One line for the timeline."""
        if self.problem:
            return self.problem
        broken = [f"{name}: {rows:,} rows violate it" for name, rows in self.violations.items() if rows]
        return "; ".join(broken) or f"all {len(self.violations)} invariants hold"


class SetAside(BaseModel):
    """The database that the last restore set aside."""

    names: swap.Names

    @property
    def summary(self) -> str:
        """One line for the timeline."""
        return self.names.kept


class Accepting(BaseModel):
    """Whether the live database takes connections: a swap that was cut off may have left it closed."""

    ok: bool

    @property
    def summary(self) -> str:
        """One line for the timeline."""
        return "it does" if self.ok else "it does not: a swap was cut off"


@look("See whether the database takes connections")
def accepting(site: Site) -> Accepting:
    """True if there is no such database: then nobody closed it."""
    assert site.database is not None
    with cluster.maintenance(postgres.production(site)) as connection:
        return Accepting(ok=not swap.closed(connection, site.database.name))


@look("List the backups", kept=True)
def candidates(site: Site) -> Backups:
    """Those there were when the run began: its own safety backup is none. (Data Loss / Corruption, step 3.)"""
    return backups.seen(site)


class OwnFiles(BaseModel):
    """The dumps of the site's own script, newest first, or why they cannot be listed."""

    items: list[OwnFile] = []
    problem: str = ""

    @property
    def summary(self) -> str:
        """One line for the timeline."""
        return self.problem or f"{len(self.items)} files, newest {self.items[0].name if self.items else 'none'}"


@look("List the files of the site's own script", kept=True)
def own_files(site: Site) -> OwnFiles:
    """Dumps that can be restored too, though no manifest says what must be in them. (Data Loss, step 3.)"""
    if site.own_scripts is None:
        return OwnFiles(problem="the site has no script of its own")
    try:
        return OwnFiles(items=own_dumps.files(site))
    except ConfigError as error:  # the folder may be gone, and the backups are elsewhere
        return OwnFiles(problem=str(error))


@look("Look at recent data")
def recent(site: Site) -> Recent:
    """The guide's two queries. (Data Loss / Corruption, step 2.)"""
    with _live(site) as (_, connection, database):
        return Recent(text=damage.recent(connection, database.recent))


@look("Compare the live database with the backup", kept=True)
def assess(site: Site, name: str, attempt: int = 1) -> Damage:
    """Per table, rows missing, changed and new, by primary key, and the tenants whose they are, by name.

    In plan mode nothing was restored, and nothing is compared. (Data Loss / Corruption, step 2.)
    """
    del attempt  # another one looks again
    if timeline.planning():
        now = datetime.now(UTC)
        return Damage(live=site.name, beside=name, at=now, tables=(), tenants={}, compared=0)
    with (
        _live(site) as (server, live, database),
        postgres.connect(server, beside(site, name)) as restored,
        progress(f"compare-{site.name}", f"Compare with {name}") as report,
    ):
        return damage.compare(live, restored, database.tenants, report)


@look("List what a rescue would put back", kept=True)
def rescuable(site: Site, found: Damage, only: list[str], changed: bool) -> Rescue:
    """Rows of the chosen tables and tenants (all damaged ones if none is named) that are in the backup alone.

    Raises ConfigError for a table or tenant that is not among the damaged ones.
    """
    if timeline.planning():
        return Rescue(
            live=found.live, beside=found.beside, at=found.at, tables=(), tenants={}, chosen=(), of=(),
            include_changed=changed,
        )  # fmt: skip
    tables, tenants = _sorted_out(found, only)
    with _live(site) as (server, _, _), postgres.connect(server, found.beside) as restored:
        return rescue.plan(restored, found, tables, tenants, include_changed=changed)


@look("Say what was lost", kept=True)
def lost(site: Site, name: str, how: How, found: Damage | Rescue) -> Loss:
    """What a whole restore, or a rescue, gives back and costs each tenant. (Data Loss / Corruption, step 5.)"""
    with _live(site) as (server, live, database):
        owners = damage.owners(live, database.tenants, list(found.tenants))
        if how == "whole restore" and found.tenants:  # a tenant that is lost is in the backup alone
            with postgres.connect(server, beside(site, name)) as restored:
                owners = [*damage.owners(restored, database.tenants, list(found.tenants)), *owners]
    kept = f"What is lost is still in the database {names(site, name).kept} and in the safety backup."
    return loss.of(found, how, name, owners, kept if how == "whole restore" else "Nothing was taken away.")


@look("Find the database that the last restore set aside", kept=True)
def set_aside(site: Site) -> SetAside:
    """Raises ConfigError if there is none."""
    assert site.database is not None
    live = site.database.name
    swaps = swap.kept(postgres.production(site), live)
    if not swaps:
        raise ConfigError(f"No restore has set a database of {site.name} aside.", "There is nothing to undo.")
    return SetAside(names=swaps[-1])


@look("Check the data")
def check(site: Site) -> Checked:
    """Ask the site's invariants: what does not hold is a finding, and a table that is gone too.

    (Data Loss / Corruption, step 5: check data integrity.)
    """
    with _live(site) as (_, connection, database):
        try:
            return Checked(violations=invariants.violations(connection, database.invariants))
        except ConfigError as error:
            return Checked(problem=error.what)


# --- acts -----------------------------------------------------------------------------------------------------


def _open_again(_: Plan, site: Site, attempt: int) -> str:
    del attempt
    assert site.database is not None
    swap.reopen(postgres.production(site), site.database.name)
    return "it takes connections again"


@act("Let clients connect to the database again", gate="restart", do=_open_again)
def open_again(site: Site, attempt: int) -> Plan:
    """Where a swap was cut off, by a power cut say, the live database is whole, but nobody gets in."""
    del attempt
    assert site.database is not None
    live = site.database.name
    return Plan(
        what=f"Let clients connect to {live} again",
        where=site.host.address,
        commands=(Statement("postgres", f'ALTER DATABASE "{live}" ALLOW_CONNECTIONS true'),),
        cost="None.",
    )


def _restore_beside(_: Plan, site: Site, name: str) -> str:
    """Restore and compare. A database of that name is one that this run has restored already."""
    server, new = postgres.production(site), beside(site, name)
    with cluster.maintenance(server) as connection:
        there = cluster.exists(connection, new)
    if not there:
        restore.clear(server, names(site, name).live)
    if name.endswith(own_dumps.SUFFIX):
        return _restore_own(server, site, name, new, there=there)
    backup = backups.find(site, name)
    assert backup.manifest is not None
    seconds, created = 0.0, list[str]()
    if not there:
        with cluster.maintenance(server) as connection:
            created = cluster.missing_roles(connection, backup.manifest.contents.roles)
        with progress(f"restore-{site.name}", f"Restore {name} beside the live database") as report:
            seconds = restore.restore(server, site, backup, new, report)
    with snapshot.shared(server, new) as state:
        differences = manifest.differences(backup.manifest.contents, manifest.take_parallel(state.sessions))
    if differences:
        with cluster.maintenance(server) as connection:
            cluster.drop(connection, new)
            for role in created:
                cluster.drop_role(connection, role)
        raise BadBackup(f"{name} restored is not what was backed up: {'; '.join(differences[:5])}.", "Choose another.")
    return f"restored in {seconds:.0f} s and found exact: {len(backup.manifest.contents.tables)} tables"


def _restore_own(server: Server, site: Site, name: str, new: str, *, there: bool) -> str:
    """The rows of every table are counted before the database gets its name."""
    assert site.database is not None
    if there:
        return "restored before, with the rows that the file says in every table"
    file = own_dumps.find(site, name)
    with cluster.maintenance(server) as connection:
        like = cluster.locale(connection, site.database.name)
    with progress(f"restore-{site.name}", f"Restore {name} beside the live database") as report:
        seconds, rows = own_dumps.restore(server, site, file, new, like=like, report=report)
    return f"restored in {seconds:.0f} s, {len(rows)} tables with {sum(rows.values()):,} rows as the file says"


@act("Restore the backup beside the live database", gate="restore", do=_restore_beside, by=("site", "name"))
def restore_beside(site: Site, name: str) -> Plan:
    """Into a new database, compared exactly with its manifest; nothing live is touched. (House rule 6.)

    A dump of the site's own script has no manifest: the rows of each table must be as many as the file holds.
    """
    new = beside(site, name)
    return Plan(
        what=f"Restore {name} beside the live database",
        where=site.host.address,
        commands=(Statement("postgres", f'CREATE DATABASE "{new}" TEMPLATE template0'),),
        cost="Disk space and some load. The live database is not touched.",
    )


def _put_back(_: Plan, site: Site, wanted: Rescue) -> str:
    with (
        _live(site) as (server, live, _database),
        postgres.connect(server, wanted.beside) as restored,
        progress(f"rescue-{site.name}", "Put rows back") as report,
    ):
        return rescue.put_back(live, restored, wanted, report=report).summary


@act("Put rows back", gate="restore", do=_put_back)
def put_back(site: Site, wanted: Rescue) -> Plan:
    """Only rows that are missing or, if chosen, changed; one transaction, no triggers, nothing newer touched."""
    return Plan(
        what="Put rows back from the backup",
        where=f"{wanted.live} on {site.host.address}",
        commands=wanted.statements,
        cost="Nothing that is in the live database is overwritten, but for the rows named as changed.",
        facts=tuple(wanted.text.splitlines()),
    )


def _swap_in(_: Plan, site: Site, name: str, cost: Loss, safety: str) -> str:
    del cost, safety
    server, them = postgres.production(site), names(site, name)
    with cluster.maintenance(server) as connection:
        there = cluster.exists(connection, them.new)
    if there:
        with postgres.connect(server, them.new) as restored:
            damage.forget(restored)
    seconds = swap.swap(server, them)
    words = f"{them.live} is now the restored database, after {seconds:.2f} s without connections"
    return f"{words}; the one before is kept as {them.kept}"


@act("Put the restored database in the live one's place", gate="restore", do=_swap_in, by=("site", "name"))
def swap_in(site: Site, name: str, cost: Loss, safety: str) -> Plan:
    """Rename both databases in one transaction; the live one is kept. (House rule 6.)"""
    them = names(site, name)
    return Plan(
        what=f"Put {name}, restored as {them.new}, in the place of {them.live}",
        where=site.host.address,
        commands=tuple(Statement("postgres", line) for line in swap.statements(them)),
        cost=f"{cost.summary}. {cost.kept} It goes back by `guardia undo-restore --site {site.name}`.",
        facts=(f"safety backup: {safety}", *(share.words for share in cost.shares)),
    )


def _swap_back(_: Plan, site: Site, aside: SetAside, safety: str) -> str:
    del safety
    seconds = swap.undo(postgres.production(site), aside.names)
    words = f"{aside.names.live} is again what it was, after {seconds:.2f} s without connections"
    return f"{words}; what was restored is kept as {aside.names.undone}"


@act("Put the database of before the restore back", gate="restore", do=_swap_back, by=("site",))
def swap_back(site: Site, aside: SetAside, safety: str) -> Plan:
    """Undo the last restore by the reverse renames; the restored database is kept."""
    live, _, old, undone = aside.names
    return Plan(
        what=f"Put {old} back in the place of {live}",
        where=site.host.address,
        commands=tuple(Statement("postgres", line) for line in swap.undo_statements(aside.names)),
        cost=f"What was written since the restore is no longer live; it is kept in {undone} and in the safety backup.",
        facts=(f"safety backup: {safety}",),
    )


def _drop_beside(_: Plan, site: Site, name: str) -> str:
    server, new = postgres.production(site), beside(site, name)
    with cluster.maintenance(server) as connection:
        cluster.drop(connection, new)
    return f"dropped {new}"


@act("Remove the database that was restored beside", gate="restore", do=_drop_beside, by=("site", "name"))
def drop_beside(site: Site, name: str) -> Plan:
    """Give the disk space back; the backup is where it was."""
    new = beside(site, name)
    return Plan(
        what=f"Remove {new}",
        where=site.host.address,
        commands=(Statement("postgres", f'DROP DATABASE IF EXISTS "{new}" WITH (FORCE)'),),
        cost="Nothing: it was restored from the backup for comparison.",
    )


# --- names ----------------------------------------------------------------------------------------------------


def names(site: Site, name: str) -> swap.Names:
    """The live database, the one that this run restores from the backup, and what the live one becomes."""
    run = timeline.current()
    assert site.database is not None
    began = run.id.hex[:12] if run else ""  # Prefect numbers runs by time, so the newest comes last by name
    mark = name.lower().replace("-", "")
    if name.endswith(own_dumps.SUFFIX):  # a file may be called anything
        mark = hashlib.sha256(name.encode()).hexdigest()[:12]
    return swap.names(site.database.name, f"{began}_{mark}")


def beside(site: Site, name: str) -> str:
    """The database that this run restores a backup into."""
    return names(site, name).new


def _sorted_out(found: Damage, only: list[str]) -> tuple[list[str], list[str]]:
    """Which of the words are damaged tables, with or without their schema, and which are tenants, by name or key.

    Returns the tables' names and the tenants' keys. Raises ConfigError for a word that is neither.
    """
    tables = {name: table.table for table in found.tables for name in (table.table.rpartition(".")[2], table.table)}
    tenants = {key: key for key in found.tenants} | {name: key for key, name in found.tenants.items()}
    unknown = [word for word in only if word not in tables and word not in tenants]
    if unknown:
        known = ", ".join([*(table.table for table in found.tables), *found.tenants.values()]) or "none"
        raise ConfigError(f"{', '.join(unknown)} is no damaged table and no affected tenant.", f"There are: {known}.")
    return [tables[word] for word in only if word in tables], [tenants[w] for w in only if w not in tables]


@contextmanager
def _live(site: Site) -> Iterator[tuple[Server, Connection[Any], Database]]:
    if site.database is None:
        raise ConfigError(f"{site.name} has no [database] in its site file.", "See docs/site-file.md.")
    server = postgres.production(site)
    with postgres.connect(server, site.database.name) as connection:
        yield server, connection, site.database
