"""Complete Site Down (P1): the page answers 502, 503, 504 or nothing, or the health check fails.

1. Verify the issue from outside, as users see it: `curl -I URL`, `curl URL/health`. If nothing at all answers, make
   sure that it is not Guardia's own network.
2. Reach the VPS: `ssh root@HOST`.
3. Check all services: `docker compose ps`.
4. Read the logs: `docker compose logs --tail=100` of web, db and nginx.
5. Quick fix: `docker compose restart`.
6. If that does not work: `df -h`, `free -h`; if out of either, `docker system prune -f` (a person approves).
7. Last resort: `reboot` (a person approves).

After every act the site is looked at from outside, and the playbook stops as soon as it is healthy several times
in a row.
"""

from blocks.site import Site
from flows.incident import Incident, Outcome
from flows.playbook import WEB_STOPPED, attempt, playbook
from tasks import compose, docker, host, http


@playbook("Complete Site Down", "P1", yields_to=WEB_STOPPED)
def site_down(site: Site, incident: Incident) -> Outcome:
    """Heal a site that is down."""
    seen = http.verify(site)  # 1
    if seen.healthy:
        return incident.well_again(seen)
    incident.announce(seen.impact)

    host.reach(site)  # 2
    services = compose.services(site)  # 3
    compose.service_logs(site, services)  # 4

    if attempt(incident, compose.restart_services):  # 5
        return incident.resolved("a restart of all services healed it")

    if host.resources(site).short and services.docker_answers:  # 6
        if attempt(incident, compose.prune_leftovers, docker.leftovers(site)):
            return incident.resolved("freeing disk space healed it")
        if attempt(incident, compose.restart_services, 2):
            return incident.resolved("freeing disk space and restarting all services healed it")

    if attempt(incident, host.reboot, host.boot_id_before(site)):  # 7
        return incident.resolved("a reboot healed it")
    return incident.unresolved()
