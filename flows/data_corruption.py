"""Data Loss / Corruption (P1): users report missing data, queries return what they should not, integrity is violated.

1. Stop all writes at once: `docker compose stop web`.
2. Assess the damage: the guide's queries for recent data, and the last proven backup restored beside the live
   database and compared with it: per table, rows missing, changed and new, and the tenants whose they are.
3. Identify the last known good backup: all are listed with proof, age, measured restore time and what each would cost.
4. Restore (a person chooses how, and approves the exact plan). A whole restore goes into a new database, is compared
   with its manifest, and is swapped in by rename after a safety backup (none can be made while a live table cannot be
   read: the plan says so); the live one is kept, and `guardia undo-restore` swaps back. A rescue puts only missing or
   changed rows back, in one transaction.
5. Verify: the site's invariants; write the loss down; draft a letter to each affected tenant (a person approves).
6. Resume service: `docker compose start web`, and look at it from outside.

Whatever fails before the swap leaves the live database as it was, and the web service is started again.
"""

from blocks.errors import CommandFailed, ConfigError, Refused
from blocks.site import Site
from flows.backup_steps import back_up
from flows.choice import Chosen, Wanted, check, choose, last_proven
from flows.incident import Incident, Outcome
from flows.playbook import carry_out, playbook, service_stopped, tries
from tasks import assessing, compose, host, http, loss, rescuing, restoring, swapping
from tasks.damage import Damage
from tasks.loss import Loss

AGAIN = "Start the playbook again, instead of retrying this run, and choose it there."


@playbook("Data Loss / Corruption", "P1", wants=Wanted)
def data_corruption(site: Site, incident: Incident, wanted: Wanted) -> Outcome:
    """Get lost or corrupted data back."""
    host.reach(site)
    if wanted.backup:  # a wrong name is said before anything is stopped
        check(wanted.backup, assessing.candidates(site), assessing.own_files(site))
    with service_stopped(incident):  # 1
        incident.announce("data is missing or wrong; the site is stopped while the damage is looked at")
        assessing.recent(site)  # 2
        found, own = assessing.candidates(site), assessing.own_files(site)
        last = wanted.backup or last_proven(found)
        restoring.restore_beside(site, last)
        damage = assessing.assess(site, last, compared(incident))
        chosen = choose(incident, found, last, damage, wanted, own=own)  # 3
        make_room(incident, chosen, last)
        cost = rescue(incident, chosen) if chosen.how == "rescue" else restore(incident, chosen)  # 4
        checked = assessing.check(site)  # 5
    if not http.recovery(site, site.recovery_timeout).recovered:  # 6
        return incident.unresolved()
    return incident.resolved(f"{cost.summary}; {checked.summary}; {write_letters(incident, cost)}")


def compared(incident: Incident) -> int:
    """As `tries`, but not after the database of the comparison is gone: the choice that was made then still counts."""
    tried = incident.count(compose.stop_web.title, before=(restoring.drop_beside.title,))
    return max(1, min(tried, tries(incident)))


def make_room(incident: Incident, chosen: Chosen, last: str) -> None:
    """Remove the database of the comparison if another backup was chosen: the disk need not hold both.

    Raises ConfigError if a retried run chooses that one after all: what a run has restored it does not restore again.
    """
    site = incident.site
    if chosen.backup != last:
        restoring.drop_beside(site, last)
    elif restoring.drop_beside.done(site, last) and not incident.count(rescuing.put_back.title):
        raise ConfigError(f"The database restored from {last} was removed, as another was chosen.", AGAIN)


def restore(incident: Incident, chosen: Chosen) -> Loss:
    """Swap the chosen backup in, after a safety backup of the live database."""
    site = incident.site
    restoring.restore_beside(site, chosen.backup)
    damage = assessing.assess(site, chosen.backup, tries(incident))
    safety = save(incident, chosen, damage)
    cost = assessing.lost(site, chosen.backup, "whole restore", damage, safety)
    carry_out(incident, swapping.swap_in, chosen.backup, cost, safety, chosen.bad)
    return cost


def save(incident: Incident, chosen: Chosen, damage: Damage) -> str:
    """A safety backup of the live database, unless a table cannot be read: then none, which is put on the record."""
    if damage.unreadable:
        assessing.unsaved(incident.site, chosen.backup, damage)
        return ""
    return back_up(incident.site, "safety", tries(incident))


def rescue(incident: Incident, chosen: Chosen) -> Loss:
    """Put back what is missing, after a safety backup of the live database."""
    site = incident.site
    restoring.restore_beside(site, chosen.backup)
    damage = assessing.assess(site, chosen.backup, tries(incident))
    rows = rescuing.rescuable(site, damage, chosen.only, chosen.changed_rows)
    safety = back_up(site, "safety", tries(incident))
    carry_out(incident, rescuing.put_back, rows, chosen.bad)
    cost = assessing.lost(site, chosen.backup, "rescue", rescuing.came_back(site, rows), safety)
    restoring.drop_beside(site, chosen.backup)
    return cost


def write_letters(incident: Incident, cost: Loss) -> str:
    """Write to the affected tenants if a person approves; the data is back whatever the answer."""
    if cost.counted and not loss.letters(incident.site, cost):
        return "nobody to write to"
    try:
        carry_out(incident, loss.write_to_tenants, cost)
    except Refused as error:
        return f"no letters: {error.what}"
    except CommandFailed as error:
        return error.what
    return "the tenants were written to"
