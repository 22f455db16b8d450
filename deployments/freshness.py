"""Alarm when the newest backup is older than the site promises, or cannot be seen: no data is an alarm too.

Jobs tell of their own failures; this tells of jobs that never ran. Serves the guide's "Backup Failed".
"""

import logging
import threading
from datetime import UTC, datetime, timedelta

from blocks import site_file
from blocks.errors import GuardiaError
from blocks.site import Site
from tasks import backups, notify

EVERY = 600.0  # seconds between two looks
AGAIN = timedelta(hours=24)  # an alarm that lasts is repeated
log = logging.getLogger("guardia.freshness")


def watch(stop: threading.Event) -> None:
    """Look every ten minutes until told to stop; a site that cannot be looked at does not keep the others waiting."""
    told: dict[str, datetime] = {}
    while not stop.wait(EVERY):
        for name in site_file.names():
            try:
                look_at(site_file.load(name), told, datetime.now(UTC))
            except Exception:
                log.exception("The age of %s's backups cannot be told; it is tried again in %s s", name, EVERY)


def look_at(site: Site, told: dict[str, datetime], now: datetime) -> None:
    """Tell the primary on-call, once a day, if the backups of a site are too old or cannot be seen."""
    problem = stale(site) if site.backups else ""
    if not problem:
        told.pop(site.name, None)
    elif now - told.get(site.name, now - AGAIN) >= AGAIN:
        told[site.name] = now
        body = f"{problem}\n\nStart the playbook: guardia respond backup-failed --site {site.name}\n"
        notify.tell(site, [site.on_call.primary], f"ALARM - backups of {site.name} are too old", body, "alarm")


def stale(site: Site) -> str:
    """What is wrong with the age of the backups, or nothing."""
    try:
        seen = backups.seen(site)
    except GuardiaError as error:
        return f"The backups of {site.name} cannot be seen: {error}"
    return "" if seen.ok else f"{site.name} promises a backup of the last {seen.rpo}: {seen.summary}."
