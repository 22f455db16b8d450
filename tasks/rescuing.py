"""Put rows back from a backup that was restored beside the live database.

Serves the guide's "Data Loss / Corruption", step 4, where a whole restore would cost more than it gives back.
"""

from __future__ import annotations

from blocks.errors import ConfigError
from blocks.site import Site
from tasks import postgres, rescue, timeline
from tasks.command import Plan
from tasks.damage import Damage
from tasks.progress import progress
from tasks.rescue import Rescue
from tasks.steps import act, look


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
    with postgres.live(site) as (server, _, _), postgres.connect(server, found.beside) as restored:
        return rescue.plan(restored, found, tables, tenants, include_changed=changed)


def _put_back(_: Plan, site: Site, wanted: Rescue) -> str:
    with (
        postgres.live(site) as (server, live, _database),
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
