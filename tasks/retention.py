"""Which backups are kept: the newest of days, weeks and months, and proven ones whatever their age.

Days, weeks and months are counted in backups, not by the clock: a streak of failures, or a clock that is wrong, lets
nothing go.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from blocks.backup_store import Retention

if TYPE_CHECKING:
    from tasks.backup import Backup


def kept(backups: list[Backup], retention: Retention, zone: ZoneInfo) -> set[str]:
    """The names of the backups to keep. Those that cannot be used are neither kept nor counted here.

    One that holds live data from before a restore, or that failed its proof, stands for no day, and is kept as long
    as the oldest day that counts. The newest is always kept.
    """

    def day(backup: Backup) -> date:
        return _moment(backup).astimezone(zone).date()

    usable = sorted((backup for backup in backups if backup.manifest), key=_moment, reverse=True)
    good = [backup for backup in usable if _stands_for_its_day(backup)]
    daily = _newest_of(good, day, retention.daily)
    weekly = _newest_of(good, lambda backup: day(backup).isocalendar()[:2], retention.weekly)
    monthly = _newest_of(good, lambda backup: (day(backup).year, day(backup).month), retention.monthly)
    proven = [backup for backup in good if backup.proven][: retention.proven]
    oldest = min(map(day, daily), default=date.min)
    odd = [backup for backup in usable if not _stands_for_its_day(backup) and day(backup) >= oldest]
    return {backup.name for backup in [*usable[:1], *daily, *weekly, *monthly, *proven, *odd]}


def _moment(backup: Backup) -> datetime:
    assert backup.manifest is not None
    return backup.manifest.snapshot_at


def _stands_for_its_day(backup: Backup) -> bool:
    return backup.manifest is not None and backup.manifest.kind != "safety" and (backup.proof is None or backup.proven)


def _newest_of(newest_first: list[Backup], period: Callable[[Backup], object], count: int) -> list[Backup]:
    found: dict[object, Backup] = {}
    for backup in newest_first:
        found.setdefault(period(backup), backup)
    return list(found.values())[:count]
