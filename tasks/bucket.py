"""Where the things of a backup lie in the bucket: an archive, its manifest and its proof, under PREFIX/SITE/NAME/."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from blocks.backup_store import BackupStore
from blocks.errors import ConfigError
from blocks.site import Site
from tasks import s3

NAME = r"\d{4}-\d\d-\d\dT\d{6}Z(-safety)?"


def new_name(now: datetime) -> str:
    """The name of a backup that begins now, e.g. `2026-11-24T030000Z`."""
    return f"{now.astimezone(UTC):%Y-%m-%dT%H%M%SZ}"


def store(site: Site) -> BackupStore:
    """Where the site's backups are kept. Raises ConfigError if it has none."""
    if site.backups is None:
        raise ConfigError(f"{site.name} has no [backups] in its site file.", "See docs/site-file.md.")
    return site.backups


def place(site: Site, name: str = "") -> str:
    """What the keys of a backup begin with, or those of all backups of the site."""
    parts = [store(site).prefix, site.name, name]
    return "/".join(part for part in parts if part) + "/"


def archive_key(site: Site, name: str) -> str:
    """Where a backup's archive lies."""
    return place(site, name) + "archive"


def context(site: Site, name: str, what: str = "archive") -> bytes:
    """What a seal or a signature is bound to, so that nothing of one backup passes for another's."""
    return f"{site.name}/{name}/{what}".encode()


def objects(site: Site) -> dict[str, dict[str, s3.Object]]:
    """What lies there for each name of a backup: file name -> object. Raises StoreError."""
    found = dict[str, dict[str, s3.Object]]()
    for entry in s3.keys(store(site), place(site)):
        if match := re.fullmatch(rf"({NAME})/([a-z.]+)", entry.key.removeprefix(place(site))):
            found.setdefault(match[1], {})[match[3]] = entry
    return found
