"""Alarm when backups or their proofs have stopped, or when that cannot be seen: no data is an alarm too.

Jobs tell of their own failures; this tells of jobs that never ran. Serves the guide's "Backup Failed".
"""

import logging
import threading
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from blocks import site_file
from blocks.errors import ConfigError, GuardiaError
from blocks.site import Site
from deployments import rounds, spoilt
from tasks import backups, notify
from tasks.masking import mask
from tasks.notify import Sender

EVERY = 600.0  # seconds between two looks
AGAIN = timedelta(hours=24)  # an alarm that lasts is repeated
log = logging.getLogger("guardia.freshness")


def watch(stop: threading.Event) -> None:
    """Look every ten minutes until told to stop."""
    told: dict[str, datetime] = {}
    rounds.go(stop, EVERY, lambda _client, _began: round_trip(told, datetime.now(UTC)), log)


def round_trip(told: dict[str, datetime], now: datetime) -> None:
    """Look at every site once; one that cannot be looked at does not keep the others waiting."""
    for name in site_file.names():
        try:
            _see_to(name, told, now)
        except Exception:
            log.exception("The age of %s's backups cannot be told; it is tried again in %s s", name, EVERY)


def look_at(site: Site, told: dict[str, datetime], now: datetime) -> None:
    """An alarm, once a day, while the backups of a site are not as promised or cannot be seen."""
    problem = stale(site) if site.backups else ""
    body = f"{problem}\n\nStart the playbook: guardia respond backup-failed --site {site.name}\n"
    _daily(f"ALARM - backups of {site.name} are not as promised", body if problem else "", [site], told, now)


def stale(site: Site) -> str:
    """What is wrong with the age of the backups and of their proofs, or nothing."""
    try:
        seen = backups.seen(site)
    except GuardiaError as error:
        return f"The backups of {site.name} cannot be seen: {error}"
    promised = f"The site file promises {seen.rpo / timedelta(hours=1):.0f} h."
    return "" if seen.ok else f"Of {site.name}, {seen.problem}. {promised} {seen.cure}"


def _see_to(name: str, told: dict[str, datetime], now: datetime) -> None:
    subject = f"ALARM - {name} cannot be loaded"
    try:
        site = site_file.load(name)
    except ConfigError as error:
        _daily(subject, spoilt.words(name, error), spoilt.senders(name), told, now)
    else:
        told.pop(subject, None)
        look_at(site, told, now)


def _daily(subject: str, body: str, senders: Iterable[Sender], told: dict[str, datetime], now: datetime) -> None:
    """Tell the people of the first sender whose people can be reached. An alarm that reached nobody was not told."""
    if not body:
        told.pop(subject, None)
    elif now - told.get(subject, now - AGAIN) >= AGAIN:
        if any(notify.alarm(sender, subject, body) for sender in senders):
            told[subject] = now
        else:
            log.error("Nobody was told; it is tried again in %s s: %s", EVERY, mask(body))
