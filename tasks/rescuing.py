"""Put rows back from a backup that was restored beside the live database.

Serves the guide's "Data Loss / Corruption", step 4, where a whole restore would cost more than it gives back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from blocks.errors import ConfigError, DatabaseRefused
from blocks.site import Site
from tasks import invariants, postgres, rescue_choice, rescue_rows, timeline
from tasks.command import Plan
from tasks.damage import Damage
from tasks.progress import progress
from tasks.rescue import Rescue
from tasks.steps import act, look

if TYPE_CHECKING:
    from psycopg import Connection


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
        return rescue_choice.plan(restored, found, tables, tenants, include_changed=changed)


def _put_back(_: Plan, site: Site, wanted: Rescue, bad: str = "") -> str:
    del bad
    with (
        postgres.live(site) as (server, live, database),
        postgres.connect(server, wanted.beside) as restored,
        progress(f"rescue-{site.name}", "Put rows back") as report,
    ):
        verify = _no_worse(live, database.invariants)
        return rescue_rows.put_back(live, restored, wanted, verify=verify, report=report).summary


def _no_worse(live: Connection[Any], text: str) -> Callable[[Connection[Any]], None] | None:
    """What refuses, before the commit, rows with which more violates the site's invariants than before."""
    try:
        before = invariants.violations(live, text)
    except ConfigError:
        return None  # a table that they ask for is gone: what is left of them is checked at the end

    def verify(connection: Connection[Any]) -> None:
        after = invariants.violations(connection, text)
        worse = [f"{name}: {rows - before[name]:,} rows" for name, rows in after.items() if rows > before[name]]
        if worse:
            raise DatabaseRefused(
                f"With these rows put back, more would violate what always holds: {'; '.join(worse)}.",
                "Nothing was put back. Choose the tables that belong together, or restore the whole backup.",
            )

    return verify


@act("Put rows back", gate="restore", do=_put_back)
def put_back(site: Site, wanted: Rescue, bad: str = "") -> Plan:
    """Only rows that are missing or, if chosen, changed; one transaction, no triggers, nothing newer touched.

    `bad` is why the backup failed its proof, empty if it did not.
    """
    return Plan(
        what="Put rows back from the backup",
        where=f"{wanted.live} on {site.host.address}",
        commands=wanted.statements,
        cost="Nothing that is in the live database is overwritten, but for the rows named as changed.",
        facts=(*([f"the backup is BAD: {bad}"] if bad else []), *wanted.text.splitlines()),
    )


@look("See what came back", kept=True)
def came_back(site: Site, wanted: Rescue) -> Rescue:
    """Of what was to be put back, that which is there now: a key that was taken meanwhile keeps its row out."""
    if timeline.planning():
        return wanted
    with postgres.connect(postgres.production(site), wanted.beside) as restored:
        return wanted.came_back(rescue_rows.noted(restored))


def _sorted_out(found: Damage, only: list[str]) -> tuple[list[str], list[str]]:
    """Which of the words are damaged tables, with or without their schema, and which are tenants, by name or key.

    Returns the tables' names and the tenants' keys. Raises ConfigError for a word that is neither, or more than one.
    """
    named = [(name, table.table) for table in found.tables for name in {table.table.rpartition(".")[2], table.table}]
    keys = [(word, key) for key, name in found.tenants.items() for word in {key, name, found.called(key)}]
    tables, tenants = [], []
    for word in only:
        matching = [title for name, title in named if name == word], [key for name, key in keys if name == word]
        if len(matching[0]) + len(matching[1]) != 1:
            known = ", ".join([*(table.table for table in found.tables), *map(found.called, found.tenants)]) or "none"
            problem = "may mean several" if any(matching) else "is no damaged table and no affected tenant"
            raise ConfigError(f"{word} {problem}.", f"There are: {known}. A tenant may be given by its number.")
        tables += matching[0]
        tenants += matching[1]
    return tables, tenants
