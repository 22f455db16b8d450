"""The choice of how to get data back: what is damaged, what each backup would cost, and a form for the answer."""

from typing import Literal

from pydantic import BaseModel, Field

from blocks.errors import ConfigError
from flows.approval import Answered, ask
from flows.backup_steps import age
from flows.incident import Incident
from tasks import timeline
from tasks.backups import Backup, Backups
from tasks.command import Plan
from tasks.damage import Damage
from tasks.differences import TableDamage
from tasks.loss import How

SHOWN = 12  # candidates in the form, newest first
TENANTS = 3  # named in a table's line; the record has all of them


class Wanted(BaseModel):
    """What may be said when the playbook is started, so that it need not ask."""

    backup: str = Field(default="", description="Restore this backup, as `guardia backups` lists it; empty: ask.")
    how: Literal["ask", "whole restore", "rescue"] = Field(
        default="ask",
        description="`whole restore` puts the backup in the live database's place, which is kept. `rescue` puts only "
        "missing rows back.",
    )
    tables: list[str] = Field(default=[], description="For a rescue: only these tables; none: all damaged ones.")
    tenants: list[str] = Field(default=[], description="For a rescue: only these tenants; none: all affected ones.")
    changed_rows: bool = Field(default=False, description="For a rescue: put rows that were changed back, too.")


class Choice(Answered):
    """How to get the data back. The exact plan of a whole restore or a rescue is asked about once more."""

    decision: Literal["whole restore", "rescue", "refuse"] = Field(
        description="`whole restore`: the backup takes the live database's place, which is kept. `rescue`: only rows "
        "that are missing are put back. `refuse`, or no answer: the site goes on with the data as it is."
    )
    backup: str = Field(description="Which backup; another than the one compared is restored and compared first.")
    tables: list[str] = Field(default=[], description="For a rescue: only these tables; none: all damaged ones.")
    tenants: list[str] = Field(default=[], description="For a rescue: only these tenants; none: all affected ones.")
    changed_rows: bool = Field(default=False, description="For a rescue: put rows that were changed back, too.")


class Chosen(BaseModel):
    """What was chosen, by a form or when the playbook was started."""

    how: How
    backup: str
    tables: list[str] = []
    tenants: list[str] = []
    changed_rows: bool = False


def last_proven(found: Backups) -> str:
    """The last known good backup. Raises ConfigError if none is proven. (Data Loss / Corruption, step 3.)"""
    if found.newest_proven is None:
        raise ConfigError(
            f"Of {len(found.items)} backups none is proven.",
            "Prove one with `guardia verify BACKUP`, or name one with `guardia restore BACKUP`.",
        )
    return found.newest_proven.name


def choose(incident: Incident, found: Backups, compared: str, damage: Damage, wanted: Wanted) -> Chosen:
    """Ask how to get the data back, unless that was said at the start.

    `compared` is the backup that `damage` compares with. Raises Refused, and ConfigError for a backup that is not
    there.
    """
    run = timeline.current()
    if wanted.how != "ask" or (run is not None and run.planning):
        how: How = "whole restore" if wanted.how == "ask" else wanted.how
        said = wanted.model_dump(include={"tables", "tenants", "changed_rows"})
        return Chosen(how=how, backup=wanted.backup or compared, **said)
    answer = ask(incident, "choose", _plan(incident, found, compared, damage), Choice, backup=compared)
    known = [backup.name for backup in found.items if backup.manifest]
    if answer.backup not in known:
        raise ConfigError(f"There is no backup {answer.backup!r}.", f"There are: {', '.join(known)}.")
    assert answer.decision != "refuse"
    said = answer.model_dump(include={"backup", "tables", "tenants", "changed_rows"})
    return Chosen(how=answer.decision, **said)


def _plan(incident: Incident, found: Backups, compared: str, damage: Damage) -> Plan:
    """What the form shows. Moments, not ages: the same facts must make the same plan after the answer."""
    return Plan(
        what="Get the data back",
        where=incident.site.host.address,
        commands=(),
        cost="The web service is stopped until you choose. Nothing is changed by choosing: the exact plan is asked "
        "about once more.",
        facts=(
            f"against {compared}: {damage.summary}",
            *(_candidate(backup, compared, damage) for backup in found.items[:SHOWN] if backup.manifest),
            *(_damaged(table, damage) for table in damage.tables),
        ),
    )


def _damaged(table: TableDamage, damage: Damage) -> str:
    """One table in one line, with the tenants that miss most."""
    counts = f"{table.missing:,} rows missing, {table.changed:,} changed, {table.new:,} new"
    lost = {tenant: sum(counted[:2]) for tenant, counted in table.by_tenant.items()}
    hit = [tenant for tenant in sorted(lost, key=lambda tenant: -lost[tenant]) if lost[tenant]]
    whose = ", ".join(damage.called(tenant) for tenant in hit[:TENANTS]) + (" and others" if hit[TENANTS:] else "")
    return f"{table.table}: {'DROPPED; ' if table.dropped else ''}{counts}{f'; {whose}' if whose else ''}"


def _candidate(backup: Backup, compared: str, damage: Damage) -> str:
    assert backup.manifest is not None
    proof = backup.proof
    proven = f"proven, RTO {proof.restore_seconds:.0f} s" if proof and proof.verdict == "proven" else "NOT proven"
    before = age((damage.at - backup.manifest.snapshot_at).total_seconds())
    new = sum(table.new for table in damage.tables)
    changed = sum(table.changed for table in damage.tables)
    loses = (
        f"a whole restore loses {new:,} new and the live state of {changed:,} changed rows"
        if backup.name == compared
        else "what it would lose is counted before you are asked again"
    )
    return f"backup {backup.name}: {proven}, {before} before the stop; {loses}"
