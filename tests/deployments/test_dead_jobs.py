"""A job whose process died tells the primary on-call, once for each death."""

import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.states import Completed, Crashed, Failed, Running

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


def look(client: SyncPrefectClient, watching_since: datetime = LONG_AGO) -> None:
    dead_jobs.round_trip(client, watching_since, set())


def told(client: SyncPrefectClient, run: UUID) -> int:
    """How many deaths the timeline has; the server stores entries a moment after they were sent."""
    time.sleep(1.5)
    return sum(entry.kind == "closed" for entry in timeline.read(client, run))


def test_each_death_is_told_once(client: SyncPrefectClient, run: UUID, mail: MailServer) -> None:
    look(client)
    assert mail.messages == [], "it may live"
    for count in (1, 2):
        client.set_flow_run_state(run, Crashed(message="Killed by SIGKILL."), force=True)
        time.sleep(0.01)
        look(client)
        assert told(client, run) == count
        look(client)
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
    look(client)
    monkeypatch.setattr(dead_jobs, "GRACE", timedelta(0))
    client.set_flow_run_state(run, Completed(), force=True)
    look(client)
    assert mail.messages == []


@pytest.mark.parametrize(("name", "alarms"), [("Failed", 1), ("Bad input", 0)])
def test_a_job_that_failed_before_it_had_begun_is_told_once(
    client: SyncPrefectClient, run: UUID, mail: MailServer, name: str, alarms: int
) -> None:
    client.set_flow_run_state(run, Failed(name=name, message="The server was away."), force=True)
    time.sleep(0.01)
    look(client)
    assert told(client, run) == alarms
    look(client)
    assert [message["Subject"] for message in mail.messages] == ["ALARM - daily-backup on waiting: Failed"] * alarms


def test_a_job_that_told_of_its_failure_itself_is_told_no_more(
    client: SyncPrefectClient, run: UUID, site: Site, mail: MailServer
) -> None:
    timeline.begin(timeline.Run(id=run, playbook="daily-backup", site=site))
    timeline.record("closed", "failed", outcome="the disk is full", ok=False)
    timeline.end()
    assert told(client, run) == 1
    client.set_flow_run_state(run, Failed(), force=True)
    time.sleep(0.01)
    look(client)
    assert mail.messages == []


def test_a_run_without_heartbeats_is_declared_dead_and_told(
    client: SyncPrefectClient, run: UUID, mail: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeats, "SILENT", timedelta(seconds=0.5))
    time.sleep(0.6)
    look(client, datetime.now(UTC))
    assert client.read_flow_run(run).state_type == "RUNNING", "a server that was away may have missed heartbeats"
    look(client)
    time.sleep(0.01)
    look(client)
    assert client.read_flow_run(run).state_name == "Crashed"
    assert "Its process has died." in mail.messages[0].get_content()


@pytest.mark.parametrize("parameters", [{"site": "gone"}, {}], ids=["a site that is gone", "no site"])
def test_a_run_whose_people_cannot_be_found_keeps_no_other_from_being_told_and_is_logged_once(
    client: SyncPrefectClient, run: UUID, mail: MailServer, caplog: pytest.LogCaptureFixture, parameters: dict[str, str]
) -> None:
    deployment = client.create_deployment(client.create_flow(nothing), name="guardia", parameters=parameters)
    lost = client.create_flow_run_from_deployment(deployment)
    for each in (run, lost.id):
        client.set_flow_run_state(each, Crashed(), force=True)
    time.sleep(0.01)
    logged: set[UUID] = set()
    for _ in range(2):
        dead_jobs.round_trip(client, LONG_AGO, logged)
        assert told(client, run) == 1
    client.delete_flow_run(lost.id)
    assert len(mail.messages) == 1
    assert caplog.text.count(f"The run {lost.name} of daily-backup cannot be seen to") == 1
