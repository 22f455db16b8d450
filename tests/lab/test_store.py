"""Backups in a real S3 service, on good days and bad ones."""

import hashlib
import io
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from blocks.backup_store import BackupStore
from blocks.errors import BadBackup, HostUnreachable, StoreRefused, StoreUnreachable
from blocks.site import Site
from tasks import backups, keeping, s3, s3_client
from tests import stored
from tests.lab import stores
from tests.lab.seaweed import Store, seaweed
from tests.stored import KEY, NOON

pytestmark = pytest.mark.lab
MB = 1_000_000


def test_eighty_megabytes_go_up_in_parts_and_come_back(s3_store: Store) -> None:
    store, data = s3_store.block(), os.urandom(80 * MB)
    assert s3.upload(store, "parts/x", io.BytesIO(data).read) == s3.Uploaded(80 * MB, hashlib.sha256(data).hexdigest())
    assert b"".join(s3.stream(store, "parts/x")) == data


@pytest.mark.parametrize("checksums", ["when_required", "when_supported"])
def test_a_part_that_is_damaged_on_the_way_is_refused(
    s3_store: Store, checksums: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = s3_store.block(checksums=checksums)
    sums = {"ContentMD5": "1B2M2Y8AsgTpgAmY7PhCfg=="} if checksums == "when_required" else {"ChecksumCRC32": "AAAAAA=="}
    monkeypatch.setattr(s3, "_md5", lambda *_: sums)
    with pytest.raises((StoreUnreachable, StoreRefused)):
        s3.put(store, "damaged/x", b"not empty")
    assert s3.keys(store, "damaged/") == []


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"secret_access_key": "wrong"}, "secret_access_key"),
    ({"access_key_id": "wrong"}, "access_key_id"),
    ({"bucket": "nowhere"}, "Create the bucket"),
]


@pytest.mark.parametrize(
    ("wrong", "cure"), WRONG, ids=lambda value: next(iter(value)) if isinstance(value, dict) else ""
)
def test_what_is_configured_wrong_is_refused_with_its_cure(s3_store: Store, wrong: dict[str, Any], cure: str) -> None:
    with pytest.raises(StoreRefused, match=cure):
        s3.check(s3_store.block(**wrong))
    with pytest.raises(StoreRefused, match=cure):
        s3.upload(s3_store.block(**wrong), "wrong/x", io.BytesIO(bytes(6 << 20)).read)


def test_a_cut_upload_leaves_nothing(s3_store: Store) -> None:
    parts = iter([bytes(5 << 20)] * 3)

    def read(size: int) -> bytes:
        if data := next(parts, b""):
            return data
        raise HostUnreachable("cut")

    with pytest.raises(HostUnreachable):
        s3.upload(s3_store.block(), "cut/x", read)
    assert s3.keys(s3_store.block(), "cut/") == [] and stores.unfinished(s3_store, "cut/") == []


def test_uploads_that_killed_workers_left_are_abandoned_once_they_are_old(s3_store: Store) -> None:
    store = s3_store.block()
    s3_client.client(store).create_multipart_upload(Bucket=store.bucket, Key="left/x")
    assert s3.abandon(store, "left/", timedelta(hours=24)) == 0
    assert s3.abandon(store, "left/", timedelta(0)) == 1
    assert stores.unfinished(s3_store, "left/") == []


# --- through a proxy that breaks ------------------------------------------------------------------------------


@pytest.fixture
def proxy(s3_store: Store) -> Iterator[stores.Proxy]:
    with stores.proxy(s3_store) as found:
        yield found


@pytest.fixture
def through(proxy: stores.Proxy, s3_store: Store, monkeypatch: pytest.MonkeyPatch) -> BackupStore:
    """The bucket by way of the proxy, without waits between attempts."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.01)
    return s3_store.block(endpoint=proxy.store.endpoint)


def test_a_download_that_breaks_goes_on_where_it_broke(proxy: stores.Proxy, through: BackupStore) -> None:
    data = os.urandom(40 * MB)
    s3.upload(through, "broken/x", io.BytesIO(data).read)
    received = bytearray()
    for chunk in s3.stream(through, "broken/x"):
        received += chunk
        if len(received) // MB in {5, 15}:
            proxy.well()  # resets what is open
    assert received == data


def test_a_download_of_what_was_replaced_meanwhile_is_refused(proxy: stores.Proxy, through: BackupStore) -> None:
    s3.upload(through, "replaced/x", io.BytesIO(bytes(40 * MB)).read)
    chunks = s3.stream(through, "replaced/x")
    next(chunks)
    s3.upload(through, "replaced/x", io.BytesIO(os.urandom(40 * MB)).read)
    proxy.well()
    with pytest.raises(BadBackup, match="replaced"):
        list(chunks)


def test_an_upload_that_is_cut_once_goes_on(proxy: stores.Proxy, through: BackupStore) -> None:
    proxy.cut_after(12 * MB)
    assert s3.upload(through, "once/x", io.BytesIO(os.urandom(30 * MB)).read).bytes == 30 * MB


def test_a_store_that_dies_in_an_upload_can_be_tried_again(
    proxy: stores.Proxy, through: BackupStore, s3_store: Store
) -> None:
    proxy.die_after(12 * MB)
    with pytest.raises(StoreUnreachable):
        s3.upload(through, "dead/x", io.BytesIO(os.urandom(30 * MB)).read)
    proxy.well()
    assert s3.keys(through, "dead/") == []
    assert s3.upload(through, "dead/x", io.BytesIO(os.urandom(30 * MB)).read).bytes == 30 * MB
    s3.abandon(through, "dead/", timedelta(0))


def test_a_busy_store_is_asked_again(proxy: stores.Proxy, through: BackupStore) -> None:
    proxy.busy(3)
    s3.put(through, "busy/x", b"x")
    proxy.busy()
    with pytest.raises(StoreUnreachable, match="SlowDown"):
        s3.put(through, "busy/x", b"x")


def test_a_clock_that_is_wrong_is_told_with_both_times(proxy: stores.Proxy, through: BackupStore) -> None:
    proxy.skew_clock()
    with pytest.raises(StoreRefused, match=r"Here it is .*; there, .*clock"):
        s3.keys(through, "")


# --- backups --------------------------------------------------------------------------------------------------


@pytest.fixture(params=[None, KEY], ids=["plain", "encrypted"])
def site(s3_store: Store, request: pytest.FixtureRequest) -> Site:
    prefix = f"backups-{'encrypted' if request.param else 'plain'}"
    return stored.site(**s3_store.settings(encryption_key=request.param, prefix=prefix))


def test_a_backup_is_made_listed_proven_opened_and_pruned(site: Site) -> None:
    data = os.urandom(12 * MB)
    old = stored.made(site, NOON - timedelta(days=2))
    new = stored.made(site, NOON, data)
    stored.proved(site, new)
    assert [backup.name for backup in backups.every(site)] == [new.name, old.name]
    found = backups.find(site, new.name)
    assert found.proven and b"".join(backups.opened(site, found)) == data
    assert site.backups is not None
    site.backups.retention.daily, site.backups.retention.weekly, site.backups.retention.monthly = 1, 0, 0
    assert keeping.prune.fn(site, new.name).text.split() == [old.name]
    assert [found.key.split("/")[-1] for found in s3.keys(site.backups, f"{site.backups.prefix}/tandil/")] == [
        "archive", "manifest.json", "proof.json",
    ]  # fmt: skip


def test_an_archive_that_the_store_lost_is_named(site: Site, s3_store: Store) -> None:
    lost = stored.made(site, NOON + timedelta(days=1))
    stores.lose(s3_store, lost.archive.key)
    with pytest.raises(BadBackup, match=f"archive of {lost.name} is lost"):
        backups.find(site, lost.name)


def test_what_is_locked_outlives_prune(tmp_path: Path) -> None:
    with seaweed(tmp_path / "weed", object_lock=True) as service:
        site = stored.site(**service.settings(object_lock=1, retention={"daily": 1, "weekly": 0, "monthly": 0}))
        assert site.backups is not None and "locks objects" in s3.check(site.backups)
        old, new = stored.made(site, NOON - timedelta(days=2)), stored.made(site, NOON)
        assert keeping.prune.fn(site, new.name).text.split() == []
        version = s3_client.client(site.backups).head_object(Bucket="guardia", Key=old.archive.key)["VersionId"]
        with pytest.raises(Exception, match="AccessDenied"):
            s3_client.client(site.backups).delete_object(Bucket="guardia", Key=old.archive.key, VersionId=version)
        assert {backup.name for backup in backups.every(site)} == {old.name, new.name}


def test_a_bucket_that_cannot_lock_is_refused_where_locks_are_asked_for(s3_store: Store) -> None:
    with pytest.raises(StoreRefused, match="object_lock"):
        s3.check(s3_store.block(object_lock=1))
