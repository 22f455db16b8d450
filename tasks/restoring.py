"""A backup restored beside the live database, and found exact or not kept.

Serves the guide's "Data Loss / Corruption", step 4. Nothing live is touched: the backup goes into a new database.
"""

from __future__ import annotations

import hashlib

from blocks.errors import BadBackup
from blocks.site import Site
from tasks import backups, cluster, inventory, manifest, own_dumps, postgres, restore, swap, timeline
from tasks.command import Plan, Statement
from tasks.postgres import Server
from tasks.progress import progress
from tasks.steps import act


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
    if differences := manifest.differences(backup.manifest.contents, inventory.of(server, new)):
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
    server, new = postgres.named(site), beside(site, name)
    own = name.endswith(own_dumps.SUFFIX)
    return Plan(
        what=f"Restore {name} beside the live database",
        where=site.host.address,
        commands=own_dumps.steps(server, site, name, new) if own else restore.steps(server, new),
        cost="Disk space and some load. The live database is not touched.",
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
