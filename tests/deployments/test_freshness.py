"""A backup that is too old, or cannot be seen, is told once a day."""

from datetime import UTC, datetime, timedelta

import pytest

from blocks.errors import StoreUnreachable
from blocks.mailbox import Mailbox
from blocks.site import Site
from deployments import freshness
from tasks import backups
from tasks.backups import Backup, Backups
from tests import stored
from tests.mail_server import MailServer

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
def site(mail: MailServer) -> Site:
    return stored.site().model_copy(update={"mailbox": Mailbox.model_validate(mail.settings)})


def seen(monkeypatch: pytest.MonkeyPatch, age: timedelta | None) -> None:
    items = [] if age is None else [Backup(name="b", manifest=stored.manifest("b", snapshot_at=NOW - age))]
    monkeypatch.setattr(backups, "seen", lambda _: Backups(items=items, at=NOW, rpo=timedelta(hours=26)))


def test_a_young_backup_is_no_news(site: Site, mail: MailServer, monkeypatch: pytest.MonkeyPatch) -> None:
    seen(monkeypatch, timedelta(hours=25))
    freshness.look_at(site, {}, NOW)
    assert mail.messages == []


@pytest.mark.parametrize("age", [None, timedelta(hours=27)])
def test_an_old_or_missing_backup_is_told_once_a_day(
    site: Site, mail: MailServer, monkeypatch: pytest.MonkeyPatch, age: timedelta | None
) -> None:
    seen(monkeypatch, age)
    told: dict[str, datetime] = {}
    for hours in (0, 1, 23, 24, 25):
        freshness.look_at(site, told, NOW + timedelta(hours=hours))
    assert [str(message["Subject"]) for message in mail.messages] == ["ALARM - backups of tandil are too old"] * 2
    assert "guardia respond backup-failed" in mail.messages[0].get_content()


def test_a_bucket_that_cannot_be_seen_is_an_alarm(
    site: Site, mail: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Site) -> Backups:
        raise StoreUnreachable("The bucket does not answer.", "Is it up?")

    monkeypatch.setattr(backups, "seen", fail)
    freshness.look_at(site, {}, NOW)
    assert "cannot be seen: The bucket does not answer." in mail.messages[0].get_content()


def test_a_backup_that_came_since_ends_the_alarm(site: Site, mail: MailServer, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, datetime] = {}
    for age in (timedelta(hours=27), timedelta(hours=1), timedelta(hours=27)):
        seen(monkeypatch, age)
        freshness.look_at(site, told, NOW)
    assert len(mail.messages) == 2
