"""Make a backup now and prove it, once per run of a playbook."""

from prefect.concurrency.sync import concurrency

from blocks.errors import BadBackup, Busy
from blocks.site import Site
from flows.backup_steps import back_up, left_behind, prove
from flows.job import job_limit
from tasks import timeline
from tasks.steps import once

WAIT = 600  # seconds to wait for a daily backup that is under way


def back_up_and_prove(site: Site) -> str:
    """Returns what was made and proven, in words; in plan mode it only says that it would.

    Raises BadBackup if it does not hold what was backed up, Busy, and what the backup or the drill raises.
    """
    if timeline.planning():
        timeline.record("act", "would run a backup now and prove it by restoring it")
        return ""
    return _back_up_and_prove(site)


@once("Run a backup now and prove it")
def _back_up_and_prove(site: Site) -> str:
    try:
        with concurrency(job_limit("daily-backup", site.name), strict=True, timeout_seconds=WAIT, lease_duration=60):
            name = back_up(site)
        with concurrency(job_limit("verify-backup", site.name), strict=True, timeout_seconds=WAIT, lease_duration=60):
            proof = prove(site, name)
            left = left_behind(site)
    except TimeoutError:
        raise Busy(f"Another backup or drill of {site.name} works for {WAIT} s already.", "Wait for its end.") from None
    if proof.verdict == "bad":
        raise BadBackup(f"{name} must not be restored: {proof.words}", f"Look at the log of this run. {left}".strip())
    return f"{name} was made and proven: {proof.words}" + (f". {left}" if left else "")
