"""Put a restored database in the live one's place, put the one before back, and open one that a cut swap left closed.

Serves the guide's "Data Loss / Corruption", step 4. The live database is kept under another name. (House rule 6.)
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from pydantic import BaseModel

from blocks.errors import ConfigError
from blocks.site import Site
from tasks import cluster, damage, postgres, restoring, swap
from tasks.command import Plan, Statement
from tasks.loss import Loss, unsaved
from tasks.steps import act, look


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
    server = postgres.production(site)
    assert site.database is not None
    with cluster.maintenance(server) as connection:
        return Accepting(ok=not swap.closed(connection, site.database.name))


@look("Find the database that the last restore set aside", kept=True)
def set_aside(site: Site) -> SetAside:
    """Raises ConfigError if there is none, or no [database]."""
    server = postgres.production(site)
    assert site.database is not None
    swaps = swap.kept(server, site.database.name)
    if not swaps:
        raise ConfigError(f"No restore has set a database of {site.name} aside.", "There is nothing to undo.")
    return SetAside(names=swaps[-1])


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


def _swap_in(_: Plan, site: Site, name: str, cost: Loss, safety: str, bad: str = "") -> str:
    del cost, safety, bad
    server, them = postgres.production(site), restoring.names(site, name)
    with cluster.maintenance(server) as connection:
        there = cluster.exists(connection, them.new)
    if there:
        with postgres.connect(server, them.new) as restored:
            damage.forget(restored)
    seconds = swap.swap(server, them)
    words = f"{them.live} is now the restored database, after {seconds:.2f} s without connections"
    return f"{words}; the one before is kept as {them.kept}"


def _swapped(site: Site, name: str, cost: Loss, safety: str, bad: str = "") -> bool:
    """The swap was committed, and the run died before it could note that."""
    del cost, safety, bad
    return swap.done(postgres.production(site), restoring.names(site, name))


@act(
    "Put the restored database in the live one's place",
    gate="restore", do=_swap_in, by=("site", "name"), holds=_swapped,
)  # fmt: skip
def swap_in(site: Site, name: str, cost: Loss, safety: str, bad: str = "") -> Plan:
    """Rename both databases in one transaction; the live one is kept. (House rule 6.)

    `safety` is the name of the safety backup, empty if none could be made; `bad` is why the backup failed its proof,
    empty if it did not.
    """
    them = restoring.names(site, name)
    saved = f"safety backup: {safety}" if safety else unsaved(cost.uncounted, them.kept)
    return Plan(
        what=f"Put {name}, restored as {them.new}, in the place of {them.live}",
        where=site.host.address,
        commands=tuple(Statement("postgres", line) for line in swap.statements(them)),
        cost=f"{cost.summary}. {cost.kept}",
        facts=(*([f"the backup is BAD: {bad}"] if bad else []), saved, *(share.words for share in cost.shares)),
    )


def _when(kept: str) -> str:
    """When the run began that set a database aside: Prefect's numbers begin with milliseconds."""
    found = re.search(rf"_({swap.MARK})$", kept)
    assert found is not None
    return f"{datetime.fromtimestamp(int(found[1][:12], 16) / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


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
        cost=f"What was written since the restore is live no longer; it is kept in {undone} and the backup {safety}.",
        facts=(f"safety backup: {safety}", f"the restore was made by the run that began {_when(old)}"),
    )
