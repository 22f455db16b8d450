"""Only what Guardia wrote, to the byte and in its place, is a backup."""

import json
import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto import mock_aws

from blocks.backup_store import BackupStore
from blocks.errors import BadBackup, ConfigError
from blocks.site import Site
from tasks import backups, s3, sealed
from tests import sample, stored
from tests.stored import KEY, NOON

OTHER_KEY = "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXowMTIzNDU="
DAY = timedelta(days=1)
bucket_stays = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


@pytest.fixture(params=[None, KEY], ids=["plain", "encrypted"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A site with an empty bucket, without an encryption key and with one."""
    with mock_aws():
        made = stored.site(encryption_key=request.param, prefix="here")
        s3.client(store(made)).create_bucket(Bucket="guardia")
        yield made


@pytest.fixture
def signed() -> Iterator[Site]:
    """A site with an empty bucket and an encryption key."""
    with mock_aws():
        made = stored.site(encryption_key=KEY)
        s3.client(store(made)).create_bucket(Bucket="guardia")
        yield made


def store(site: Site) -> BackupStore:
    assert site.backups is not None
    return site.backups


def with_settings(site: Site, **changes: Any) -> Site:
    """The same site after a change of its [backups]."""
    return site.model_copy(update={"backups": store(site).model_copy(update=changes)})


def key_of(name: str, what: str = "manifest.json", prefix: str = "here/") -> str:
    return f"{prefix}tandil/{name}/{what}"


def problem(site: Site, name: str) -> str:
    return next(backup.problem for backup in backups.every(site) if backup.name == name)


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
    assert backups.newest(site) == made[-1]


def test_a_name_is_the_moment_in_utc() -> None:
    assert backups.new_name(datetime.fromisoformat("2026-11-24T00:00:01-03:00")) == "2026-11-24T030001Z"


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
    listed = backups.Backups(items=backups.every(site), at=NOON + timedelta(hours=1), rpo=timedelta(hours=26))
    assert listed.ok and listed.newest == bare and listed.newest_proven == proven
    assert listed.summary == "2 backups, the newest 1.0 h old, the newest proven one 25.0 h old"
    assert not listed.model_copy(update={"at": NOON + 2 * DAY}).ok
    assert backups.Backups(items=[], at=NOON, rpo=DAY).summary == "there is NO backup"


# Ages in hours of backups and whether each is proven; what is wrong. An rpo of 26 h.
AGES: dict[str, tuple[list[tuple[float, str]], str]] = {
    "young and proven": ([(1, ""), (25, "proven")], ""),
    "too old": ([(27, "proven")], "the newest backup is 27.0 h old"),
    "none": ([], "there is no backup that can be used"),
    "the first, which has time to be proven": ([(25, "")], ""),
    "never proven": ([(3, ""), (27, "")], "no backup is proven"),
    "too old and never proven": ([(27, "")], "the newest backup is 27.0 h old and no backup is proven"),
    "proven until a day more than the rpo ago": ([(1, ""), (50, "proven")], ""),
    "proven before that": ([(1, ""), (51, "proven")], "the newest proven backup is 51.0 h old"),
    "bad of late": ([(1, "bad"), (27, "bad"), (51, "proven")], "the newest proven backup is 51.0 h old"),
    "young only before a restore": ([(1, "safety"), (27, "proven")], "the newest backup is 27.0 h old"),
    "proven only before a restore": ([(1, ""), (2, "safety, proven"), (27, "")], "no backup is proven"),
    "the first, beside what was saved before a restore": ([(1, ""), (99, "safety")], ""),
}


@pytest.mark.parametrize(("ages", "wrong"), AGES.values(), ids=AGES)
def test_backups_and_proofs_that_have_stopped_are_said_in_words(ages: list[tuple[float, str]], wrong: str) -> None:
    items = []
    for age, words in ages:
        kind = "safety" if "safety" in words else "daily"
        manifest = stored.manifest(f"of-{age}", snapshot_at=NOON - timedelta(hours=age), kind=kind)
        verdict = next((verdict for verdict in ("proven", "bad") if verdict in words), None)
        said = {"at": NOON, "restore_seconds": 1, "data_age_seconds": 1, "manifest_sha256": ""}
        proof = backups.Proof.model_validate(said | {"verdict": verdict}) if verdict else None
        items.append(backups.Backup(name=manifest.name, manifest=manifest, proof=proof))
    found = backups.Backups(items=items, at=NOON, rpo=timedelta(hours=26))
    assert (found.problem, found.ok) == (wrong, not wrong)
    assert "guardia verify" in found.cure and ("guardia backup`" in found.cure) is bool(found.stale)


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
    stored.proved(site, made, manifest_sha256=backups.digest(stored.manifest(made.name)))
    assert backups.find(site, made.name).proof is None


def test_a_proof_that_is_damaged_or_of_another_backup_does_not_count(site: Site) -> None:
    first, second = stored.made(site), stored.made(site, NOON + DAY)
    stored.proved(site, first)
    theirs = s3.get(store(site), key_of(first.name, "proof.json"))
    for file in (theirs, theirs[:-1], b""):
        s3.put(store(site), key_of(second.name, "proof.json"), file)
        assert backups.find(site, second.name).proof is None


def test_a_proof_says_what_it_measured() -> None:
    said = {"at": NOON, "restore_seconds": 45.2, "data_age_seconds": 5400, "manifest_sha256": "ab", "tables": 31}
    proven = backups.Proof.model_validate(said | {"verdict": "proven", "rows": 13_000_000, "invariants": {"a": 0}})
    assert proven.words == "31 tables, 13,000,000 rows exactly as when it was made; restored in 45 s, data 1.5 h old"
    own = proven.model_copy(update={"manifest_sha256": ""})
    assert own.words.startswith("31 tables, 13,000,000 rows as the file says, which has no manifest; ")
    bad = backups.Proof.model_validate(
        said | {"verdict": "bad", "differences": ["x is missing"], "invariants": {"a": 2}}
    )
    assert bad.words == "x is missing; a: 2 rows"


# --- bad ones -------------------------------------------------------------------------------------------------


@bucket_stays
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_manifest_is_refused(site: Site, place: float, bit: int) -> None:
    if not backups.every(site):
        stored.made(site)
    name = backups.new_name(NOON)
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
    found = backups.find(site, backups.new_name(NOON))
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
    assert backups.newest(site) == first.name  # the others stay in use


def test_a_backup_of_another_site_is_refused(site: Site) -> None:
    other = site.model_copy(update={"name": "olavarria"})
    name = backups.new_name(NOON)
    theirs = stored.archived(other, name, b"x").model_copy(update={"site": "olavarria"})
    backups.commit.fn(other, theirs)
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
    name = backups.new_name(NOON)
    newer = stored.archived(site, name, b"x").model_copy(update={"format": 2})
    backups.commit.fn(site, newer)
    assert "has format 2; known is 1. Update Guardia." in problem(site, name)


NO_MANIFESTS = [b"", b"null", b"[]", b"{}", b'"manifest"', b"\xff", b"[" * 100_000, b'{"manifest":NaN}']


@pytest.mark.parametrize("file", NO_MANIFESTS)
def test_what_is_no_manifest_at_all_is_refused(site: Site, file: bytes) -> None:
    made = stored.made(site)
    s3.put(store(site), key_of(made.name), file)
    assert "is damaged" in problem(site, made.name)


def test_an_archive_that_is_not_whole_is_not_committed(site: Site) -> None:
    done = stored.archived(site, backups.new_name(NOON), b"archive")
    s3.put(store(site), done.archive.key, b"arch")
    with pytest.raises(BadBackup, match="has 4 bytes where"):
        backups.commit.fn(site, done)
    assert backups.every(site) == []


def test_a_backup_is_never_overwritten_and_committing_it_twice_is_once(site: Site) -> None:
    made = stored.made(site)
    backups.commit.fn(site, made)
    with pytest.raises(BadBackup, match="another backup"):
        backups.commit.fn(site, made.model_copy(update={"seconds": 9.0}))
    assert backups.find(site, made.name).manifest == made


# --- signatures -----------------------------------------------------------------------------------------------


def test_a_backup_made_before_the_key_was_set_is_refused_with_the_cure(signed: Site) -> None:
    made = stored.made(with_settings(signed, encryption_key=None))
    with pytest.raises(BadBackup, match=r"not signed.*take encryption_key out of \[backups\]"):
        backups.find(signed, made.name)


def test_a_manifest_whose_signature_was_left_out_is_refused(signed: Site) -> None:
    made = stored.made(signed)
    place = key_of(made.name, prefix="")
    forged = json.loads(s3.get(store(signed), place)) | {"signature": None}
    s3.put(store(signed), place, backups._canonical(forged))
    assert "not signed" in problem(signed, made.name)


def test_a_forged_manifest_with_its_own_sha256_is_refused(signed: Site) -> None:
    made = stored.made(signed)
    place = key_of(made.name, prefix="")
    file = json.loads(s3.get(store(signed), place))
    unsigned = with_settings(signed, encryption_key=None)
    forged = json.loads(backups._enveloped(unsigned, made.name, "manifest", made.model_copy(update={"seconds": 9.0})))
    s3.put(store(signed), place, backups._canonical(forged | {"signature": file["signature"]}))
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
    signature = sealed.sign(data, key, backups.context(signed, "x", "proof"))
    assert not sealed.check(data, signature, key, backups.context(signed, "x", "manifest"))


def test_nothing_readable_is_in_the_bucket_with_a_key(signed: Site) -> None:
    made = stored.made(signed, data=b"a customer's name" * 100)
    assert b"customer" not in s3.get(store(signed), made.archive.key)


# --- prune ----------------------------------------------------------------------------------------------------


@pytest.fixture
def brief(site: Site) -> Site:
    """A site that keeps one day."""
    retention = store(site).retention.model_copy(update={"daily": 1, "weekly": 0, "monthly": 0, "proven": 1})
    return with_settings(site, retention=retention)


def test_prune_keeps_what_retention_keeps_and_proven_ones(brief: Site) -> None:
    made = [stored.made(brief, NOON + day * DAY) for day in range(4)]
    stored.proved(brief, made[1])
    assert backups.prune.fn(brief, made[3].name).text.split() == [made[2].name, made[0].name]
    assert [backup.name for backup in backups.every(brief)] == [made[3].name, made[1].name]
    assert {found.key.split("/")[2] for found in s3.keys(store(brief), "here/")} == {made[1].name, made[3].name}


def test_nothing_is_pruned_unless_the_new_backup_is_there(brief: Site) -> None:
    old = [stored.made(brief, NOON - day * DAY).name for day in range(3)]
    with pytest.raises(BadBackup, match="nothing was pruned"):
        backups.prune.fn(brief, "2026-11-25T030000Z")
    assert [backup.name for backup in backups.every(brief)] == old


def test_what_cannot_be_used_is_left_for_a_person(brief: Site) -> None:
    old, new = stored.made(brief, NOON - DAY), stored.made(brief)
    s3.put(store(brief), key_of(old.name), b"damaged")
    assert backups.prune.fn(brief, new.name).text.split() == []
    assert problem(brief, old.name)


def test_a_half_pruned_backup_is_none(brief: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = stored.made(brief, NOON - DAY), stored.made(brief)
    deleted: list[str] = []

    def dies(store: BackupStore, keys: list[str]) -> None:
        deleted.extend(keys)
        raise KeyboardInterrupt

    monkeypatch.setattr(s3, "delete", dies)
    with pytest.raises(KeyboardInterrupt):
        backups.prune.fn(brief, new.name)
    assert deleted[0] == key_of(old.name)


def test_archives_without_a_manifest_go_after_a_day(brief: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    new = stored.made(brief)
    stored.archived(brief, "2026-11-20T030000Z", b"orphan")
    assert backups.prune.fn(brief, new.name).text.split() == []
    monkeypatch.setattr(backups, "ORPHAN", timedelta(0))
    assert backups.prune.fn(brief, new.name).text.split() == ["2026-11-20T030000Z"]
    assert backups.find(brief, new.name)


def test_a_backup_aborts_what_killed_runs_left_but_not_what_may_be_under_way(site: Site) -> None:
    names = [backups.new_name(NOON), backups.new_name(NOON + DAY), backups.new_name(NOON) + "-safety"]
    elsewhere = "here/other/2026-11-24T120000Z/archive"
    for key in [*(backups.archive_key(site, name) for name in names), elsewhere]:
        s3.client(store(site)).create_multipart_upload(Bucket="guardia", Key=key)
    assert backups.abandon(site, "daily") == 2
    assert unfinished(site) == [elsewhere, backups.archive_key(site, names[2])]
    assert backups.abandon(site, "safety") == 1
    assert unfinished(site) == [elsewhere]


def unfinished(site: Site) -> list[str]:
    answer = s3.client(store(site)).list_multipart_uploads(Bucket="guardia")
    return sorted(upload["Key"] for upload in answer.get("Uploads", []))
