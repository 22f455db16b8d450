"""What went wrong with the backups, in words, from everything that knows of them.

Serves the guide's "Backup Failed", step 1.
"""

from pydantic import BaseModel

from blocks.errors import GuardiaError
from blocks.site import Site
from tasks import backups
from tasks.backup import Backup, Backups
from tasks.cron import Own
from tasks.schedule import Jobs
from tasks.steps import look


class Trouble(BaseModel):
    """Each thing that is wrong, in a sentence."""

    findings: list[str] = []

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return not self.findings

    @property
    def summary(self) -> str:
        """All of it."""
        return "; ".join(self.findings) or "The backups are in order."


@look("Say what went wrong with the backups")
def found(site: Site, own: Own, jobs: Jobs) -> Trouble:
    """The bucket, Guardia's own jobs and the site's script together. (Backup Failed, step 1.)"""
    if site.backups is None:
        return Trouble(findings=[f"{site.name} has no [backups] in its site file", *own.problems])
    try:
        there = backups.seen(site)
    except GuardiaError as error:
        return Trouble(findings=[f"the bucket cannot be read: {error}", *_of_jobs(jobs, None), *own.problems])
    newest = next(iter(there.usable), None)
    damaged = [f"{backup.name} cannot be used: {backup.problem}" for backup in there.items if backup.problem]
    return Trouble(findings=[*_of_bucket(there, newest), *damaged, *_of_jobs(jobs, newest), *own.problems])


@look("Check that the schedules are right")
def schedules(own: Own, jobs: Jobs) -> Trouble:
    """What would keep the next backup from being started. (Backup Failed, step 4.)"""
    line = ["the cron line of the site's own backup is missing"] if own.line_missing else []
    return Trouble(findings=[*_off(jobs), *line])


def _of_bucket(there: Backups, newest: Backup | None) -> list[str]:
    """Ages, and a newest that must not be restored."""
    bad = newest is not None and newest.proof is not None and newest.proof.verdict == "bad"
    ages = [words for words in (there.stale, there.unproven) if words]
    return ages + ([f"{newest.name} is a bad backup"] if newest and bad else [])


def _of_jobs(jobs: Jobs, newest: Backup | None) -> list[str]:
    """Schedules that are off, and failures that no later backup or proof has made good."""
    good = newest.manifest.snapshot_at if newest and newest.manifest else None
    proven = newest.proof.at if newest and newest.proof and newest.proof.verdict == "proven" else None
    since = {"daily-backup": good, "verify-backup": proven}
    failed = [run for run in jobs.last if not run.ok and not ((made := since[run.job]) and made > run.at)]
    return _off(jobs) + [f"the last run of {run.job} ended as {run.words}" for run in failed]


def _off(jobs: Jobs) -> list[str]:
    missing = [f"{job} has no schedule: start `guardia up` again" for job in jobs.missing]
    return missing + [f"the schedule of {job} is paused" for job in jobs.paused]
