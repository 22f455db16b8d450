"""Restore a backup into a new database of any server; nothing that is there already is touched.

The archive is spooled inside the container, because pg_restore uses several connections only from a file, and because
none of it is carried out before all of it has passed its checksum. The database has another name until it is whole:
one that has its own name is complete, whatever was killed on the way.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from blocks.errors import (
    BadBackup,
    CommandFailed,
    ConfigError,
    DatabaseRefused,
    DatabaseUnreachable,
    GuardiaError,
    NoSpace,
)
from blocks.site import Site
from tasks import backups, cluster, postgres, ssh, swap
from tasks.backup import Backup
from tasks.cluster import HALF, Locale
from tasks.command import Command, Pipeline, Statement, Step
from tasks.docker import QUICK
from tasks.manifest import Manifest
from tasks.postgres import Server

JOBS = 2  # connections that restore at the same time: one a core of a small VPS
# Triggers after all rows: at once, pg_restore makes those of a partitioned table before its partitions are filled.
PASSES = (("pre-data", "data"), ("post-data",))
LONGEST = 6 * 3600  # seconds that a restore may take
ROOM = 1.2  # times the size of the database that was backed up: indexes are built beside their tables
RESERVE = 256 << 20  # bytes that stay free for the write-ahead log and for the live site
SPOOL = "/tmp/guardia-"  # noqa: S108 - inside the container, where nobody else is

# --- commands -------------------------------------------------------------------------------------------------


def decompressor() -> Command:
    """What undoes `zstd`."""
    return Command(("zstd", "-dcq"), timeout=LONGEST)


def at_most(size: int) -> Command:
    """Pass on no more than `size` bytes, so that an archive never fills the disk."""
    return Command(("head", "--bytes", str(size)), timeout=LONGEST)


def spool(server: Server, file: str) -> Command:
    """Write standard input to a file in the container."""
    return postgres.inside(
        server, "dd", f"of={file}", "bs=1M", "status=none", stdin=True, changes=True, timeout=LONGEST
    )


def spooled(server: Server, file: str) -> Command:
    """The file's size in bytes."""
    return postgres.inside(server, "stat", "-c", "%s", file, timeout=QUICK)


def remove(server: Server, *files: str) -> Command:
    """Remove files in the container; one that is not there is no error."""
    return postgres.inside(server, "rm", "-f", *files, changes=True, timeout=QUICK)


def spool_files(server: Server) -> Command:
    """The files that a restore which was killed left in the container."""
    folder, name = SPOOL.rsplit("/", 1)
    return postgres.inside(server, "find", folder, "-maxdepth", "1", "-name", f"{name}*", timeout=QUICK)


def free(server: Server, data: str) -> Command:
    """KiB free where the archive is spooled and where the server keeps its data, as the container sees them."""
    return postgres.inside(server, "df", "-P", "-k", SPOOL.rsplit("/", 1)[0], data, timeout=QUICK)


def pg_restore(server: Server, database: str, file: str, sections: tuple[str, ...]) -> Command:
    """These sections of the archive, stopping at the first error; the container itself ends it in time."""
    wanted = f"user={server.user} port={server.port} dbname={database} application_name=guardia-restore"
    words = ("pg_restore", "--exit-on-error", f"--jobs={JOBS}", *(f"--section={name}" for name in sections))
    words += (f"--dbname={wanted}", file)
    return postgres.inside(server, "timeout", str(LONGEST), *words, changes=True, timeout=LONGEST)


def steps(server: Server, database: str) -> tuple[Step, ...]:
    """What a restore into a new database runs, for people to read; the archive comes out of the bucket."""
    half, file = database + HALF, f"{SPOOL}{database}.dump"
    return (
        spool(server, file),
        Statement("postgres", f'CREATE DATABASE "{half}" TEMPLATE template0'),
        *(pg_restore(server, half, file, sections) for sections in PASSES),
        Statement("postgres", f'ALTER DATABASE "{half}" RENAME TO "{database}"'),
        remove(server, file),
    )


# --- the restore ----------------------------------------------------------------------------------------------


def restore(
    server: Server, site: Site, backup: Backup, database: str, report: Callable[[float], object] = lambda _: None
) -> float:
    """Restore the backup into a new database of that name; returns how many seconds it took, download included.

    `report` is told the fraction done. Raises BadBackup, NoSpace, ConfigError for a backup that is newer than the
    server, DatabaseRefused if there is such a database, and what the store, the host and the server raise; then
    nothing of it is left.
    """
    started = time.monotonic()
    manifest, half, file = _whole(backup), database + HALF, f"{SPOOL}{database}.dump"
    with cluster.maintenance(server) as connection:
        _refuse(manifest, server, connection.info.server_version)
        if cluster.exists(connection, database):
            raise DatabaseRefused(
                f"{server.name} has a database {database} already.", "It may be a restore of this backup: look at it."
            )
        row = connection.execute("SELECT current_setting('data_directory')").fetchone()
        assert row is not None
        cluster.drop(connection, half)  # of a restore that was killed
    created: list[str] = []
    try:
        _spool(server, site, backup, file, _limit(server, manifest, row[0]), report=report)
        with cluster.maintenance(server) as connection:
            created = cluster.create_roles(connection, manifest.contents.roles)
            cluster.create(connection, half, _locale(manifest), server.user)
        for sections in PASSES:
            _run(server, pg_restore(server, half, file, sections))
        report(0.9)
        with postgres.connect(server, half) as connection:
            connection.execute("ANALYZE")
        with cluster.maintenance(server) as connection:
            cluster.rename(connection, half, database)
    except BaseException:
        with suppress(GuardiaError), cluster.maintenance(server) as connection:
            cluster.drop(connection, half)
            for role in created:
                cluster.drop_role(connection, role)
        raise
    finally:
        with suppress(GuardiaError):
            ssh.run(server.host, remove(server, file))
    report(1.0)
    return time.monotonic() - started


def clear(server: Server, live: str) -> list[str]:
    """Remove what restores that were killed left: databases that are not whole, spooled archives; returns their names.

    The caller holds the site, so that no restore is under way.
    """
    with cluster.maintenance(server) as connection:
        every = [name for name in cluster.named(connection, "") if name.endswith(HALF)]
        halves = [name for name in every if swap.of(live, name.removesuffix(HALF))]
        for name in halves:
            cluster.drop(connection, name)
            cluster.drop_role(connection, name)  # which an own dump is restored as
    files = ssh.run(server.host, spool_files(server)).stdout.split()
    if files:
        ssh.run(server.host, remove(server, *files))
    return halves + files


def _whole(backup: Backup) -> Manifest:
    if backup.manifest is None:
        raise BadBackup(f"The backup {backup.name} cannot be used: {backup.problem}")
    return backup.manifest


def _refuse(manifest: Manifest, server: Server, version: int) -> None:
    """An older server reads a newer one's archive wrongly or not at all."""
    theirs = manifest.contents.server_version // 10000
    if theirs > version // 10000:
        raise ConfigError(
            f"{manifest.name} was made by PostgreSQL {theirs}, and {server.name} is {version // 10000}.",
            f"Restore it into PostgreSQL {theirs} or newer.",
        )


def _locale(manifest: Manifest) -> Locale:
    contents = manifest.contents
    return Locale(*(getattr(contents, name) for name in Locale._fields))


def _limit(server: Server, manifest: Manifest, data: str) -> int:
    """How many bytes the archive may take in the container; NoSpace if that is less than it needs."""
    spool_free, data_free = parse_free(ssh.run(server.host, free(server, data), quiet=True).stdout)
    archive, restored = room(manifest)
    together = spool_free == data_free  # both are on one disk
    limit = spool_free - (restored if together else RESERVE)
    if limit < archive or data_free < restored:
        raise NoSpace(
            f"{server.host.address} has {_mb(data_free)} free for the database of {manifest.name}, which needs "
            f"{_mb(restored)}, and {_mb(spool_free)} for its archive, which needs {_mb(archive)}"
            f"{' of the same disk' if together else ''}.",
            "Free some: old databases that a restore kept, `docker system prune`, copies of backups.",
        )
    return limit


def room(manifest: Manifest) -> tuple[int, int]:
    """Bytes that a restore needs for the archive in the container, and for the database."""
    archive = manifest.archive.bytes
    if manifest.archive.compression == "zstd":  # its size before that is not known; tables are half of a database
        archive = max(archive, manifest.database_bytes // 2)
    return archive, int(manifest.database_bytes * ROOM) + RESERVE


def parse_free(text: str) -> tuple[int, int]:
    """Bytes free of the two file systems that `df -P -k` was asked for."""
    first, second = (int(line.split()[3]) * 1024 for line in text.splitlines()[1:])
    return first, second


def _spool(
    server: Server, site: Site, backup: Backup, file: str, limit: int, *, report: Callable[[float], object]
) -> None:
    """The archive into the container's file; returns only if it is what was backed up, to the last byte."""
    manifest = _whole(backup)
    first = (decompressor(),) if manifest.archive.compression == "zstd" else ()
    pipeline = Pipeline((*first, at_most(limit), spool(server, file)), timeout=LONGEST)
    failed: list[GuardiaError] = []
    chunks = _told(backups.opened(site, backup), manifest.archive.bytes, report, failed)
    try:
        ssh.feed(server.host, pipeline, chunks)
    except CommandFailed as error:
        for _ in chunks:  # a damaged archive also breaks the pipeline: the rest of its checksum tells which it was
            pass
        if not failed:
            raise _cause(server, manifest, file, limit, error) from error
    if failed:
        raise failed[0]


def _cause(server: Server, manifest: Manifest, file: str, limit: int, error: CommandFailed) -> GuardiaError:
    """Why an archive that is what was backed up could not be written."""
    size = 0
    with suppress(GuardiaError, ValueError):
        size = int(ssh.run(server.host, spooled(server, file), quiet=True).stdout)
    if size >= limit or "No space left" in error.what:
        return NoSpace(
            f"The archive of {manifest.name} is larger than the {_mb(limit)} that {server.host.address} has for it.",
            "Free some space: old databases that a restore kept, `docker system prune`, copies of backups.",
        )
    if re.search(r"/\*stdin\*\\ ?:", error.what):  # zstd names its input when that is at fault
        return BadBackup(f"The archive of {manifest.name} does not decode: {error.what}", "Choose another backup.")
    return error


def _told(
    chunks: Iterable[bytes], size: int, report: Callable[[float], object], failed: list[GuardiaError]
) -> Iterator[bytes]:
    """The chunks. If they fail they just end, so that what writes them down has ended too before it is removed."""
    done = 0
    try:
        for chunk in chunks:
            yield chunk
            done += len(chunk)
            report(0.4 * done / max(size, 1))
    except GuardiaError as error:
        failed.append(error)


def _run(server: Server, command: Command) -> None:
    try:
        ssh.run(server.host, command)
    except CommandFailed as error:
        raise judged(error) from error


# pg_restore and psql name what is wrong with what they were given; else it was something around them that failed.
_NAMED = re.compile(r"pg_restore: error|ERROR: ")
# What they say when the server or the machine failed, all the same.
_LOST = re.compile(
    r"server closed the connection|terminating connection|connection to server|the database system is|"
    r"out of (shared )?memory|could not resize shared memory|container .* is not running|No such container|"
    r"status 137|worker process died|could not fork|Cannot allocate memory|Error response from daemon|"
    r"Input/output error|canceling statement|deadlock detected",
    re.I,
)


def judged(error: CommandFailed) -> GuardiaError:
    """Whether a restore failed for want of space, because the server was lost, or because of what was restored."""
    if "No space left" in error.what:
        return NoSpace(error.what, "Free some space on that machine.")
    if _LOST.search(error.what) or not _NAMED.search(error.what):
        return DatabaseUnreachable(error.what, "The server or its container was lost; the next try starts afresh.")
    return BadBackup(error.what, "What was backed up cannot be restored; choose another backup.")


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
