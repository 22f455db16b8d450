"""Prove a backup: restore it into a throwaway container of the production image and compare it with its manifest.

1. Download the archive, compare its SHA-256, decrypt and decode it.
2. Restore it into an empty server: constraints and indexes must build.
3. Compare every table's rows, the sequences, constraints, indexes and roles with the manifest; ask the site's
   invariants.
4. Remove the container without a trace, and keep the verdict beside the backup, with the measured restore time (RTO)
   and the age of the data (RPO).
5. See that the container is gone: a copy of the data that stays there is an alarm, whatever the verdict.

A bad backup is an alarm, and again each day until there is a newer one; it is tried again only if somebody names it. A
drill that broke says nothing of the backup: it is tried three times.
Serves the guide's "Backup Failed", step 3: verify the backup.
"""

from pydantic import BaseModel, Field

from blocks.errors import DrillBroken
from blocks.site import Site
from flows.backup_steps import left_behind, prove
from flows.job import Ended, job
from tasks import backups


class Wanted(BaseModel):
    """Which backup to prove."""

    backup: str = Field(default="", description="As `guardia backups` lists it; empty: the newest, if not bad.")


@job(wants=Wanted)
def verify_backup(site: Site, wanted: Wanted) -> Ended:
    """Prove a backup by restoring it."""
    ended = _proven(site, wanted.backup) if wanted.backup else _newest_proven(site)
    left = left_behind(site)
    if not left:
        return ended
    name = "Proven, not cleaned up" if ended.ok else ended.name
    return Ended(name=name, words=f"{ended.words.rstrip('.')}. {left}", ok=False)


def _newest_proven(site: Site) -> Ended:
    newest = backups.newest(site)
    if newest.proof is None or newest.proven:
        return _proven(site, newest.name)
    again = f"Make another with `guardia backup`, or prove this one again with `guardia verify {newest.name}`."
    found = f"as was found on {newest.proof.at:%Y-%m-%d %H:%M} UTC: {newest.proof.words.rstrip('.')}"
    return Ended(name="Bad backup", words=f"{newest.name} must not be restored, {found}. {again}", ok=False)


def _proven(site: Site, name: str) -> Ended:
    try:
        proof = prove(site, name)
    except DrillBroken as error:
        return Ended(name="Drill broken", words=str(error), ok=False)
    if proof.verdict == "bad":
        return Ended(name="Bad backup", words=f"{name} must not be restored: {proof.words}", ok=False)
    return Ended(name="Proven", words=f"{name}: {proof.words}")
