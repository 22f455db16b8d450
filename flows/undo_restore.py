"""Undo a restore (P1): put the database that the last restore set aside back in the live one's place.

1. Stop all writes: `docker compose stop web`.
2. Back the live database up, so that nothing that was written since the restore is lost.
3. Swap back by rename (a person approves); the restored database is kept.
4. Check the site's invariants, resume service, and look at it from outside.

Serves the guide's "Data Loss / Corruption", step 4, when what was restored turns out to be the wrong choice.
"""

from blocks.site import Site
from flows.backup_steps import back_up
from flows.incident import Incident, Outcome
from flows.playbook import carry_out, playbook, service_stopped, tries
from tasks import assessing, host, http, swapping


@playbook("Data Loss / Corruption", "P1")
def undo_restore(site: Site, incident: Incident) -> Outcome:
    """Swap back what a restore swapped in."""
    host.reach(site)
    aside = swapping.set_aside(site)
    incident.announce(f"the restore that set {aside.names.kept} aside is undone")
    with service_stopped(incident):
        safety = back_up(site, "safety", tries(incident))
        carry_out(incident, swapping.swap_back, aside, safety)
        checked = assessing.check(site)
    if not http.recovery(site, site.recovery_timeout).recovered:
        return incident.unresolved()
    return incident.resolved(f"{aside.names.live} is again what it was before the restore; {checked.summary}")
