"""Dump the database into the bucket: one snapshot, one stream, no file where Guardia runs.

Serves the guide's "Run manual backup". The archive and the manifest show the same snapshot; an end of the stream that
is not the end of the dump is an error before anything is completed.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Literal

from pydantic import BaseModel

from blocks.backup_store import BackupStore
from blocks.database import Database
from blocks.errors import CommandError, CommandFailed, GuardiaError
from blocks.site import Site
from tasks import (
    backups,
    bucket,
    copies,
    host,
    inventory,
    keeping,
    postgres,
    s3,
    sealed,
    snapshot,
    ssh,
    timeline,
)
from tasks.command import Command, Pipeline
from tasks.copies import LONGEST
from tasks.docker import QUICK
from tasks.manifest import Archive, Contents, Manifest
from tasks.postgres import Server
from tasks.progress import Report, progress
from tasks.steps import look, once

SMALLEST = 200  # bytes: an archive of an empty database has some hundreds, also compressed
SPARE = 0.1  # of the file system must stay free beside a copy
Kind = Literal["daily", "safety"]

# --- commands -------------------------------------------------------------------------------------------------


def pg_dump(server: Server, database: str, name: str, shown: str, *, level: int, straight: bool = False) -> Command:
    """An archive of everything in the snapshot, on standard output.

    `straight` if it need not pass through Docker's daemon: then the host's time limit ends it, else the container's.
    """
    wanted = f"user={server.user} port={server.port} dbname={database} application_name={_application(name)}"
    words = ("--format=custom", f"--compress={level}", f"--snapshot={shown}", "--lock-wait-timeout=60000")
    command = ("pg_dump", *words, f"--dbname={wanted}")
    if straight:
        return postgres.straight(server, *command, timeout=LONGEST)
    return postgres.inside(server, "timeout", str(LONGEST), *command, timeout=LONGEST)


def pg_roles(server: Server) -> Command:
    """Roles and their memberships, without passwords, as SQL."""
    words = ("pg_dumpall", "--roles-only", "--no-role-passwords", f"--username={server.user}", f"--port={server.port}")
    return postgres.inside(server, *words, timeout=60)


def compressor() -> Command:
    """One thread, for pg_dump has the other core; level 3, but looking ahead as level 8 does.

    That makes rows of tables smaller than gzip does, in a fraction of its time; level 3 by itself, an eighth larger.
    On two cores a dump of 790 MB took 13.5 s with one thread, and 15.5 s with a thread a core.
    """
    return Command(("zstd", "--single-thread", "-3", "--zstd=strategy=5,minMatch=6", "-q", "-c"), timeout=LONGEST)


def compressor_version() -> Command:
    """Whether the VPS has zstd."""
    return Command(("zstd", "--version"), timeout=QUICK)


# --- looks ----------------------------------------------------------------------------------------------------


class Space(BaseModel):
    """What is there for a backup: bytes free for a copy, bytes that it may need, how the VPS compresses."""

    database_bytes: int
    free: int
    expected: int
    compression: Literal["zstd", "none"]
    copy_kept: bool
    straight: bool = False  # out of the container without passing through Docker's daemon

    @property
    def summary(self) -> str:
        """One line for the timeline."""
        copy = "a copy is kept" if self.copy_kept else "NO copy is kept there: too little space"
        zstd = "" if self.compression == "zstd" else "; no zstd on the VPS, so pg_dump compresses, slowly"
        megabytes = f"database {_mb(self.database_bytes)}, archive about {_mb(self.expected)}"
        return f"{megabytes}, free on the VPS {_mb(self.free)}: {copy}{zstd}"


@look("Check space and connection")
def space(site: Site) -> Space:
    """Whether the database answers and can be backed up exactly, and whether the VPS has space for a copy.

    Raises DatabaseRefused, naming what cannot be exact, DatabaseUnreachable, StoreRefused, StoreUnreachable.
    """
    store, database = _configured(site)
    s3.check(store)
    server = postgres.production(site)
    with postgres.connect(server, database.name, application="guardia-look") as connection:
        inventory.refuse_inexact(connection)
        row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
        assert row is not None
    guess = row[0] // 4  # of the archive; the database may have grown since the last backup
    last = next((b.manifest.archive.bytes for b in backups.every(site) if b.manifest), guess)
    total, free = host.space_at(ssh.run(site.host, host.disk_space()).stdout, copies.folder(site))
    needed = int(max(last, guess) * 1.5) + int(total * SPARE)
    return Space(
        database_bytes=row[0], free=free, expected=last, compression=compression(site),
        copy_kept=store.copies > 0 and free > needed, straight=_straight(site, server),
    )  # fmt: skip


# --- the dump -------------------------------------------------------------------------------------------------


@once("Name the backup", by=("attempt",))
def name_it(site: Site, kind: Kind, attempt: int = 1) -> str:
    """A name that a retried run keeps, so that it does not leave two backups."""
    del site, attempt
    return bucket.new_name(datetime.now(UTC)) + ("-safety" if kind == "safety" else "")


@once("Dump the database into the bucket", by=("site", "name"))
def dump(site: Site, name: str, kind: Kind, found: Space) -> Manifest:
    """Stream an archive into the bucket and take its manifest, in one snapshot. It is no backup until committed.

    Raises DatabaseError, StoreError, CommandFailed for a stage that failed, HostUnreachable; then what was uploaded
    is abandoned and the copy removed.
    """
    started = time.monotonic()
    store, database = _configured(site)
    server = postgres.production(site)
    path = f"{copies.folder(site)}/{name}.dump{'.zst' if found.compression == 'zstd' else ''}"
    try:
        _end_leftovers(server, database.name, kind)
        keeping.abandon(site, kind)
        with snapshot.shared(server, database.name, application=_application(name)) as state:
            command = stream(server, database.name, name, state.name, found=found, part=f"{path}.part")
            if found.copy_kept:
                ssh.run(site.host, copies.make_folder(copies.folder(site)))
            held = inventory.hold(state.sessions[0])
            with ThreadPoolExecutor(1) as pool, progress(f"backup-{site.name}", f"Backup {name}") as report:
                contents = pool.submit(inventory.take, *state.sessions, held=held)
                archive = _upload(site, name, command, found, partial(_told, contents, report, found.expected))
                taken = contents.result()
        roles = ssh.run(site.host, pg_roles(server)).stdout
    except BaseException as error:
        _clean_up(site, store, name, path, found)
        timeline.record("act", "Dump the database into the bucket", outcome=str(error), ok=False, changes=True,
                        seconds=time.monotonic() - started)  # fmt: skip
        raise
    return Manifest(
        kind=kind, site=site.name, name=name, database=database.name, snapshot_at=state.at,
        seconds=round(time.monotonic() - started, 2), database_bytes=found.database_bytes, contents=taken,
        archive=archive, globals_sql=roles, encrypted=store.encryption_key is not None,
    )  # fmt: skip


def noted(made: Manifest) -> Manifest:
    """The same; its dump is on the timeline, once, also of a process that was killed before it could say so."""
    if timeline.noted(made.archive.key) is None:
        rows = sum(table.rows for table in made.contents.tables.values())
        timeline.record(
            "act", "Dump the database into the bucket", seconds=made.seconds, changes=True, key=made.archive.key,
            outcome=f"{made.name}: {_mb(made.archive.bytes)}, {len(made.contents.tables)} tables, {rows:,} rows",
        )  # fmt: skip
    return made


def stream(server: Server, database: str, name: str, shown: str, *, found: Space, part: str) -> Pipeline:
    """The archive on its way: dumped, compressed, and kept in a file as it passes if there is space."""
    zstd = found.compression == "zstd"
    stages = [pg_dump(server, database, name, shown, level=0 if zstd else 6, straight=found.straight)]
    stages += [compressor()] if zstd else []
    stages += [copies.keep(part)] if found.copy_kept else []
    return Pipeline(tuple(stages), timeout=LONGEST)


def _upload(site: Site, name: str, command: Pipeline, found: Space, tell: Callable[[int], None]) -> Archive:
    """The stream into the bucket, hashed as it passes, encrypted if there is a key."""
    store, _ = _configured(site)
    key, secret = bucket.archive_key(site, name), store.encryption_key
    digest, size = hashlib.sha256() if secret else None, 0  # without a key, what is stored is the archive itself

    with ssh.reading(site.host, command) as reader:

        def plain(wanted: int) -> bytes:
            nonlocal size
            data = reader.read(wanted)
            if digest is not None:
                digest.update(data)
            size += len(data)
            tell(size)
            return data

        read = sealed.seal(plain, sealed.decoded(secret), bucket.context(site, name)) if secret else plain
        stored = s3.upload(store, key, read)
    if size < SMALLEST:
        raise CommandFailed(f"{command.line} ended well and wrote {size} bytes, which is no archive.")
    return Archive(
        key=key, compression=found.compression, sha256=digest.hexdigest() if digest else stored.sha256, bytes=size,
        stored_sha256=stored.sha256, stored_bytes=stored.bytes,
    )  # fmt: skip


def _told(contents: Future[Contents], report: Report, expected: int, done: int) -> None:
    """Show the progress; give up at once if the manifest cannot be taken."""
    if contents.done() and (error := contents.exception()):
        raise error
    report(done / max(expected, 1))


def _end_leftovers(server: Server, database: str, kind: Kind) -> None:
    """End what a dump that was cut off left in the server: it would hold its snapshot for hours.

    One of the other kind may be under way: a playbook's beside the daily one. Of a kind there is one at a time.
    """
    with postgres.connect(server, database) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
            "AND starts_with(application_name, 'guardia-dump-') AND (application_name LIKE '%%-safety') = %s",
            [kind == "safety"],
        )


def _clean_up(site: Site, store: BackupStore, name: str, path: str, found: Space) -> None:
    with suppress(GuardiaError):
        s3.delete(store, [bucket.archive_key(site, name)])
    if found.copy_kept:
        with suppress(GuardiaError):
            ssh.run(site.host, copies.remove(f"{path}.part", path))


def compression(site: Site) -> Literal["zstd", "none"]:
    """What the VPS compresses with: zstd, or nothing where it has none and pg_dump must do it."""
    return "none" if _said(site, compressor_version()) is None else "zstd"


def _straight(site: Site, server: Server) -> bool:
    """Whether pg_dump's output comes out of the container that way: it must be seen to, not only to end well."""
    return (_said(site, postgres.straight_works(server)) or "").startswith("pg_dump (PostgreSQL)")


def _said(site: Site, command: Command) -> str | None:
    try:
        return ssh.run(site.host, command, quiet=True).stdout
    except CommandError:
        return None


def _configured(site: Site) -> tuple[BackupStore, Database]:
    store = bucket.store(site)
    assert site.database is not None, "a site file with [backups] has [database]"
    return store, site.database


def _application(name: str) -> str:
    return f"guardia-dump-{name}"


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
