"""Backups or proofs that have stopped, or cannot be seen, are told once a day; each round until somebody is reached."""

import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import BlockDocumentUpdate

from blocks import site_file
from blocks.errors import StoreUnreachable
from blocks.mailbox import Mailbox
from blocks.site import Site
from deployments import freshness, rounds
from tasks import backups
from tasks.backup import Backup, Backups
from tests import sample, stored
from tests.mail_server import MailServer

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SUBJECT = "ALARM - backups of tandil are not as promised"


@pytest.fixture
def site(mail: MailServer) -> Site:
    return stored.site().model_copy(update={"mailbox": Mailbox.model_validate(mail.settings)})


def backup(age: timedelta, **changes: Any) -> Backup:
    return Backup(name="b", manifest=stored.manifest("b", snapshot_at=NOW - age, **changes))


def seen(monkeypatch: pytest.MonkeyPatch, age: timedelta | None, *more: Backup) -> None:
    items = [*([] if age is None else [backup(age)]), *more]
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
    assert [str(message["Subject"]) for message in mail.messages] == [SUBJECT] * 2
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


def test_proofs_that_have_stopped_are_an_alarm_that_names_the_cure(
    site: Site, mail: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen(monkeypatch, timedelta(hours=1), backup(timedelta(hours=27)))
    freshness.look_at(site, {}, NOW)
    (message,) = mail.messages
    said = "Of tandil, no backup is proven. The site file promises 26 h. Prove the newest: `guardia verify`."
    assert said in " ".join(message.get_content().split())


def test_what_was_saved_before_a_restore_is_no_young_backup(
    site: Site, mail: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen(monkeypatch, None, backup(timedelta(hours=1), kind="safety"), backup(timedelta(hours=27)))
    freshness.look_at(site, {}, NOW)
    assert "the newest backup is 27.0 h old" in mail.messages[0].get_content()


def test_an_alarm_that_reached_nobody_is_logged_and_told_again_in_the_next_round(
    site: Site, mail: MailServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen(monkeypatch, timedelta(hours=27))
    told: dict[str, datetime] = {}
    dead = site.model_copy(update={"mailbox": Mailbox.model_validate(mail.settings | {"port": 9})})
    freshness.look_at(dead, told, NOW)
    assert told == {} and "Nobody was told; it is tried again in 600.0 s: Of tandil, the newest" in caplog.text
    for minutes in (10, 20):
        freshness.look_at(site, told, NOW + timedelta(minutes=minutes))
    assert [str(message["To"]) for message in mail.messages] == ["ana@tandil.site"]


@pytest.mark.usefixtures("prefect_server")
def test_the_secondary_is_told_once_a_day_where_the_primary_cannot_be_reached(
    site: Site, mail: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen(monkeypatch, timedelta(hours=27))
    monkeypatch.setattr(site.on_call.primary, "channels", ["slack-webhook/no-such"])
    told: dict[str, datetime] = {}
    for minutes in (0, 10):
        freshness.look_at(site, told, NOW + timedelta(minutes=minutes))
    assert [str(message["To"]) for message in mail.messages] == ["beto@tandil.site"]
    assert "Ana could not be reached" in mail.messages[0].get_content()


def test_a_server_that_does_not_answer_does_not_end_the_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    stop, rounds_begun = threading.Event(), list[int]()

    def away() -> list[str]:
        rounds_begun.append(1)
        if len(rounds_begun) == 2:
            stop.set()
        raise OSError("the server is away")

    monkeypatch.setattr(freshness, "EVERY", 0.01)
    monkeypatch.setattr(rounds, "get_client", lambda **_: nullcontext())
    monkeypatch.setattr(site_file, "names", away)
    freshness.watch(stop)
    assert len(rounds_begun) == 2


# --- a site whose blocks cannot be loaded -----------------------------------------------------------------------


Spoil = Callable[..., None]


@pytest.fixture(scope="module")
def registered(prefect_server: None, post: MailServer) -> None:
    """Two sites with people of their own."""
    for name, person in {"spoilt": "ana@tandil.site", "well": "eva@well.site"}.items():
        primary = {"name": person.split("@")[0], "channels": [person]}
        site_file.register(sample.site(name=name, mailbox=post.settings, on_call={"primary": primary}))


@pytest.fixture
def spoil(registered: None, client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch) -> Iterator[Spoil]:
    """Edits a field of a block as somebody does in the UI; what it was comes back after the test."""
    monkeypatch.setattr(site_file, "names", lambda: ["spoilt", "well"])
    before: dict[UUID, dict[str, Any]] = {}

    def edit(kind: str, field: str, value: Any, site: str = "spoilt") -> None:
        document = client.read_block_document_by_name(site, f"guardia-{kind}")
        before.setdefault(document.id, {field: document.data[field]})
        client.update_block_document(document.id, BlockDocumentUpdate(data={field: value}))

    yield edit
    for document, data in before.items():
        client.update_block_document(document, BlockDocumentUpdate(data=data))


def test_a_site_that_cannot_be_loaded_is_told_once_a_day_to_its_own_people(spoil: Spoil, mail: MailServer) -> None:
    spoil("host", "port", 0)
    told: dict[str, datetime] = {}
    for hours in (0, 1, 24):
        freshness.round_trip(told, NOW + timedelta(hours=hours))
    assert [str(message["To"]) for message in mail.messages] == ["ana@tandil.site"] * 2
    assert mail.messages[0]["Subject"] == "ALARM - spoilt cannot be loaded"
    said = mail.messages[0].get_content()
    assert "host.port: " in said and "Run `guardia apply site.toml` again." in said


def test_a_site_that_can_be_loaded_again_ends_the_alarm(spoil: Spoil, mail: MailServer) -> None:
    told: dict[str, datetime] = {}
    for port in (0, 22, 0):
        spoil("host", "port", port)
        freshness.round_trip(told, NOW)
    assert len(mail.messages) == 2


@pytest.mark.parametrize(("kind", "field"), [("on-call", "primary"), ("mailbox", "port")])
def test_another_sites_on_call_is_told_where_its_own_cannot_be(
    spoil: Spoil, mail: MailServer, kind: str, field: str
) -> None:
    spoil(kind, field, 0)
    freshness.round_trip({}, NOW)
    assert [str(message["To"]) for message in mail.messages] == ["eva@well.site"]


def test_if_nobody_can_be_found_for_such_a_site_it_is_logged_and_tried_again(
    spoil: Spoil, mail: MailServer, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("spoilt", "well"):
        spoil("on-call", "primary", 0, name)
    told: dict[str, datetime] = {}
    freshness.round_trip(told, NOW)
    assert told == {} and mail.messages == []
    assert "Nobody was told" in caplog.text and "The blocks of spoilt have 1 problem: on_call.primary" in caplog.text
