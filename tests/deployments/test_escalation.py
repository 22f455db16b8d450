"""Silence: first the secondary is asked, then it is a refusal; and a run that died is closed in its name."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.states import Cancelled

from blocks.site import Site
from deployments import escalation
from flows.claims import open_claims
from tasks.timeline import Entry
from tests.deployments.conftest import KEY, Waiting
from tests.mail_server import MailServer

Wait = Callable[..., Waiting]
NOW = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)


def look(client: SyncPrefectClient) -> None:
    escalation.round_trip(client, datetime.now(UTC))


def test_before_its_time_nothing_happens(client: SyncPrefectClient, wait: Wait, mail: MailServer) -> None:
    waiting = wait()
    look(client)
    assert mail.messages == []
    assert [entry.kind for entry in waiting.timeline()] == ["asked"]


def test_the_secondary_is_asked_once_with_the_same_plan(
    client: SyncPrefectClient, wait: Wait, mail: MailServer, site: Site
) -> None:
    waiting = wait(escalate_in=-1)
    look(client)
    for _ in range(100):
        if "escalated" in {entry.kind for entry in waiting.timeline()}:
            break
        time.sleep(0.05)
    look(client)
    (message,) = mail.messages
    assert message["To"] == "beto@tandil.site"
    assert message["Subject"] == f"APPROVAL NEEDED - P1: Reboot the VPS on {site.name}?"
    assert message.get_content().strip() == "the plan, word for word"


def test_silence_is_a_refusal_by_nobody(client: SyncPrefectClient, wait: Wait, mail: MailServer) -> None:
    waiting = wait(escalate_in=-2, refuse_in=-1)
    look(client)
    said = waiting.answer()
    assert (said["decision"], said["approver"]) == ("refuse", "nobody")
    assert said["reason"].startswith("nobody answered within ")
    assert mail.messages == []


def test_the_incident_of_a_run_that_was_cancelled_is_closed_in_its_name(
    client: SyncPrefectClient, wait: Wait, mail: MailServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = wait()
    client.set_flow_run_state(waiting.run_id, Cancelled(message="by Ana"), force=True)
    look(client)
    assert waiting.claim in open_claims(client), "the run gets its time to close it by itself"
    monkeypatch.setattr(escalation, "GRACE", timedelta(0))
    look(client)
    assert waiting.claim not in open_claims(client)
    assert {message["To"] for message in mail.messages} == {"ana@tandil.site", "beto@tandil.site", "caro@tandil.site"}
    (record,) = (tmp_path / "incidents").iterdir()
    assert "The run ended as Cancelled before it was through (by Ana)." in record.read_text()


def told(minutes_ago: float, template: str) -> Entry:
    at = NOW - timedelta(minutes=minutes_ago)
    return Entry(kind="message", what="Ana", at=at, detail={"template": template})


UPDATES: dict[str, tuple[list[Entry], bool]] = {
    "nobody was told yet": ([], False),
    "told just now": ([told(14.9, "initial")], False),
    "told a quarter of an hour ago": ([told(15, "initial")], True),
    "updated since": ([told(40, "initial"), told(10, "update")], False),
    "updated long ago": ([told(40, "initial"), told(20, "update")], True),
    "an approval was asked for since": ([told(40, "initial"), told(1, "approval")], True),
}


@pytest.mark.parametrize(("entries", "due"), UPDATES.values(), ids=UPDATES)
def test_an_update_is_due_a_quarter_of_an_hour_after_the_last(entries: list[Entry], due: bool) -> None:
    assert escalation._update_due(entries, NOW) is due


def test_people_are_told_what_a_run_waits_for(
    client: SyncPrefectClient, wait: Wait, mail: MailServer, site: Site
) -> None:
    waiting = wait()
    waiting.say("message", "Ana", at=datetime.now(UTC) - timedelta(minutes=16), detail={"template": "initial"})
    look(client)
    assert [message["Subject"] for message in mail.messages] == [f"INCIDENT UPDATE - P1: waiting on {site.name}"] * 3
    assert "Waiting for an approval: Ana: Reboot the VPS?" in mail.messages[0].get_content()


def test_an_incident_that_cannot_be_helped_does_not_keep_the_others_waiting(
    client: SyncPrefectClient, wait: Wait, mail: MailServer, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    broken, _ = wait("a"), wait("b", escalate_in=-1)
    broken.say("asked", "without a time", detail={"key": KEY})
    look(client)
    assert [message["To"] for message in mail.messages] == ["beto@tandil.site"]
    assert f"a on {site.name} cannot be seen to; it is tried again" in caplog.text


def test_the_incident_of_a_run_that_was_deleted_is_closed(
    client: SyncPrefectClient, wait: Wait, mail: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(escalation, "GRACE", timedelta(0))
    waiting = wait()
    client.delete_flow_run(waiting.run_id)
    look(client)
    assert waiting.claim not in open_claims(client)
    assert "(the run was deleted)" in mail.messages[0].get_content()
