"""Backup Failed (P3): a backup is missing, too old, or did not restore.

1. Look at the site's own log (`tail -100 /var/log/ferreteria_backup.log`) and cron line, at Guardia's last runs and
   schedules, and at the bucket; say in words what went wrong.
2. Run a backup now.
3. Verify it: restore it into a throwaway container and compare it exactly.
4. Put the schedule right: a paused job, a missing cron line (a person approves).
"""

from blocks.site import Site
from flows.backup_now import back_up_and_prove
from flows.incident import Incident, Outcome
from flows.playbook import carry_out, playbook
from tasks import backup_trouble, cron, schedule


@playbook("Backup Failed", "P3")
def backup_failed(site: Site, incident: Incident) -> Outcome:
    """See to it that there is a proven backup, and that there will be one tomorrow."""
    own = cron.own_script(site)  # 1
    jobs = schedule.jobs(site)
    trouble = backup_trouble.found(site, own, jobs)
    if trouble.ok:
        return incident.nothing_to_do(trouble.summary)
    incident.announce(trouble.summary, affected="Nobody yet")

    made = back_up_and_prove(site)  # 2, 3

    if jobs.paused:  # 4
        carry_out(incident, schedule.resume, jobs)
    if own.line_missing:
        carry_out(incident, cron.add_line, own)
    left = backup_trouble.schedules(cron.own_script(site), schedule.jobs(site))
    return incident.put_right(made, left.findings)
