"""Backups for tests: small archives with manifests, in whatever bucket a test has."""

import hashlib
import io
import os
from datetime import UTC, datetime, timedelta
from typing import Any

from blocks.site import Site
from tasks import backups, s3, sealed
from tasks.backups import Proof
from tasks.manifest import Archive, Contents, Manifest, Table
from tests import sample

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


def site(**settings: Any) -> Site:
    """A site with a database and a bucket; `settings` are those of [backups]."""
    bucket = {"bucket": "guardia", "access_key_id": "a", "secret_access_key": "b", "part_size": 5} | settings
    return sample.site(database={"name": "d", "user": "u", "password": "p"}, backups=bucket)


def manifest(name: str, **changes: Any) -> Manifest:
    """A manifest of one table; `changes` replace fields."""
    contents = Contents(
        server_version=150018, encoding="UTF8", collate="C.UTF-8", ctype="C.UTF-8", sequences={}, objects={},
        tables={"public.tenant": Table(rows=3, content="12")}, extensions={}, roles=("u",),
    )  # fmt: skip
    archive = Archive(
        key=f"tandil/{name}/archive", compression="none", sha256="", bytes=0, stored_sha256="", stored_bytes=0
    )
    said = {
        "site": "tandil", "name": name, "database": "d", "snapshot_at": NOON, "seconds": 1.5, "database_bytes": 99,
        "contents": contents, "archive": archive, "globals_sql": "CREATE ROLE u;\n",
    }  # fmt: skip
    return Manifest.model_validate(said | changes)


def archived(site: Site, name: str, data: bytes, **changes: Any) -> Manifest:
    """Upload an archive as a dump does; its manifest, not yet written."""
    assert site.backups is not None
    key, secret, read = backups.archive_key(site, name), site.backups.encryption_key, io.BytesIO(data).read
    reader = sealed.seal(read, sealed.decoded(secret), backups.context(site, name)) if secret else read
    stored = s3.upload(site.backups, key, reader)
    archive = Archive(
        key=key, compression="none", sha256=hashlib.sha256(data).hexdigest(), bytes=len(data),
        stored_sha256=stored.sha256, stored_bytes=stored.bytes,
    )  # fmt: skip
    return manifest(name, archive=archive, encrypted=secret is not None, **changes)


def made(site: Site, at: datetime = NOON, data: bytes | None = None, **changes: Any) -> Manifest:
    """A whole backup, of the data of that moment."""
    name = backups.new_name(at) + ("-safety" if changes.get("kind") == "safety" else "")
    done = archived(site, name, os.urandom(1000) if data is None else data, snapshot_at=at, **changes)
    backups.commit.fn(site, done)
    return done


def proved(site: Site, manifest: Manifest, **changes: Any) -> Proof:
    """Write a proof of a backup beside it."""
    said = {
        "verdict": "proven", "at": manifest.snapshot_at + timedelta(hours=1), "restore_seconds": 45.0,
        "data_age_seconds": 3600.0, "manifest_sha256": backups.digest(manifest),
    }  # fmt: skip
    proof = Proof.model_validate(said | changes)
    backups.keep_proof.fn(site, manifest.name, proof)
    return proof
