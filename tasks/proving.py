"""Prove a backup: restore it into a throwaway server and compare it exactly with what it must be.

Serves the guide's "Backup Failed", step 3.
"""

import time
from datetime import UTC, datetime

from blocks.errors import BadBackup, ConfigError, DatabaseError, DrillBroken, GuardiaError
from blocks.site import Site
from tasks import (
    backups,
    cluster,
    drill,
    envelope,
    invariants,
    inventory,
    manifest,
    own_dumps,
    postgres,
    restore,
)
from tasks.backup import Backup, Proof
from tasks.cluster import Locale
from tasks.own_dumps import OwnFile
from tasks.postgres import Server
from tasks.steps import look

DATABASE = "guardia_drill"  # what a backup is restored as


@look("Prove the backup in a throwaway server")
def prove(site: Site, name: str) -> Proof:
    """Restore the backup, or the dump of the site's own script, into a drill and compare it with what it must be.

    Whatever is wrong with the backup is a verdict, and not tried again. Raises ConfigError for a name that is not there
    or an invariant that cannot be asked, DrillBroken for anything else, which is tried three times in all. (Backup
    Failed, step 3.)
    """
    try:
        return _prove(site, name)
    except ConfigError:
        raise
    except GuardiaError as error:
        raise DrillBroken(f"{name} could not be proven: {error.what}", error.cure) from error


def _prove(site: Site, name: str) -> Proof:
    if name.endswith(own_dumps.SUFFIX):
        file = own_dumps.find(site, name)
        with drill.drill(site) as server:
            return _of_own(server, site, file)
    try:
        backup = backups.find(site, name)
    except BadBackup as error:
        return Proof(
            verdict="bad", at=datetime.now(UTC), restore_seconds=0, data_age_seconds=0, manifest_sha256="",
            differences=[str(error)],
        )  # fmt: skip
    with drill.drill(site) as server:
        return _of_backup(server, site, backup)


def _of_backup(server: Server, site: Site, backup: Backup) -> Proof:
    """Every table, sequence, object and role as the manifest says, and the site's invariants."""
    assert backup.manifest is not None
    expected, started = backup.manifest.contents, time.monotonic()
    differences: list[str] = []
    violated: dict[str, int] = {}
    try:
        restore.restore(server, site, backup, DATABASE)
        seconds = time.monotonic() - started
        differences = manifest.differences(expected, inventory.of(server, DATABASE))
        if not differences:  # else a missing table would pass for an invariant that cannot be asked
            violated = _violations(server, site)
    except BadBackup as error:
        seconds, differences = time.monotonic() - started, [str(error)]
    rows = {name: table.rows for name, table in expected.tables.items()}
    made, sha256 = backup.manifest.snapshot_at, envelope.digest(backup.manifest)
    return _verdict(differences, violated, seconds, made=made, rows=rows, sha256=sha256)


def _of_own(server: Server, site: Site, file: OwnFile) -> Proof:
    """That the dump is whole, with the rows of every table, and the site's invariants: it has no manifest."""
    differences: list[str] = []
    violated: dict[str, int] = {}
    rows: dict[str, int] = {}
    seconds = 0.0
    try:
        seconds, rows = own_dumps.restore(server, site, file, DATABASE, like=_production_locale(site))
        violated = _violations(server, site)
    except BadBackup as error:
        differences = [str(error)]
    return _verdict(differences, violated, seconds, made=file.modified, rows=rows)


def _verdict(
    differences: list[str],
    violated: dict[str, int],
    seconds: float,
    *,
    made: datetime,
    rows: dict[str, int],
    sha256: str = "",
) -> Proof:
    """Bad if anything differs, or if rows violate what always holds: a copy of damaged data is not to be restored."""
    now = datetime.now(UTC)
    return Proof(
        verdict="bad" if differences or any(violated.values()) else "proven", at=now, restore_seconds=round(seconds, 2),
        data_age_seconds=round((now - made).total_seconds(), 1), manifest_sha256=sha256, differences=differences,
        invariants=violated, tables=len(rows), rows=sum(rows.values()),
    )  # fmt: skip


def _violations(server: Server, site: Site) -> dict[str, int]:
    assert site.database is not None
    with postgres.connect(server, DATABASE, application="guardia-drill") as connection:
        return invariants.violations(connection, site.database.invariants)


def _production_locale(site: Site) -> Locale | None:
    """That of the live database; where it cannot be asked, the server's own must do."""
    assert site.database is not None
    try:
        with cluster.maintenance(postgres.production(site)) as connection:
            return cluster.locale(connection, site.database.name)
    except (DatabaseError, ConfigError):
        return None
