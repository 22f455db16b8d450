"""Backups for tests: small archives with manifests, in whatever bucket a test has."""

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from moto import mock_aws

from blocks.backup_store import BackupStore
from blocks.site import Site
from tasks import backups, bucket, envelope, keeping, s3, s3_client, sealed
from tasks.backup import Proof
from tasks.manifest import Archive, Contents, Manifest, Table
from tests import sample

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


def site(**settings: Any) -> Site:
    """A site with a database and a bucket; `settings` are those of [backups]."""
    kept = {"bucket": "guardia", "access_key_id": "a", "secret_access_key": "b", "part_size": 5} | settings
    return sample.site(database={"name": "d", "user": "u", "password": "p"}, backups=kept)


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
    key, secret, read = bucket.archive_key(site, name), site.backups.encryption_key, io.BytesIO(data).read
    reader = sealed.seal(read, sealed.decoded(secret), bucket.context(site, name)) if secret else read
    stored = s3.upload(site.backups, key, reader)
    archive = Archive(
        key=key, compression="none", sha256=hashlib.sha256(data).hexdigest(), bytes=len(data),
        stored_sha256=stored.sha256, stored_bytes=stored.bytes,
    )  # fmt: skip
    return manifest(name, archive=archive, encrypted=secret is not None, **changes)


def made(site: Site, at: datetime = NOON, data: bytes | None = None, **changes: Any) -> Manifest:
    """A whole backup, of the data of that moment."""
    name = bucket.new_name(at) + ("-safety" if changes.get("kind") == "safety" else "")
    done = archived(site, name, os.urandom(1000) if data is None else data, snapshot_at=at, **changes)
    keeping.commit.fn(site, done)
    return done


def proved(site: Site, manifest: Manifest, **changes: Any) -> Proof:
    """Write a proof of a backup beside it."""
    said = {
        "verdict": "proven", "at": manifest.snapshot_at + timedelta(hours=1), "restore_seconds": 45.0,
        "data_age_seconds": 3600.0, "manifest_sha256": envelope.digest(manifest),
    }  # fmt: skip
    proof = Proof.model_validate(said | changes)
    keeping.keep_proof.fn(site, manifest.name, proof)
    return proof


@contextmanager
def bucket_of(**settings: Any) -> Iterator[Site]:
    """A site with an empty bucket, of moto."""
    with mock_aws():
        made = site(**settings)
        s3_client.client(store(made)).create_bucket(Bucket="guardia")
        yield made


def store(site: Site) -> BackupStore:
    """Its [backups]."""
    assert site.backups is not None
    return site.backups


def with_settings(site: Site, **changes: Any) -> Site:
    """The same site after a change of its [backups]."""
    return site.model_copy(update={"backups": store(site).model_copy(update=changes)})


def key_of(name: str, what: str = "manifest.json", prefix: str = "here/") -> str:
    """Where a file of a backup lies in the bucket."""
    return f"{prefix}tandil/{name}/{what}"


def problem(site: Site, name: str) -> str:
    """Why a backup cannot be used."""
    return next(backup.problem for backup in backups.every(site) if backup.name == name)
