"""Only what Guardia wrote, to the byte and in its place, is a backup."""

import json
import os
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blocks.errors import BadBackup, ConfigError
from blocks.site import Site
from tasks import backups, bucket, envelope, keeping, s3, sealed
from tasks.backup import Backups
from tests import sample, stored
from tests.stored import KEY, NOON, key_of, problem, store, with_settings

OTHER_KEY = "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXowMTIzNDU="
DAY = timedelta(days=1)
bucket_stays = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


@pytest.fixture
def signed() -> Iterator[Site]:
    """A site with an empty bucket and an encryption key."""
    with stored.bucket_of(encryption_key=KEY) as made:
        yield made


# --- good ones ------------------------------------------------------------------------------------------------


def test_a_backup_opens_to_the_same_bytes(site: Site) -> None:
    data = os.urandom(3 << 20)
    made = stored.made(site, data=data)
    found = backups.find(site, made.name)
    assert found.manifest == made and found.problem == ""
    assert b"".join(backups.opened(site, found)) == data


def test_the_newest_is_first_and_what_was_saved_before_a_restore_is_not_the_newest(site: Site) -> None:
    made = [stored.made(site, NOON + day * DAY).name for day in range(3)]
    safety = stored.made(site, NOON + 9 * DAY, kind="safety").name
    assert [backup.name for backup in backups.every(site)] == [safety, *reversed(made)]
    assert backups.newest(site).name == made[-1]


def test_a_name_is_the_moment_in_utc() -> None:
    assert bucket.new_name(datetime.fromisoformat("2026-11-24T00:00:01-03:00")) == "2026-11-24T030001Z"


def test_a_backup_without_a_manifest_does_not_exist(site: Site) -> None:
    stored.archived(site, "2026-11-24T030000Z", b"archive")
    assert backups.every(site) == []
    with pytest.raises(ConfigError, match="has no backup '2026-11-24T030000Z'; the newest: none"):
        backups.find(site, "2026-11-24T030000Z")
    with pytest.raises(ConfigError, match="no backup that can be used"):
        backups.newest(site)


def test_another_sites_backups_are_not_seen(site: Site) -> None:
    made = stored.made(site)
    other = site.model_copy(update={"name": "tandil-2"})
    assert backups.every(other) == []
    with pytest.raises(ConfigError):
        backups.find(other, made.name)


def test_a_site_without_a_bucket_says_what_to_configure() -> None:
    with pytest.raises(ConfigError, match=r"no \[backups\] in its site file"):
        backups.every(sample.site())


def test_the_list_says_how_old_the_newest_are(site: Site) -> None:
    proven, bare = stored.made(site, NOON - DAY), stored.made(site)
    stored.proved(site, proven)
    listed = Backups(items=backups.every(site), at=NOON + timedelta(hours=1), rpo=timedelta(hours=26))
    assert listed.ok and listed.newest == bare and listed.newest_proven == proven
    assert listed.summary == "2 backups, the newest 1.0 h old, the newest proven one 25.0 h old"
    assert not listed.model_copy(update={"at": NOON + 2 * DAY}).ok
    assert Backups(items=[], at=NOON, rpo=DAY).summary == "there is NO backup"


# --- proofs ---------------------------------------------------------------------------------------------------


def test_a_proof_is_kept_beside_its_backup_over_an_older_one(site: Site) -> None:
    made = stored.made(site)
    stored.proved(site, made, verdict="bad", differences=["public.tenant: 1 row is missing"])
    assert not backups.find(site, made.name).proven
    proof = stored.proved(site, made)
    found = backups.find(site, made.name)
    assert found.proof == proof and found.proven


def test_a_proof_of_another_manifest_does_not_count(site: Site) -> None:
    made = stored.made(site)
    stored.proved(site, made, manifest_sha256=envelope.digest(stored.manifest(made.name)))
    assert backups.find(site, made.name).proof is None


def test_a_proof_that_is_damaged_or_of_another_backup_does_not_count(site: Site) -> None:
    first, second = stored.made(site), stored.made(site, NOON + DAY)
    stored.proved(site, first)
    theirs = s3.get(store(site), key_of(first.name, "proof.json"))
    for file in (theirs, theirs[:-1], b""):
        s3.put(store(site), key_of(second.name, "proof.json"), file)
        assert backups.find(site, second.name).proof is None


# --- bad ones -------------------------------------------------------------------------------------------------


@bucket_stays
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_manifest_is_refused(site: Site, place: float, bit: int) -> None:
    if not backups.every(site):
        stored.made(site)
    name = bucket.new_name(NOON)
    good = s3.get(store(site), key_of(name))
    damaged = bytearray(good)
    damaged[int(place * len(good))] ^= 1 << bit
    s3.put(store(site), key_of(name), bytes(damaged))
    try:
        with pytest.raises(BadBackup):
            backups.find(site, name)
    finally:
        s3.put(store(site), key_of(name), good)


@bucket_stays
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 8))
def test_a_damaged_archive_is_refused(site: Site, place: float, bit: int) -> None:
    if not backups.every(site):
        stored.made(site, data=os.urandom(5000))
    found = backups.find(site, bucket.new_name(NOON))
    key = key_of(found.name, "archive")
    good = s3.get(store(site), key)
    damaged = bytearray(good)
    at = int(place * len(good))
    if bit == 8:
        del damaged[at:]
    else:
        damaged[at] ^= 1 << bit
    s3.put(store(site), key, bytes(damaged))
    try:
        with pytest.raises(BadBackup):
            list(backups.opened(site, found))
    finally:
        s3.put(store(site), key, good)


def test_an_archive_that_is_longer_than_it_was_is_refused(site: Site) -> None:
    made = stored.made(site)
    key = key_of(made.name, "archive")
    s3.put(store(site), key, s3.get(store(site), key) + b"x")
    with pytest.raises(BadBackup, match="archive"):
        list(backups.opened(site, backups.find(site, made.name)))


def test_swapped_archives_are_refused(site: Site) -> None:
    first, second = stored.made(site, data=b"a" * 99), stored.made(site, NOON + DAY, data=b"b" * 99)
    s3.put(store(site), second.archive.key, s3.get(store(site), first.archive.key))
    with pytest.raises(BadBackup):
        list(backups.opened(site, backups.find(site, second.name)))


def test_a_manifest_in_the_place_of_another_is_refused(site: Site) -> None:
    first, second = stored.made(site), stored.made(site, NOON + DAY)
    s3.put(store(site), key_of(second.name), s3.get(store(site), key_of(first.name)))
    assert "The manifest of" in problem(site, second.name)
    assert backups.newest(site).name == first.name  # the others stay in use


def test_a_backup_of_another_site_is_refused(site: Site) -> None:
    other = site.model_copy(update={"name": "olavarria"})
    name = bucket.new_name(NOON)
    theirs = stored.archived(other, name, b"x").model_copy(update={"site": "olavarria"})
    keeping.commit.fn(other, theirs)
    for what in ("archive", "manifest.json"):
        s3.put(store(site), key_of(name, what), s3.get(store(site), f"here/olavarria/{name}/{what}"))
    assert problem(site, name)
    with pytest.raises(BadBackup):
        backups.find(site, name)


def test_a_lost_archive_is_told(site: Site) -> None:
    made = stored.made(site)
    s3.delete(store(site), [made.archive.key])
    assert f"The archive of {made.name} is lost" in problem(site, made.name)


def test_a_manifest_of_a_newer_format_asks_for_an_update(site: Site) -> None:
    name = bucket.new_name(NOON)
    newer = stored.archived(site, name, b"x").model_copy(update={"format": 2})
    keeping.commit.fn(site, newer)
    assert "has format 2; known is 1. Update Guardia." in problem(site, name)


NO_MANIFESTS = [b"", b"null", b"[]", b"{}", b'"manifest"', b"\xff", b"[" * 100_000, b'{"manifest":NaN}']


@pytest.mark.parametrize("file", NO_MANIFESTS)
def test_what_is_no_manifest_at_all_is_refused(site: Site, file: bytes) -> None:
    made = stored.made(site)
    s3.put(store(site), key_of(made.name), file)
    assert "is damaged" in problem(site, made.name)


# --- signatures -----------------------------------------------------------------------------------------------


def test_a_backup_made_before_the_key_was_set_is_refused_with_the_cure(signed: Site) -> None:
    made = stored.made(with_settings(signed, encryption_key=None))
    with pytest.raises(BadBackup, match=r"not signed.*take encryption_key out of \[backups\]"):
        backups.find(signed, made.name)


def test_a_manifest_whose_signature_was_left_out_is_refused(signed: Site) -> None:
    made = stored.made(signed)
    place = key_of(made.name, prefix="")
    forged = json.loads(s3.get(store(signed), place)) | {"signature": None}
    s3.put(store(signed), place, envelope.canonical(forged))
    assert "not signed" in problem(signed, made.name)


def test_a_forged_manifest_with_its_own_sha256_is_refused(signed: Site) -> None:
    made = stored.made(signed)
    place = key_of(made.name, prefix="")
    file = json.loads(s3.get(store(signed), place))
    unsigned = with_settings(signed, encryption_key=None)
    forged = json.loads(envelope.wrap(unsigned, made.name, "manifest", made.model_copy(update={"seconds": 9.0})))
    s3.put(store(signed), place, envelope.canonical(forged | {"signature": file["signature"]}))
    assert "wrong signature" in problem(signed, made.name)


def test_another_key_is_told_from_damage(signed: Site) -> None:
    made = stored.made(signed)
    other = stored.site(encryption_key=OTHER_KEY)
    assert "another encryption_key" in problem(other, made.name)


def test_an_encrypted_backup_without_a_key_asks_for_it(signed: Site) -> None:
    made = stored.made(signed)
    assert "encrypted, and there is no key" in problem(with_settings(signed, encryption_key=None), made.name)


def test_a_signed_proof_cannot_be_taken_for_a_manifest(signed: Site) -> None:
    data, key = b"{}", sealed.decoded(store(signed).encryption_key)  # type: ignore[arg-type]  # there is a key
    signature = sealed.sign(data, key, bucket.context(signed, "x", "proof"))
    assert not sealed.check(data, signature, key, bucket.context(signed, "x", "manifest"))


def test_nothing_readable_is_in_the_bucket_with_a_key(signed: Site) -> None:
    made = stored.made(signed, data=b"a customer's name" * 100)
    assert b"customer" not in s3.get(store(signed), made.archive.key)
