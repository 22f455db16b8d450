"""The timeline: kept by the server, read back in order, and never a reason to stop."""

import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from prefect.client.orchestration import get_client

from tasks import timeline
from tasks.timeline import Entry, Run
from tests import sample


@pytest.fixture
def run() -> Iterator[Run]:
    run = Run(id=uuid4(), playbook="test", site=sample.site())
    timeline.begin(run)
    yield run
    timeline.end()


def arrived(run: Run, count: int) -> list[Entry]:
    with get_client(sync_client=True) as client:
        for _ in range(100):
            if len(entries := timeline.read(client, run.id)) == count:
                return entries
            time.sleep(0.1)
    raise AssertionError(f"{len(entries)} of {count} arrived")


@pytest.mark.usefixtures("prefect_server")
def test_a_run_finds_what_an_earlier_process_of_it_recorded(run: Run) -> None:
    first = timeline.record("act", "restart", outcome="done", ok=True, seconds=1.5, changes=True, detail={"a": [1]})
    arrived(run, 1)
    timeline.begin(Run(id=run.id, playbook="test", site=run.site))
    later = timeline.record("note", "resumed")
    current = timeline.current()
    assert current is not None
    assert timeline.whole(current) == [first, later]


@pytest.mark.usefixtures("prefect_server")
def test_a_long_timeline_is_read_whole_and_oldest_first(run: Run) -> None:
    for number in range(60):
        timeline.record("note", str(number))
    assert [entry.what for entry in arrived(run, 60)] == [str(number) for number in range(60)]


def test_an_entry_that_cannot_be_sent_is_logged_and_kept(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(**_: object) -> None:
        raise OSError("the server is away")

    monkeypatch.setattr("prefect.client.orchestration.get_client", broken)
    with caplog.at_level(logging.WARNING, "guardia"):
        timeline.record("note", "seen")
    assert [entry.what for entry in run.entries] == ["seen"]
    assert "The timeline entry 'seen' could not be sent: the server is away" in caplog.text


def test_no_secret_of_the_site_gets_onto_the_timeline(run: Run) -> None:
    run.planning, run.secrets = True, frozenset({"xK4j-2vQ"})
    entry = timeline.record("act", "restart", outcome="said xK4j-2vQ", text="password=other xK4j-2vQ", detail={"a": 1})
    assert (entry.outcome, entry.text, entry.detail) == ("said •••", "password=••• •••", {"a": 1})


def test_an_entry_is_dated_when_it_began() -> None:
    entry = timeline.record("look", "slow", seconds=60)
    assert datetime.now(UTC) - entry.at >= timedelta(seconds=60)


def test_a_listener_hears_each_entry_instead_of_the_log(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    run.planning = True
    heard: list[str] = []
    with timeline.heard_by(lambda entry: heard.append(entry.what)), caplog.at_level(logging.INFO, "guardia"):
        timeline.record("note", "heard")
    assert (heard, caplog.text) == (["heard"], "")
    with caplog.at_level(logging.INFO, "guardia"):
        timeline.record("look", "logged", outcome="fine", seconds=0.25)
    assert heard == ["heard"]
    assert "look: logged — fine (0.2 s)" in caplog.text


def test_outside_a_run_nothing_is_kept() -> None:
    assert timeline.current() is None
    assert timeline.record("note", "nowhere").what == "nowhere"
