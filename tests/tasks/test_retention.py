"""What is kept, whatever happened."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from blocks.backup_store import Retention
from tasks.backup import Backup, Proof
from tasks.bucket import new_name
from tasks.retention import kept
from tests.stored import NOON, manifest

UTC_ZONE, TANDIL = ZoneInfo("UTC"), ZoneInfo("America/Argentina/Buenos_Aires")


def backup(at: datetime, verdict: str = "", kind: str = "daily") -> Backup:
    name = new_name(at) + kind
    proof = {"at": at, "restore_seconds": 1, "data_age_seconds": 1, "manifest_sha256": "", "verdict": verdict}
    return Backup(
        name=name, manifest=manifest(name, snapshot_at=at, kind=kind),
        proof=Proof.model_validate(proof) if verdict else None,
    )  # fmt: skip


def daily(days: int, **options: str) -> list[Backup]:
    return [backup(NOON - timedelta(days=day), **options) for day in range(days)]


def only(count: int, **changes: int) -> Retention:
    return Retention(**({"daily": count, "weekly": 0, "monthly": 0, "proven": 1} | changes))


def names(backups: list[Backup]) -> set[str]:
    return {backup.name for backup in backups}


def test_the_newest_of_each_day_week_and_month_is_kept() -> None:
    year = daily(400)
    keep = kept(year, Retention(daily=7, weekly=4, monthly=12, proven=1), UTC_ZONE)
    # 24 November 2026 is a Tuesday: the weeks end on the Sundays 22, 15 and 8.
    days = [f"2026-11-{day}" for day in (24, 23, 22, 21, 20, 19, 18, 15)] + ["2026-11-08"]
    months = ["2026-10-31", "2026-09-30", "2026-08-31", "2026-07-31", "2026-06-30", "2026-05-31", "2026-04-30"]
    months += ["2026-03-31", "2026-02-28", "2026-01-31", "2025-12-31"]
    assert sorted(name[:10] for name in keep) == sorted(days + months)


def test_days_are_those_of_the_sites_time_zone() -> None:
    late, later = datetime(2026, 11, 24, 2, tzinfo=UTC), datetime(2026, 11, 24, 4, tzinfo=UTC)  # 23:00 and 01:00
    both = [backup(late), backup(later)]
    assert kept(both, only(2), TANDIL) == names(both)
    assert kept(both, only(2), UTC_ZONE) == names(both[1:])


def test_a_streak_of_failures_lets_nothing_go() -> None:
    old = daily(10)
    assert kept([backup(NOON + timedelta(days=500)), *old], only(11), UTC_ZONE) >= names(old)


def test_proven_backups_are_kept_whatever_their_age() -> None:
    old = [backup(NOON - timedelta(days=1000 + day), "proven") for day in range(5)]
    assert kept(daily(40) + old, only(30, proven=3), UTC_ZONE) >= names(old[:3])


def test_a_backup_that_failed_its_proof_stands_for_no_day() -> None:
    good, bad = backup(NOON - timedelta(hours=3)), backup(NOON - timedelta(hours=1), "bad")
    assert kept([backup(NOON + timedelta(days=1)), bad, good], only(2), UTC_ZONE) >= names([good, bad])


def test_what_was_saved_before_a_restore_is_kept_as_long_as_the_days_and_stands_for_none() -> None:
    safety, old = backup(NOON, kind="safety"), backup(NOON - timedelta(days=20), kind="safety")
    days = daily(10)
    keep = kept([safety, old, *days], only(7), UTC_ZONE)
    assert keep == names([safety, *days[:7]])


verdicts = st.sampled_from(["", "proven", "bad"])
moments = st.integers(-20_000, 20_000).map(lambda hours: NOON + timedelta(hours=hours))
made = st.lists(
    st.builds(backup, moments, verdicts, st.sampled_from(["daily", "safety"])),
    unique_by=lambda found: found.name, min_size=1, max_size=30,
)  # fmt: skip
retentions = st.builds(
    Retention, daily=st.integers(1, 9), weekly=st.integers(0, 5), monthly=st.integers(0, 5), proven=st.integers(1, 5)
)


@given(made, retentions)
def test_the_newest_and_enough_proven_ones_are_always_kept(found: list[Backup], retention: Retention) -> None:
    keep = kept(found, retention, TANDIL)
    good = [b for b in found if b.manifest and b.manifest.kind != "safety" and (not b.proof or b.proven)]
    proven = [b for b in good if b.proven]
    assert newest(found) == newest([b for b in found if b.name in keep])
    assert len(keep & names(proven)) >= min(retention.proven, len(proven))
    assert len(keep & names(good)) >= min(retention.daily, len({day(b) for b in good}))


@given(made, retentions)
def test_pruning_twice_is_pruning_once(found: list[Backup], retention: Retention) -> None:
    keep = kept(found, retention, TANDIL)
    assert kept([backup for backup in found if backup.name in keep], retention, TANDIL) == keep


@given(made, retentions)
def test_more_than_retention_asks_for_is_let_go(found: list[Backup], retention: Retention) -> None:
    good = [b for b in found if b.manifest and b.manifest.kind != "safety" and not b.proof]
    most = retention.daily + retention.weekly + retention.monthly + retention.proven + 1
    assert len(kept(good, retention, TANDIL)) <= most


def newest(found: list[Backup]) -> datetime:
    return max(b.manifest.snapshot_at for b in found if b.manifest)


def day(found: Backup) -> object:
    assert found.manifest is not None
    return found.manifest.snapshot_at.astimezone(TANDIL).date()
