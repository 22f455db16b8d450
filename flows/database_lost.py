"""Database Connection Lost (P1): the page answers 500, the health check says that the database is disconnected.

1. Verify it from outside. Check the database's container: `docker compose ps db`, `docker compose logs db --tail=100`.
2. Restart the database: `docker compose restart db`.
3. If it does not start, find out why from its log, its disk and its files.
4. The common issues:
   - Out of disk space: free some, restart; drop the replication slot that fills the disk (a person approves).
   - Wrong permissions: give the files back to the database's user, restart (a person approves).
   - Corrupted data: see 5. If the server runs and only a table is damaged, the playbook is "Data Loss / Corruption".
5. Restore the newest proven backup into a new data folder, compare it, and put that in the old one's place, which is
   kept (a person approves).

After every act the site is looked at from outside, and the playbook stops as soon as it is healthy several times
in a row.
"""

from blocks.site import Site
from flows.incident import Incident, Outcome
from flows.playbook import WEB_STOPPED, attempt, carry_out, playbook, recovered
from tasks import compose, diagnosis, docker, free_space, host, http, rebuild, volume


@playbook("Database Connection Lost", "P1", yields_to=WEB_STOPPED)
def database_lost(site: Site, incident: Incident) -> Outcome:
    """Bring back a database that the site cannot reach."""
    seen = http.verify(site)  # 1
    if seen.healthy:
        return incident.well_again(seen)
    incident.announce(seen.impact)
    host.reach(site)
    compose.database_state(site)
    compose.database_log(site)

    if attempt(incident, compose.restart_database):  # 2
        return incident.resolved("a restart of the database healed it")

    cause = diagnosis.why(site)  # 3
    match "corrupted" if rebuild.begun(site) else cause.kind:  # 4
        case "disk full":
            if attempt(incident, free_space.free_space, docker.leftovers(site), free_space.occupied(site)):
                return incident.resolved("freeing disk space healed it")
        case "wrong permissions":
            if attempt(incident, volume.give_back, volume.permissions(site)):
                return incident.resolved("giving the database its files back healed it")
        case "corrupted":  # 5
            choice = rebuild.newest_proven(site)
            carry_out(incident, rebuild.rebuild, choice)
            if recovered(incident, site.recovery_timeout):
                return incident.resolved(f"{choice.backup} was restored; the damaged data is kept in {choice.aside}")
    return incident.unresolved(cause.advice)
