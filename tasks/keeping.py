"""What is written beside an archive in the bucket, and what is removed from there: manifest, verdict, retention."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from blocks.errors import BadBackup
from blocks.site import Site
from tasks import backups, bucket, envelope, s3
from tasks.backup import Proof
from tasks.manifest import Manifest
from tasks.retention import kept
from tasks.steps import Result, chore

ORPHAN = timedelta(hours=24)  # an archive without a manifest that is older belongs to no backup that is being made


@chore("Write the manifest", by=("site", "manifest"))
def commit(site: Site, manifest: Manifest) -> Result:
    """Make it a backup, by writing the manifest. Raises BadBackup if the archive is not whole."""
    archive, store = manifest.archive, bucket.store(site)
    sizes = {found.key: found.size for found in s3.keys(store, bucket.place(site, manifest.name))}
    if sizes.get(archive.key) != archive.stored_bytes:
        raise BadBackup(
            f"The archive {archive.key} has {sizes.get(archive.key, 'no')} bytes where {archive.stored_bytes} were "
            "written; its manifest was not.",
            "Back up again.",
        )
    key = f"{bucket.place(site, manifest.name)}manifest.json"
    file = envelope.wrap(site, manifest.name, "manifest", manifest)
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
        bucket.store(site),
        bucket.place(site),
        at_any_age,
        lambda key: key.endswith("-safety/archive") == (kind == "safety"),
    )


@chore("Keep the verdict beside the backup")
def keep_proof(site: Site, name: str, proof: Proof) -> Result:
    """Write a proof beside its backup, over an older one."""
    s3.put(bucket.store(site), f"{bucket.place(site, name)}proof.json", envelope.wrap(site, name, "proof", proof))
    return Result(words=f"{name}: {proof.verdict}")


@chore("Remove what retention lets go", by=("site", "name"))
def prune(site: Site, name: str) -> Result:
    """After the success of the backup `name`, remove what retention lets go, and what killed workers left.

    Its text is the names removed. What object lock still holds, and what is damaged, stays. Raises BadBackup and
    removes nothing if that backup is not there.
    """
    store, found = bucket.store(site), backups.every(site)
    if name not in {backup.name for backup in found if backup.manifest}:
        raise BadBackup(f"The backup {name} is not in the bucket; nothing was pruned.", "Back up again.")
    keep = kept(found, store.retention, ZoneInfo(site.timezone)) | {name}
    wanted = [backup.name for backup in found if backup.manifest and backup.name not in keep]
    gone, held = [], []
    for old in wanted + _orphans(site):
        place = bucket.place(site, old)
        present = [entry.key for entry in s3.keys(store, place)]
        if any(s3.locked(store, key) for key in present if not key.endswith("proof.json")):
            held.append(old)
            continue
        s3.delete(store, sorted(present, key=lambda key: not key.endswith("manifest.json")))
        gone.append(old)
    left = s3.abandon(store, bucket.place(site), ORPHAN)
    broken = sum(backup.manifest is None for backup in found)
    words = f"removed {len(gone)} of {len(found)} backups" + (f", {left} unfinished uploads" if left else "")
    words += f"; {len(held)} are held by object lock" if held else ""
    words += f"; {broken} that cannot be used were left for you to look at" if broken else ""
    return Result(words=words, text="\n".join(gone), changed=bool(gone))


def _orphans(site: Site) -> list[str]:
    """Names without a manifest, nothing of which is younger than a day."""
    limit = datetime.now(UTC) - ORPHAN
    bare = {name: files for name, files in bucket.objects(site).items() if "manifest.json" not in files}
    return [name for name, files in bare.items() if max(entry.modified for entry in files.values()) < limit]
