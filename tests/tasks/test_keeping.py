"""A manifest makes a backup, once, and only what retention lets go is removed."""

import json
from datetime import timedelta

import pytest

from blocks.backup_store import BackupStore
from blocks.errors import BadBackup
from blocks.site import Site
from tasks import backups, bucket, keeping, s3, s3_client
from tests import stored
from tests.stored import NOON, key_of, problem, store, with_settings

DAY = timedelta(days=1)


def test_an_archive_that_is_not_whole_is_not_committed(site: Site) -> None:
    done = stored.archived(site, bucket.new_name(NOON), b"archive")
    s3.put(store(site), done.archive.key, b"arch")
    with pytest.raises(BadBackup, match="has 4 bytes where"):
        keeping.commit.fn(site, done)
    assert backups.every(site) == []


def test_a_backup_is_never_overwritten_and_committing_it_twice_is_once(site: Site) -> None:
    made = stored.made(site)
    keeping.commit.fn(site, made)
    with pytest.raises(BadBackup, match="another backup"):
        keeping.commit.fn(site, made.model_copy(update={"seconds": 9.0}))
    assert backups.find(site, made.name).manifest == made


def test_the_roles_can_be_read_out_of_the_manifest_without_guardia_and_without_a_key(site: Site) -> None:
    made = stored.made(site, globals_sql="CREATE ROLE u;\nALTER ROLE u WITH LOGIN;\n")
    file = json.loads(s3.get(store(site), key_of(made.name)))
    assert file["manifest"]["globals_sql"] == "CREATE ROLE u;\nALTER ROLE u WITH LOGIN;\n"  # as docs/backups.md says


@pytest.fixture
def brief(site: Site) -> Site:
    """A site that keeps one day."""
    retention = store(site).retention.model_copy(update={"daily": 1, "weekly": 0, "monthly": 0, "proven": 1})
    return with_settings(site, retention=retention)


def test_prune_keeps_what_retention_keeps_and_proven_ones(brief: Site) -> None:
    made = [stored.made(brief, NOON + day * DAY) for day in range(4)]
    stored.proved(brief, made[1])
    assert keeping.prune.fn(brief, made[3].name).text.split() == [made[2].name, made[0].name]
    assert [backup.name for backup in backups.every(brief)] == [made[3].name, made[1].name]
    assert {found.key.split("/")[2] for found in s3.keys(store(brief), "here/")} == {made[1].name, made[3].name}


def test_nothing_is_pruned_unless_the_new_backup_is_there(brief: Site) -> None:
    old = [stored.made(brief, NOON - day * DAY).name for day in range(3)]
    with pytest.raises(BadBackup, match="nothing was pruned"):
        keeping.prune.fn(brief, "2026-11-25T030000Z")
    assert [backup.name for backup in backups.every(brief)] == old


def test_what_cannot_be_used_is_left_for_a_person(brief: Site) -> None:
    old, new = stored.made(brief, NOON - DAY), stored.made(brief)
    s3.put(store(brief), key_of(old.name), b"damaged")
    assert keeping.prune.fn(brief, new.name).text.split() == []
    assert problem(brief, old.name)


def test_a_half_pruned_backup_is_none(brief: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = stored.made(brief, NOON - DAY), stored.made(brief)
    deleted: list[str] = []

    def dies(store: BackupStore, keys: list[str]) -> None:
        deleted.extend(keys)
        raise KeyboardInterrupt

    monkeypatch.setattr(s3, "delete", dies)
    with pytest.raises(KeyboardInterrupt):
        keeping.prune.fn(brief, new.name)
    assert deleted[0] == key_of(old.name)


def test_archives_without_a_manifest_go_after_a_day(brief: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    new = stored.made(brief)
    stored.archived(brief, "2026-11-20T030000Z", b"orphan")
    assert keeping.prune.fn(brief, new.name).text.split() == []
    monkeypatch.setattr(keeping, "ORPHAN", timedelta(0))
    assert keeping.prune.fn(brief, new.name).text.split() == ["2026-11-20T030000Z"]
    assert backups.find(brief, new.name)


def test_a_backup_aborts_what_killed_runs_left_but_not_what_may_be_under_way(site: Site) -> None:
    names = [bucket.new_name(NOON), bucket.new_name(NOON + DAY), bucket.new_name(NOON) + "-safety"]
    elsewhere = "here/other/2026-11-24T120000Z/archive"
    for key in [*(bucket.archive_key(site, name) for name in names), elsewhere]:
        s3_client.client(store(site)).create_multipart_upload(Bucket="guardia", Key=key)
    assert keeping.abandon(site, "daily") == 2
    assert unfinished(site) == [elsewhere, bucket.archive_key(site, names[2])]
    assert keeping.abandon(site, "safety") == 1
    assert unfinished(site) == [elsewhere]


def unfinished(site: Site) -> list[str]:
    answer = s3_client.client(store(site)).list_multipart_uploads(Bucket="guardia")
    return sorted(upload["Key"] for upload in answer.get("Uploads", []))
