"""The choice of how to get data back: what is damaged, what each backup would cost, and a form for the answer."""

from textwrap import shorten
from typing import Literal

from pydantic import BaseModel, Field

from blocks.errors import BadBackup, ConfigError
from flows.approval import Answered, ask
from flows.backup_steps import age
from flows.incident import Incident
from tasks import own_dumps, timeline
from tasks.assessing import OwnFiles
from tasks.backup import Backup, Backups
from tasks.command import Plan
from tasks.damage import Damage
from tasks.differences import TableDamage
from tasks.loss import How
from tasks.own_dumps import OwnFile

ONLY = "For a rescue: only these tables and tenants, by name, with commas between them; none: all that is damaged."
SHOWN = 12  # candidates in the form, newest first
SHOWN_OWN = 3  # of the site's own files
WHY = 120  # characters of why a backup is bad; its proof has all of it
TENANTS = 3  # named in a table's line; the record has all of them


class Wanted(BaseModel):
    """What may be said when the playbook is started, so that it need not ask."""

    backup: str = Field(default="", description="Restore this one, as `guardia backups` lists it; empty: ask.")
    how: Literal["ask", "whole restore", "rescue", "rescue with changed rows"] = Field(
        default="ask",
        description="`whole restore` puts the backup in the live database's place, which is kept. `rescue` puts only "
        "missing rows back.",
    )
    only: str = Field(default="", description=ONLY)


class Choice(Answered):
    """How to get the data back. The exact plan of a whole restore or a rescue is asked about once more.

    The fields are few and their words short: a taller form leaves no room for the plan above it.
    """

    decision: Literal["whole restore", "rescue", "rescue with changed rows", "refuse"] = Field(
        description="A rescue puts missing rows back. `refuse` leaves all as it is."
    )
    backup: str
    only: str = Field(default="", title="Rescue only (tables, tenants)")


class Chosen(BaseModel):
    """What was chosen, by a form or when the playbook was started. `only` are tables and tenants; none: all.

    `bad` is why the backup failed its proof, for the plan that is approved; empty if it did not.
    """

    how: How
    backup: str
    only: list[str] = []
    changed_rows: bool = False
    bad: str = ""


def last_proven(found: Backups) -> str:
    """The last known good backup. Raises ConfigError if none is proven. (Data Loss / Corruption, step 3.)"""
    if found.newest_proven is None:
        raise ConfigError(
            f"Of {len(found.items)} backups none is proven.",
            "Prove one with `guardia verify BACKUP`, or name one with `guardia restore BACKUP`.",
        )
    return found.newest_proven.name


def check(name: str, found: Backups, own: OwnFiles) -> str:
    """A backup or an own file by this name. Raises ConfigError, naming those there are.

    Raises BadBackup for one that cannot even be tried, as it has no manifest that can be read. One that failed its
    proof may be chosen: data that violates an invariant restores exactly, and may be the best there is. If it differs
    from its manifest, it is refused when it has been restored beside the live database.
    """
    for backup in found.items:
        if backup.name == name and backup.manifest is None:
            raise BadBackup(f"{name} cannot be used: {backup.problem}")
    files = [file.name for file in own.items]
    known = [backup.name for backup in found.items if backup.manifest]
    if name in files or name in known:
        return name
    there = ", ".join((files if name.endswith(own_dumps.SUFFIX) else known)[:SHOWN]) or own.problem or "none"
    raise ConfigError(f"There is no backup {name!r}.", f"There are: {there}.")


def choose(
    incident: Incident, found: Backups, compared: str, damage: Damage, wanted: Wanted, *, own: OwnFiles
) -> Chosen:
    """Ask how to get the data back, unless that was said at the start.

    `compared` is the backup that `damage` compares with. Raises Refused, and as `check` for a backup that cannot be
    used.
    """
    run = timeline.current()
    if wanted.how != "ask" or (run is not None and run.planning):
        how = "whole restore" if wanted.how == "ask" else wanted.how
        return _chosen(how, wanted.backup or compared, wanted.only, found)
    answer = ask(incident, "choose", _plan(incident, found, own, compared, damage), Choice, backup=compared)
    check(answer.backup, found, own)
    assert answer.decision != "refuse"
    return _chosen(answer.decision, answer.backup, answer.only, found)


def _chosen(decision: str, backup: str, only: str, found: Backups) -> Chosen:
    how: How = "whole restore" if decision == "whole restore" else "rescue"
    names = [name.strip() for name in only.split(",") if name.strip()]
    bad = next((_bad(item) for item in found.items if item.name == backup), "")
    return Chosen(how=how, backup=backup, only=names, changed_rows=decision == "rescue with changed rows", bad=bad)


def _bad(backup: Backup) -> str:
    """Why a backup failed its proof, cut short; empty if it did not."""
    if backup.proof is None or backup.proof.verdict != "bad":
        return ""
    return shorten(backup.proof.words, WHY, placeholder=" …")


def _plan(incident: Incident, found: Backups, own: OwnFiles, compared: str, damage: Damage) -> Plan:
    """What the form shows. Moments, not ages: the same facts must make the same plan after the answer."""
    return Plan(
        what="Get the data back",
        where=incident.site.host.address,
        commands=(),
        cost="Web is stopped until you choose. The exact plan is asked about next.",
        facts=(
            f"against {compared}: {damage.summary}",
            *(_candidate(backup, compared, damage) for backup in _shown(found)),
            *(_own_candidate(file, compared, damage) for file in own.items[:SHOWN_OWN]),
            *(_damaged(table, damage) for table in damage.tables),
        ),
    )


def _shown(found: Backups) -> list[Backup]:
    """The newest that can be used; what was saved before a restore comes last, as it holds the damage too."""
    usable = [backup for backup in found.items if backup.manifest]
    return sorted(usable, key=lambda backup: backup.manifest is not None and backup.manifest.kind == "safety")[:SHOWN]


def _damaged(table: TableDamage, damage: Damage) -> str:
    """One table in one line, with the tenants that miss most."""
    if table.unreadable:
        return f"{damage.unreadable[table.table]}: its rows cannot be counted, and only a whole restore brings it back"
    counts = f"{table.missing:,} rows missing, {table.changed:,} changed, {table.new:,} new"
    lost = {tenant: sum(counted[:2]) for tenant, counted in table.by_tenant.items()}
    hit = [tenant for tenant in sorted(lost, key=lambda tenant: -lost[tenant]) if lost[tenant]]
    whose = ", ".join(damage.called(tenant) for tenant in hit[:TENANTS]) + (" and others" if hit[TENANTS:] else "")
    return f"{table.table}: {'DROPPED; ' if table.dropped else ''}{counts}{f'; {whose}' if whose else ''}"


def _candidate(backup: Backup, compared: str, damage: Damage) -> str:
    assert backup.manifest is not None
    proof = backup.proof
    proven = f"proven, RTO {proof.restore_seconds:.0f} s" if proof and proof.verdict == "proven" else "NOT proven"
    proven = f"BAD: {bad}" if (bad := _bad(backup)) else proven
    before = age((damage.at - backup.manifest.snapshot_at).total_seconds())
    return f"backup {backup.name}: {proven}, {before} before the stop; {_cost(backup.name, compared, damage)}"


def _own_candidate(file: OwnFile, compared: str, damage: Damage) -> str:
    """A file has no manifest: that its rows are those of the database it was made of, nothing can say."""
    before = age((damage.at - file.modified).total_seconds())
    proven = "NOT proven, rows per table only"
    return f"own file {file.name}: {proven}, {before} before the stop; {_cost(file.name, compared, damage)}"


def _cost(name: str, compared: str, damage: Damage) -> str:
    if name != compared:
        return "what it would lose is counted before you are asked again"
    new = sum(table.new for table in damage.tables)
    changed = sum(table.changed for table in damage.tables)
    unknown = f", and of {', '.join(damage.unreadable)} what cannot be counted" if damage.unreadable else ""
    return f"a whole restore loses {new:,} new and the live state of {changed:,} changed rows{unknown}"
