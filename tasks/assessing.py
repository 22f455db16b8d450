"""Look at the damage: recent data, what can be restored, and the live database beside a backup.

Serves the guide's "Data Loss / Corruption", steps 2, 3 and 5.
"""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import BaseModel

from blocks.errors import ConfigError
from blocks.site import Site
from tasks import backups, damage, differences, invariants, loss, own_dumps, postgres, restoring, timeline
from tasks.backup import Backups
from tasks.damage import Damage
from tasks.differences import Unreadable
from tasks.loss import How, Loss
from tasks.own_dumps import OwnFile
from tasks.progress import progress
from tasks.rescue import Rescue
from tasks.steps import look


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
    with postgres.live(site) as (_, connection, database):
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
        postgres.live(site) as (server, live, database),
        postgres.connect(server, restoring.beside(site, name)) as restored,
        progress(f"compare-{site.name}", f"Compare with {name}") as report,
    ):
        return damage.compare(live, restored, database.tenants, report)


class Unsaved(BaseModel):
    """That a restore goes on without a safety backup, and why."""

    summary: str
    ok: bool = False


@look("See whether a safety backup can be made", kept=True)
def unsaved(site: Site, name: str, found: Damage) -> Unsaved:
    """None can be made while a table cannot be read, and no restore would ever come: it is on the record instead.

    What of the live database is whole stays in the kept one. (Data Loss / Corruption, step 4.)
    """
    return Unsaved(summary=loss.unsaved(found.unreadable, restoring.names(site, name).kept))


@look("Say what was lost", kept=True)
def lost(site: Site, name: str, how: How, found: Damage | Rescue, safety: str) -> Loss:
    """What a whole restore, or a rescue, gives back and costs each tenant. (Data Loss / Corruption, step 5.)

    `safety` is the name of the safety backup, empty if none could be made.
    """
    with postgres.live(site) as (server, live, database):
        owners = []
        if isinstance(found, Damage) and found.tables:  # a tenant that is lost is in the backup alone
            with postgres.connect(server, restoring.beside(site, name)) as restored:
                found = damage.brought_back(found, restored, database.tenants)
                owners = damage.owners(restored, database.tenants, list(found.tenants))
        owners += damage.owners(live, database.tenants, list(found.tenants))
    kept = restoring.names(site, name).kept if how == "whole restore" else ""
    return loss.of(found, how, name, owners, loss.way_back(site, kept, safety))


@look("Check the data")
def check(site: Site) -> Checked:
    """Ask the site's invariants: what does not hold is a finding, and a table that is gone too.

    (Data Loss / Corruption, step 5: check data integrity.)
    """
    with postgres.live(site) as (_, connection, database):
        try:
            with differences.reading():
                return Checked(violations=invariants.violations(connection, database.invariants))
        except ConfigError as error:
            return Checked(problem=error.what)
        except Unreadable as error:  # what an undone restore put back may be broken still
            return Checked(problem=f"the data cannot be read: {error}")
