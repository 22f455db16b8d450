"""The backups of a site as they are in the bucket: listed, found, read.

The manifest is written last and deleted first: a backup without one does not exist.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from blocks.errors import BadBackup, ConfigError
from blocks.site import Site
from tasks import bucket, envelope, s3, sealed
from tasks.backup import Backup, Backups, Proof
from tasks.manifest import Manifest
from tasks.steps import look

_READERS = 8  # manifests read at a time


@look("List the backups")
def listed(site: Site) -> Backups:
    """The backups in the bucket, and whether they are as young, and as young proven, as promised."""
    return seen(site)


def seen(site: Site) -> Backups:
    """The backups as they are now."""
    return Backups(items=every(site), at=datetime.now(UTC), rpo=timedelta(hours=bucket.store(site).rpo))


def every(site: Site) -> list[Backup]:
    """All backups of the site, newest first, broken ones too. Raises StoreError."""
    found = bucket.objects(site)
    committed = [name for name in sorted(found, reverse=True) if "manifest.json" in found[name]]
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(lambda name: _read(site, name, set(found[name])), committed))


def find(site: Site, name: str) -> Backup:
    """The backup of that name. Raises ConfigError, listing the known ones, and BadBackup if it cannot be used."""
    found = every(site)
    for backup in found:
        if backup.name == name and backup.manifest is None:
            raise BadBackup(backup.problem)
        if backup.name == name:
            return backup
    known = ", ".join(backup.name for backup in found[:10]) or "none"
    raise ConfigError(f"{site.name} has no backup {name!r}; the newest: {known}.", "See `guardia backups`.")


def newest(site: Site) -> Backup:
    """The newest backup that can be used. Raises ConfigError if there is none."""
    usable = seen(site).usable
    if not usable:
        raise ConfigError(f"{site.name} has no backup that can be used.", "Make one with `guardia backup`.")
    return usable[0]


def opened(site: Site, backup: Backup) -> Iterator[bytes]:
    """The archive as pg_dump and the compressor made it: decrypted, its size and SHA-256 compared.

    Raises BadBackup, perhaps only at the end: what was read is good only once the iterator has ended.
    """
    if backup.manifest is None:
        raise BadBackup(f"The backup {backup.name} cannot be used: {backup.problem}")
    archive, store = backup.manifest.archive, bucket.store(site)
    chunks = s3.stream(store, archive.key)
    stored = _measured(chunks, backup.name, archive.stored_sha256, archive.stored_bytes)
    if not backup.manifest.encrypted:
        yield from stored
        return
    assert store.encryption_key is not None, "an encrypted backup is refused where there is no key"
    plain = sealed.unseal(stored, sealed.decoded(store.encryption_key), bucket.context(site, backup.name))
    yield from _measured(plain, backup.name, archive.sha256, archive.bytes)


def _read(site: Site, name: str, files: set[str]) -> Backup:
    store, place = bucket.store(site), bucket.place(site, name)
    try:
        manifest = envelope.unwrap(site, name, "manifest", s3.get(store, f"{place}manifest.json"), Manifest)
        _refuse_stray(site, name, manifest, files)
    except BadBackup as error:
        return Backup(name=name, problem=str(error))
    try:
        file = s3.get(store, f"{place}proof.json") if "proof.json" in files else None
        proof = envelope.unwrap(site, name, "proof", file, Proof) if file else None
    except BadBackup:
        proof = None  # it can be proven again
    if proof and proof.manifest_sha256 != envelope.digest(manifest):
        proof = None
    return Backup(name=name, manifest=manifest, proof=proof)


def _refuse_stray(site: Site, name: str, manifest: Manifest, files: set[str]) -> None:
    """Raise BadBackup for a manifest that lies in another's place, or beside no archive or one that is unreadable."""
    if manifest.site != site.name or manifest.name != name or manifest.archive.key != bucket.archive_key(site, name):
        raise BadBackup(
            f"The manifest of {name} is that of {manifest.site}'s {manifest.name} at {manifest.archive.key}.",
            envelope.ANOTHER,
        )
    if "archive" not in files:
        raise BadBackup(f"The archive of {name} is lost.", envelope.ANOTHER)
    if manifest.encrypted != (bucket.store(site).encryption_key is not None):
        cure = "Give the key that it was made with as encryption_key in [backups]."
        said = "encrypted, and there is no key" if manifest.encrypted else "not encrypted, though signed with the key"
        raise BadBackup(f"The backup {name} is {said}.", cure if manifest.encrypted else envelope.ANOTHER)


def _measured(chunks: Iterator[bytes], name: str, sha256: str, size: int) -> Iterator[bytes]:
    """Pass the chunks on; raise BadBackup as soon as they are too many, and at the end if they are not the same."""
    digest, count = hashlib.sha256(), 0
    for chunk in chunks:
        digest.update(chunk)
        count += len(chunk)
        if count > size:
            break
        yield chunk
    if count != size or digest.hexdigest() != sha256:
        what = "is too long" if count > size else f"has {count} of {size} bytes" if count < size else "is damaged"
        raise BadBackup(f"The archive of {name} {what}: it is not what was backed up.", envelope.ANOTHER)
