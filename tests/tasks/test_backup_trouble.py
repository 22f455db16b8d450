"""What went wrong with the backups, in words: a failure counts until a later backup or proof makes it good."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest

from blocks.errors import StoreRefused
from tasks import backup_trouble, backups
from tasks.backup import Backup, Proof
from tasks.cron import Own
from tasks.schedule import Jobs, Run
from tests import sample

STORE = {"bucket": "backups", "access_key_id": "k", "secret_access_key": "s"}
SITE = sample.site(database={"name": "shop", "user": "shop", "password": "secret"}, backups=STORE)


def hours_ago(hours: float) -> datetime:
    return datetime.now(UTC) - timedelta(hours=hours)


def backup(age: float, proof: Proof | None = None, problem: str = "", kind: str = "daily") -> Any:
    """A backup of that age in hours; of a manifest only its moment and its kind matter here."""
    manifest = type("Manifest", (), {"snapshot_at": hours_ago(age), "kind": kind})()
    return Backup.model_construct(name=f"of-{age}", manifest=manifest, proof=proof, problem=problem)


def proof(verdict: Literal["proven", "bad"], age: float) -> Proof:
    return Proof(verdict=verdict, at=hours_ago(age), restore_seconds=4, data_age_seconds=60, manifest_sha256="0" * 64)


def failed(job: str, age: float) -> Jobs:
    return Jobs(last=[Run(job=job, ok=False, words="Failed: no space", at=hours_ago(age))])


# What there is, and what is found. Made when it is asked: a session of an hour would make all ages wrong.
CASES: dict[str, Callable[[], tuple[list[Any], Jobs, Own, list[str]]]] = {
    "all in order": lambda: ([backup(3, proof("proven", 2))], Jobs(), Own(), []),
    "no backup at all": lambda: ([], Jobs(), Own(), ["there is no backup that can be used"]),
    "too old": lambda: ([backup(30, proof("proven", 29))], Jobs(), Own(), ["the newest backup is 30.0 h old"]),
    "young only before a restore": lambda: (
        [backup(1, kind="safety"), backup(30, proof("proven", 29))],
        Jobs(),
        Own(),
        ["the newest backup is 30.0 h old"],
    ),
    "a failed backup, made good only before a restore": lambda: (
        [backup(1, kind="safety"), backup(3)],
        failed("daily-backup", 2),
        Own(),
        ["the last run of daily-backup ended as Failed: no space"],
    ),
    "no proofs": lambda: ([backup(3), backup(30)], Jobs(), Own(), ["no backup is proven"]),
    "no proofs any more": lambda: (
        [backup(3), backup(60, proof("proven", 59))],
        Jobs(),
        Own(),
        ["the newest proven backup is 60.0 h old"],
    ),
    "a bad one": lambda: ([backup(3, proof("bad", 2))], Jobs(), Own(), ["of-3 is a bad backup"]),
    "a failed backup": lambda: (
        [backup(3)],
        failed("daily-backup", 1),
        Own(),
        ["the last run of daily-backup ended as Failed: no space"],
    ),
    "a failed backup, made good since": lambda: ([backup(1)], failed("daily-backup", 3), Own(), []),
    "a failed proof": lambda: (
        [backup(3)],
        failed("verify-backup", 1),
        Own(),
        ["the last run of verify-backup ended as Failed: no space"],
    ),
    "a failed proof, made good since": lambda: ([backup(3, proof("proven", 1))], failed("verify-backup", 2), Own(), []),
    "schedules off": lambda: (
        [backup(3)],
        Jobs(paused=["daily-backup"], missing=["verify-backup"]),
        Own(),
        ["verify-backup has no schedule: start `guardia up` again", "the schedule of daily-backup is paused"],
    ),
    "the site's own script": lambda: (
        [backup(3)],
        Jobs(),
        Own(problems=["its last run failed"]),
        ["its last run failed"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_thing_that_is_wrong_is_a_sentence(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    there, jobs, own, findings = CASES[case]()
    monkeypatch.setattr(backups, "every", lambda _site: there)
    found = backup_trouble.found.fn(SITE, own, jobs)
    assert found.findings == findings
    assert found.ok == (not findings)


def test_a_bucket_that_refuses_is_a_finding_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_site: object) -> list[Backup]:
        raise StoreRefused("The bucket backups refused the key.", "Correct access_key_id.")

    monkeypatch.setattr(backups, "every", refuse)
    (finding,) = backup_trouble.found.fn(SITE, Own(), Jobs()).findings
    assert finding == "the bucket cannot be read: The bucket backups refused the key. Correct access_key_id."


def test_a_site_without_a_bucket_is_told_so() -> None:
    assert "no [backups] in its site file" in backup_trouble.found.fn(sample.site(), Own(), Jobs()).summary
