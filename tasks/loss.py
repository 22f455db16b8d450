"""What a restore or a rescue gave back and what it cost, tenant by tenant, and the letter that says so.

Serves the guide's "Contact affected tenants" and "Document data loss".
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from blocks.errors import CommandFailed
from blocks.site import Site
from tasks import notify, report, timeline
from tasks.command import Plan
from tasks.damage import Damage
from tasks.differences import TableDamage
from tasks.rescue import Rescue, TableRescue
from tasks.steps import act

How = Literal["whole restore", "rescue"]
LETTER = "letter"  # the template that the timeline names
NOBODYS = ""  # the key of rows that belong to no tenant


class Share(BaseModel):
    """Rows of one tenant by table: those that came `back`, were `set_back` to what the backup has, or are `lost`.

    The first were missing, the second are there as before the backup and their later content is not, and the third
    are no longer in the live database.
    """

    tenant: str
    name: str
    email: str = ""
    back: dict[str, int] = {}
    set_back: dict[str, int] = {}
    lost: dict[str, int] = {}

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many rows came back, were set back and are lost, in all tables."""
        back, set_back, lost = (sum(rows.values()) for rows in (self.back, self.set_back, self.lost))
        return back, set_back, lost

    @property
    def words(self) -> str:
        """One line for a plan or a record."""
        back, set_back, lost = self.counts
        return f"{self.name}: {back:,} rows come back, {set_back:,} rows are set back, {lost:,} rows are lost"


class Loss(BaseModel):
    """All shares, the largest loss first; `kept` says where the lost rows still are."""

    how: How
    backup: str
    at: datetime
    shares: list[Share]
    kept: str
    counted: bool = True  # not in plan mode, where nothing is restored to compare with
    uncounted: dict[str, str] = {}  # tables that the live database cannot read, and that in words

    @property
    def summary(self) -> str:
        """One line for the timeline."""
        if not self.counted:
            return f"{self.how} from {self.backup}: what it costs is counted when it is restored beside the live data"
        back, set_back, lost = (sum(share.counts[n] for share in self.shares) for n in range(3))
        tenants = sum(share.tenant != NOBODYS for share in self.shares)
        rows = f"{back:,} rows back, {set_back:,} rows set back, {lost:,} rows lost"
        counts = f"{rows}; {tenants} tenants are affected"
        return "; ".join((f"{self.how} from {self.backup}: {counts}", *self._not_counted))

    @property
    def text(self) -> str:
        """Evidence: what exactly, and where what was lost still is."""
        return "\n".join([*(_lines(share) for share in self.shares), *self._not_counted, self.kept])

    @property
    def _not_counted(self) -> list[str]:
        return [f"{words}: what of it is lost cannot be counted" for words in self.uncounted.values()]


def of(found: Damage | Rescue, how: How, backup: str, owners: Iterable[tuple[str, str, str]], kept: str) -> Loss:
    """What a whole restore of the backup, given the damage, or a rescue gives back and costs.

    `owners` are (tenant key, name, e-mail). A whole restore takes away what is only in the live database; both set
    changed rows back to what the backup has.
    """
    known = {key: (name, email) for key, name, email in owners}
    back: dict[str, dict[str, int]] = {}
    set_back: dict[str, dict[str, int]] = {}
    lost: dict[str, dict[str, int]] = {}
    for table in found.tables:
        for tenant, (missing, changed, *new) in _by_tenant(table).items():
            _add(back, tenant, table.table, missing)
            _add(set_back, tenant, table.table, changed)
            _add(lost, tenant, table.table, sum(new) if how == "whole restore" else 0)
    shares = []
    for key in {*back, *set_back, *lost}:
        name, email = known.get(key, (found.tenants.get(key, "no tenant"), ""))
        rows = {"back": back.get(key, {}), "set_back": set_back.get(key, {}), "lost": lost.get(key, {})}
        shares.append(Share(tenant=key, name=name, email=email, **rows))
    shares.sort(key=lambda share: (*(-count for count in reversed(share.counts)), share.name))
    counted = isinstance(found, Rescue) or found.compared > 0
    return Loss(
        how=how, backup=backup, at=found.at, shares=shares, kept=kept, counted=counted,
        uncounted=found.unreadable if isinstance(found, Damage) else {},
    )  # fmt: skip


def way_back(site: Site, database: str, safety: str) -> str:
    """Where the live data of before is, and the command that goes back to it.

    `database` is the one that a whole restore set aside; empty after a rescue, which sets none aside. `safety` is the
    safety backup, empty if none could be made.
    """
    if not database:
        command = f"guardia restore {safety} --site {site.name}"
        return f"The database as it was before is the backup {safety}; it goes back by `{command}`."
    where = f"and in the backup {safety}" if safety else "alone: there is NO safety backup"
    undo = f"guardia undo-restore --site {site.name}"
    return f"What is lost is still in the database {database} {where}. It goes back by `{undo}`."


def unsaved(unreadable: Mapping[str, str], kept: str) -> str:
    """Why there is no safety backup, and what there is instead: pg_dump reads every table, and would fail."""
    return f"NO safety backup: {'; '.join(unreadable.values())}; the live database is kept as {kept}"


def letters(site: Site, loss: Loss) -> list[tuple[Share, str]]:
    """The drafted letter to the owner of each affected tenant that has an address."""
    return [
        (share, report.letter(site=site, share=share, loss=loss))
        for share in loss.shares
        if share.tenant != NOBODYS and share.email
    ]


def _write(_: Plan, site: Site, loss: Loss) -> str:
    """Whoever the timeline says was written to by this run, before it was killed, is not written to again.

    Raises CommandFailed, naming them, if somebody could not be written to.
    """
    run, failed = timeline.current(), []
    entries = timeline.whole(run) if run is not None else []
    written = {entry.what for entry in entries if entry.ok and entry.detail.get("template") == LETTER}
    for share, text in letters(site, loss):
        if f"{share.name} ({share.email})" not in written:
            problem = notify.deliver(site, share.email, f"Your data at {site.url}", text)
            notify.note(share.name, share.email, "Your data", problem=problem, body=text, template=LETTER)
            failed += [share.name] if problem else []
    sent = len(letters(site, loss)) - len(failed)
    if failed:
        raise CommandFailed(f"{sent} letters sent; NOT to {', '.join(failed)}.", "See the mailbox of the site file.")
    return f"{sent} letters sent"


@act("Write to the affected tenants", gate="notify", do=_write)
def write_to_tenants(site: Site, loss: Loss) -> Plan:
    """A letter to each affected tenant's owner with what exactly was lost or restored. (Data Loss, step 5.)"""
    drafts = letters(site, loss)
    example = drafts[0][1] if drafts else ""
    return Plan(
        what=f"Write to the owners of {len(drafts)} affected tenants",
        where=str(site.mailbox.host if site.mailbox else "no mailbox"),
        commands=(),
        cost="A letter cannot be taken back.",
        facts=(*(f"{share.email}: {share.words}" for share, _ in drafts), f"the first letter:\n\n{example}"),
    )


def _by_tenant(table: TableDamage | TableRescue) -> Mapping[str, tuple[int, ...]]:
    """Rows that belong to no tenant count too, where a table has no others."""
    if isinstance(table, TableDamage) and not table.by_tenant:
        return {NOBODYS: (table.missing, table.changed, table.new)}
    return table.by_tenant


def _add(rows: dict[str, dict[str, int]], tenant: str, table: str, count: int) -> None:
    if count:
        rows.setdefault(tenant, {})[table] = count


def _lines(share: Share) -> str:
    def words(rows: dict[str, int]) -> str:
        return ", ".join(f"{table} {count:,}" for table, count in sorted(rows.items())) or "nothing"

    return f"{share.name}: back {words(share.back)}; set back {words(share.set_back)}; lost {words(share.lost)}"
