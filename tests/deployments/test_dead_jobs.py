"""A job whose process died tells the primary on-call, once for each death."""

import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.states import Completed, Crashed, Running

from blocks.site import Site
from deployments import dead_jobs, heartbeats
from tasks import timeline
from tests.mail_server import MailServer

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@flow(name="daily-backup")
def nothing() -> None:
    """A flow that a run can be of."""


@pytest.fixture
def run(client: SyncPrefectClient, site: Site, monkeypatch: pytest.MonkeyPatch) -> UUID:
    """A daily backup that runs."""
    monkeypatch.setattr(dead_jobs, "GRACE", timedelta(0))
    deployment = client.create_deployment(client.create_flow(nothing), name="guardia", parameters={"site": site.name})
    made = client.create_flow_run_from_deployment(deployment)
    client.set_flow_run_state(made.id, Running(), force=True)
    return made.id


def told(client: SyncPrefectClient, run: UUID) -> int:
    """How many deaths the timeline has; the server stores entries a moment after they were sent."""
    time.sleep(1.5)
    return sum(entry.kind == "closed" for entry in timeline.read(client, run))


def test_each_death_is_told_once(client: SyncPrefectClient, run: UUID, mail: MailServer) -> None:
    dead_jobs.round_trip(client, LONG_AGO)
    assert mail.messages == [], "it may live"
    for count in (1, 2):
        client.set_flow_run_state(run, Crashed(message="Killed by SIGKILL."), force=True)
        time.sleep(0.01)
        dead_jobs.round_trip(client, LONG_AGO)
        assert told(client, run) == count
        dead_jobs.round_trip(client, LONG_AGO)
        assert len(mail.messages) == count
        client.set_flow_run_state(run, Running(), force=True)
    (message, _) = mail.messages
    assert message["Subject"] == "ALARM - daily-backup on waiting: Crashed" and message["To"] == "ana@tandil.site"
    assert "before it was through. Killed by SIGKILL." in message.get_content()
    assert "guardia respond backup-failed" in message.get_content()


def test_a_run_that_is_retried_at_once_or_ended_well_is_no_news(
    client: SyncPrefectClient, run: UUID, mail: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_jobs, "GRACE", timedelta(seconds=20))
    client.set_flow_run_state(run, Crashed(), force=True)
    dead_jobs.round_trip(client, LONG_AGO)
    monkeypatch.setattr(dead_jobs, "GRACE", timedelta(0))
    client.set_flow_run_state(run, Completed(), force=True)
    dead_jobs.round_trip(client, LONG_AGO)
    assert mail.messages == []


def test_a_run_without_heartbeats_is_declared_dead_and_told(
    client: SyncPrefectClient, run: UUID, mail: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeats, "SILENT", timedelta(seconds=0.5))
    time.sleep(0.6)
    dead_jobs.round_trip(client, datetime.now(UTC))
    assert client.read_flow_run(run).state_type == "RUNNING", "a server that was away may have missed heartbeats"
    dead_jobs.round_trip(client, LONG_AGO)
    time.sleep(0.01)
    dead_jobs.round_trip(client, LONG_AGO)
    assert client.read_flow_run(run).state_name == "Crashed"
    assert "Its process has died." in mail.messages[0].get_content()
