"""What is in the bucket: an archive, its manifest and its proof, under PREFIX/SITE/NAME/.

The manifest is written last and deleted first: a backup without one does not exist. Manifest and proof carry their
own SHA-256 and, where there is an encryption key, a signature by it: then a backup without one is refused, as anybody
who can write to the bucket can leave it out.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal, TypeVar
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, ValidationError

from blocks.backup_store import BackupStore
from blocks.errors import BadBackup, ConfigError
from blocks.site import Site
from tasks import s3, sealed
from tasks.manifest import FORMAT, Manifest
from tasks.retention import kept
from tasks.steps import Result, chore, look

NAME = r"\d{4}-\d\d-\d\dT\d{6}Z(-safety)?"
ORPHAN = timedelta(hours=24)  # an archive without a manifest that is older belongs to no backup that is being made
UNTIL_PROVEN = timedelta(hours=24)  # how much older than the newest the newest proven one may be: until the next proof
_READERS = 8  # manifests read at a time
_ANOTHER = "Choose another backup."

M = TypeVar("M", bound=BaseModel)


class Proof(BaseModel):
    """The verdict of a drill on one backup. It counts for the manifest that it names by SHA-256, and no other.

    `restore_seconds` is the measured time to restore (RTO), `data_age_seconds` the age of the data at the verdict
    (RPO), `invariants` how many rows violate each, and `differences` what is not as the manifest says.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    verdict: Literal["proven", "bad"]
    at: datetime
    restore_seconds: float
    data_age_seconds: float
    manifest_sha256: str
    differences: list[str] = []
    invariants: dict[str, int] = {}
    tables: int = 0
    rows: int = 0

    @property
    def words(self) -> str:
        """The verdict for people."""
        if self.verdict == "bad":
            violated = [f"{name}: {rows} rows" for name, rows in self.invariants.items() if rows]
            return "; ".join(self.differences[:5] + violated[:5]) or "it does not restore"
        measured = f"restored in {self.restore_seconds:.0f} s, data {self.data_age_seconds / 3600:.1f} h old"
        same = "exactly as when it was made" if self.manifest_sha256 else "as the file says, which has no manifest"
        return f"{self.tables} tables, {self.rows:,} rows {same}; {measured}"


class Backup(BaseModel):
    """One backup. Without a manifest it cannot be used, and `problem` says why."""

    model_config = ConfigDict(frozen=True)

    name: str
    manifest: Manifest | None = None
    proof: Proof | None = None
    problem: str = ""

    @property
    def proven(self) -> bool:
        """Whether it has been restored and found exact."""
        return self.proof is not None and self.proof.verdict == "proven"


class Backups(BaseModel):
    """The backups of a site, newest first, seen at a moment. The newest may be as old as `rpo`."""

    items: list[Backup]
    at: datetime
    rpo: timedelta

    @property
    def usable(self) -> list[Backup]:
        """Those that can be used; what was saved before a restore is no backup to go on with."""
        return [backup for backup in self.items if backup.manifest and backup.manifest.kind != "safety"]

    @property
    def newest(self) -> Manifest | None:
        """The newest that can be used."""
        return next((backup.manifest for backup in self.usable), None)

    @property
    def newest_proven(self) -> Manifest | None:
        """The newest that has been restored and found exact."""
        return next((backup.manifest for backup in self.usable if backup.proven), None)

    @property
    def stale(self) -> str:
        """That the newest is older than promised, in words, or nothing."""
        if self.newest is None:
            return "there is no backup that can be used"
        return f"the newest backup is {self._age(self.newest)} old" if self._older(self.newest, self.rpo) else ""

    @property
    def unproven(self) -> str:
        """That proofs have stopped, in words, or nothing. The first backup gets as long as the next one takes."""
        if self.newest_proven is not None:
            late = self._older(self.newest_proven, self.rpo + UNTIL_PROVEN)
            return f"the newest proven backup is {self._age(self.newest_proven)} old" if late else ""
        waited = any(backup.manifest and self._older(backup.manifest, self.rpo) for backup in self.usable)
        return "no backup is proven" if waited else ""

    @property
    def problem(self) -> str:
        """All that is wrong with their ages, in words, or nothing."""
        return " and ".join(filter(None, (self.stale, self.unproven)))

    @property
    def cure(self) -> str:
        """What to do about it."""
        first = "Make one now: `guardia backup`, then prove it" if self.stale else "Prove the newest"
        return f"{first}: `guardia verify`."

    @property
    def ok(self) -> bool:
        """Whether the newest is as young as promised, and so is the newest that is proven, but for a day."""
        return not self.problem

    @property
    def summary(self) -> str:
        """One line for the timeline."""
        if self.newest is None:
            return "there is NO backup"
        ages = f"the newest {self._age(self.newest)} old"
        proven = (
            f"the newest proven one {self._age(self.newest_proven)} old" if self.newest_proven else "NONE is proven"
        )
        broken = sum(bool(backup.problem) for backup in self.items)
        return f"{len(self.items)} backups, {ages}, {proven}" + (f", {broken} that cannot be used" if broken else "")

    def _older(self, manifest: Manifest, limit: timedelta) -> bool:
        return self.at - manifest.snapshot_at > limit

    def _age(self, manifest: Manifest) -> str:
        return f"{(self.at - manifest.snapshot_at).total_seconds() / 3600:.1f} h"


# --- names ----------------------------------------------------------------------------------------------------


def new_name(now: datetime) -> str:
    """The name of a backup that begins now, e.g. `2026-11-24T030000Z`."""
    return f"{now.astimezone(UTC):%Y-%m-%dT%H%M%SZ}"


def archive_key(site: Site, name: str) -> str:
    """Where a backup's archive lies in the bucket."""
    return _prefix(site, name) + "archive"


def context(site: Site, name: str, what: str = "archive") -> bytes:
    """What a seal or a signature is bound to, so that nothing of one backup passes for another's."""
    return f"{site.name}/{name}/{what}".encode()


# --- looks ----------------------------------------------------------------------------------------------------


@look("List the backups")
def listed(site: Site) -> Backups:
    """The backups in the bucket, and whether they are as young, and as young proven, as promised."""
    return seen(site)


def seen(site: Site) -> Backups:
    """The backups as they are now."""
    return Backups(items=every(site), at=datetime.now(UTC), rpo=timedelta(hours=_store(site).rpo))


def every(site: Site) -> list[Backup]:
    """All backups of the site, newest first, broken ones too. Raises StoreError."""
    found = _objects(site)
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


def newest(site: Site) -> str:
    """The name of the newest backup that can be used. Raises ConfigError if there is none."""
    manifest = Backups(items=every(site), at=datetime.now(UTC), rpo=timedelta()).newest
    if manifest is None:
        raise ConfigError(f"{site.name} has no backup that can be used.", "Make one with `guardia backup`.")
    return manifest.name


def opened(site: Site, backup: Backup) -> Iterator[bytes]:
    """The archive as pg_dump and the compressor made it: decrypted, its size and SHA-256 compared.

    Raises BadBackup, perhaps only at the end: what was read is good only once the iterator has ended.
    """
    if backup.manifest is None:
        raise BadBackup(f"The backup {backup.name} cannot be used: {backup.problem}")
    archive, store = backup.manifest.archive, _store(site)
    chunks = s3.stream(store, archive.key)
    stored = _measured(chunks, backup.name, archive.stored_sha256, archive.stored_bytes)
    if not backup.manifest.encrypted:
        yield from stored
        return
    assert store.encryption_key is not None, "an encrypted backup is refused where there is no key"
    plain = sealed.unseal(stored, sealed.decoded(store.encryption_key), context(site, backup.name))
    yield from _measured(plain, backup.name, archive.sha256, archive.bytes)


# --- changes --------------------------------------------------------------------------------------------------


@chore("Write the manifest", by=("site", "manifest"))
def commit(site: Site, manifest: Manifest) -> Result:
    """Make it a backup, by writing the manifest. Raises BadBackup if the archive is not whole."""
    archive, store = manifest.archive, _store(site)
    sizes = {found.key: found.size for found in s3.keys(store, _prefix(site, manifest.name))}
    if sizes.get(archive.key) != archive.stored_bytes:
        raise BadBackup(
            f"The archive {archive.key} has {sizes.get(archive.key, 'no')} bytes where {archive.stored_bytes} were "
            "written; its manifest was not.",
            "Back up again.",
        )
    key = f"{_prefix(site, manifest.name)}manifest.json"
    file = _enveloped(site, manifest.name, "manifest", manifest)
    if key not in sizes:
        s3.put(store, key, file, locked=True)
    elif s3.get(store, key) != file:  # the same one is there when the answer to a first attempt was lost
        raise BadBackup(f"There is another backup {manifest.name} already.", "Back up again.")
    return Result(words=f"{manifest.name} is a backup now")


def abandon(site: Site, kind: Literal["daily", "safety"]) -> int:
    """Abort the unfinished uploads that killed runs left, before one of this kind begins; returns how many.

    Of a kind one is made at a time, so that none of these is under way; those of the other kind `prune` leaves a day.
    """
    at_any_age = timedelta.min  # the store's clock may be ahead
    return s3.abandon(
        _store(site), _prefix(site), at_any_age, lambda key: key.endswith("-safety/archive") == (kind == "safety")
    )


@chore("Keep the verdict beside the backup")
def keep_proof(site: Site, name: str, proof: Proof) -> Result:
    """Write a proof beside its backup, over an older one."""
    s3.put(_store(site), f"{_prefix(site, name)}proof.json", _enveloped(site, name, "proof", proof))
    return Result(words=f"{name}: {proof.verdict}")


@chore("Remove what retention lets go", by=("site", "name"))
def prune(site: Site, name: str) -> Result:
    """After the success of the backup `name`, remove what retention lets go, and what killed workers left.

    Its text is the names removed. What object lock still holds, and what is damaged, stays. Raises BadBackup and
    removes nothing if that backup is not there.
    """
    store, found = _store(site), every(site)
    if name not in {backup.name for backup in found if backup.manifest}:
        raise BadBackup(f"The backup {name} is not in the bucket; nothing was pruned.", "Back up again.")
    keep = kept(found, store.retention, ZoneInfo(site.timezone)) | {name}
    wanted = [backup.name for backup in found if backup.manifest and backup.name not in keep]
    gone, held = [], []
    for old in wanted + _orphans(site):
        place = _prefix(site, old)
        present = [entry.key for entry in s3.keys(store, place)]
        if any(s3.locked(store, key) for key in present if not key.endswith("proof.json")):
            held.append(old)
            continue
        s3.delete(store, sorted(present, key=lambda key: not key.endswith("manifest.json")))
        gone.append(old)
    left = s3.abandon(store, _prefix(site), ORPHAN)
    broken = sum(backup.manifest is None for backup in found)
    words = f"removed {len(gone)} of {len(found)} backups" + (f", {left} unfinished uploads" if left else "")
    words += f"; {len(held)} are held by object lock" if held else ""
    words += f"; {broken} that cannot be used were left for you to look at" if broken else ""
    return Result(words=words, text="\n".join(gone), changed=bool(gone))


def digest(manifest: Manifest) -> str:
    """The SHA-256 that a proof knows its manifest by."""
    return hashlib.sha256(_canonical(manifest.model_dump(mode="json"))).hexdigest()


# --- files ----------------------------------------------------------------------------------------------------


def _enveloped(site: Site, name: str, what: str, content: BaseModel) -> bytes:
    """A file of one line: the content, its SHA-256, and its signature where there is a key."""
    raw = content.model_dump(mode="json")
    data = _canonical(raw)
    key = _store(site).encryption_key
    signature = sealed.sign(data, sealed.decoded(key), context(site, name, what)) if key else None
    return _canonical({what: raw, "sha256": hashlib.sha256(data).hexdigest(), "signature": signature})


def _content(site: Site, name: str, what: str, file: bytes, model: type[M]) -> M:
    """What such a file holds. Raises BadBackup unless it is, to the byte, what Guardia wrote for this backup."""
    place, secret = f"The {what} of {name}", _store(site).encryption_key
    try:
        envelope = json.loads(file)
        raw, signature = envelope[what], envelope["signature"]
        data = _canonical(raw)
        whole = _canonical({what: raw, "sha256": hashlib.sha256(data).hexdigest(), "signature": signature}) == file
    except (ValueError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise BadBackup(f"{place} is damaged: it does not have the SHA-256 that it names.", _ANOTHER)
    if secret and signature is None:
        raise BadBackup(
            f"{place} is not signed: it is forged, or was made before encryption_key was set.",
            "Make a new backup. If you know this one to be yours, take encryption_key out of [backups] to use it.",
        )
    if secret and not sealed.check(data, str(signature), sealed.decoded(secret), context(site, name, what)):
        raise BadBackup(
            f"{place} has a wrong signature: it is forged, or was made with another encryption_key.",
            "Give the key that it was made with as encryption_key in [backups], or choose another backup.",
        )
    if what == "manifest" and isinstance(raw, dict) and raw.get("format") != FORMAT:
        raise BadBackup(f"{place} has format {raw.get('format')}; known is {FORMAT}.", "Update Guardia.")
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise BadBackup(f"{place} is not one: {error.errors()[0]['msg']}.", _ANOTHER) from None


def _read(site: Site, name: str, files: set[str]) -> Backup:
    store, place = _store(site), _prefix(site, name)
    try:
        manifest = _content(site, name, "manifest", s3.get(store, f"{place}manifest.json"), Manifest)
        _refuse_stray(site, name, manifest, files)
    except BadBackup as error:
        return Backup(name=name, problem=str(error))
    try:
        file = s3.get(store, f"{place}proof.json") if "proof.json" in files else None
        proof = _content(site, name, "proof", file, Proof) if file else None
    except BadBackup:
        proof = None  # it can be proven again
    if proof and proof.manifest_sha256 != digest(manifest):
        proof = None
    return Backup(name=name, manifest=manifest, proof=proof)


def _refuse_stray(site: Site, name: str, manifest: Manifest, files: set[str]) -> None:
    """Raise BadBackup for a manifest that lies in another's place, or beside no archive or one that is unreadable."""
    if manifest.site != site.name or manifest.name != name or manifest.archive.key != archive_key(site, name):
        raise BadBackup(
            f"The manifest of {name} is that of {manifest.site}'s {manifest.name} at {manifest.archive.key}.", _ANOTHER
        )
    if "archive" not in files:
        raise BadBackup(f"The archive of {name} is lost.", _ANOTHER)
    if manifest.encrypted != (_store(site).encryption_key is not None):
        cure = "Give the key that it was made with as encryption_key in [backups]."
        said = "encrypted, and there is no key" if manifest.encrypted else "not encrypted, though signed with the key"
        raise BadBackup(f"The backup {name} is {said}.", cure if manifest.encrypted else _ANOTHER)


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
        raise BadBackup(f"The archive of {name} {what}: it is not what was backed up.", _ANOTHER)


def _objects(site: Site) -> dict[str, dict[str, s3.Object]]:
    """What lies in the bucket for each name: file name -> object."""
    place, found = _prefix(site), dict[str, dict[str, s3.Object]]()
    for entry in s3.keys(_store(site), place):
        if match := re.fullmatch(rf"({NAME})/([a-z.]+)", entry.key.removeprefix(place)):
            found.setdefault(match[1], {})[match[3]] = entry
    return found


def _orphans(site: Site) -> list[str]:
    """Names without a manifest, nothing of which is younger than a day."""
    limit = datetime.now(UTC) - ORPHAN
    bare = {name: files for name, files in _objects(site).items() if "manifest.json" not in files}
    return [name for name, files in bare.items() if max(entry.modified for entry in files.values()) < limit]


def _prefix(site: Site, name: str = "") -> str:
    parts = [_store(site).prefix, site.name, name]
    return "/".join(part for part in parts if part) + "/"


def _store(site: Site) -> BackupStore:
    if site.backups is None:
        raise ConfigError(f"{site.name} has no [backups] in its site file.", "See docs/site-file.md.")
    return site.backups


_canonical_text = partial(json.dumps, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _canonical(raw: Any) -> bytes:
    """The one way to write it in JSON."""
    return _canonical_text(raw).encode()
