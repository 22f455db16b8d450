"""A playbook: what its body says or raises becomes a state, messages, a record and a closed incident."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State

from blocks.errors import CommandFailed, HostRefused, Refused
from blocks.site import Site
from flows import named
from flows.claims import open_claims
from flows.incident import Incident, Outcome
from flows.playbook import attempt, playbook, service_stopped
from tasks import bucket, compose, http, ssh, timeline
from tasks.command import Command, Plan
from tasks.steps import act
from tests.mail_server import MailServer
from tests.web_server import WebServer

calls: list[str] = []
wanted: list[Callable[[Site, Incident], Outcome]] = []


@playbook("Test Section", "P1")
def fake(site: Site, incident: Incident) -> Outcome:
    """Does what the test wants."""
    return wanted[0](site, incident)


def run(site: Site, body: Callable[[Site, Incident], Outcome], **parameters: Any) -> State[Any]:
    calls.clear()
    wanted[:] = [body]
    state: State[Any] = fake(site.name, return_state=True, **parameters)  # type: ignore[assignment]
    return state


def subjects(post: MailServer) -> list[str]:
    return [f"{message['To']}: {message['Subject']}" for message in post.messages]


def told(subject: str) -> list[str]:
    people = ("ana", "beto", "caro")
    return [f"{person}@tandil.site: {subject}" for person in people]


def record(tmp_path: Path) -> str:
    (path,) = (tmp_path / "incidents").iterdir()
    return path.read_text()


def nothing_open() -> bool:
    with get_client(sync_client=True) as client:
        return "fake" not in {claim.playbook for claim in open_claims(client)}


def test_a_false_alarm_tells_nobody_and_leaves_a_record(site: Site, post: MailServer, tmp_path: Path) -> None:
    def body(site: Site, incident: Incident) -> Outcome:
        seen = http.verify(site)
        assert seen.healthy
        return incident.well_again(seen)

    state = run(site, body, reason="an alert")
    assert (state.name, state.is_completed()) == ("False alarm", True)
    assert subjects(post) == []
    assert "| Outcome | **false alarm**: The site is healthy from outside: healthy; HEAD" in record(tmp_path)
    assert "started because: an alert" in record(tmp_path)
    assert nothing_open()


def test_an_act_that_heals_is_told_to_everybody_and_written_down(
    site: Site, page: WebServer, post: MailServer, tmp_path: Path
) -> None:
    page.health = 502

    def do(plan: Plan, site: Site, number: int = 1) -> str:
        calls.append("did")
        page.health = 200
        return "done"

    healing = act("Heal", gate="restart", do=do)(plan_of)

    def body(site: Site, incident: Incident) -> Outcome:
        incident.announce(http.verify(site).impact)
        assert attempt(incident, healing)
        assert not attempt(incident, healing), "it is done already"
        return incident.resolved("the act healed it")

    state = run(site, body)
    assert (state.name, state.message) == ("Resolved", "the act healed it")
    assert calls == ["did"]
    assert subjects(post) == [
        *told("INCIDENT ALERT - P1: fake on tandil"),
        *told("INCIDENT RESOLVED - P1: fake on tandil"),
    ]
    assert "- [x] Communication sent to affected users" in record(tmp_path)
    assert "| **did** Heal | done |" in record(tmp_path)
    assert nothing_open()


def plan_of(site: Site, number: int = 1) -> Plan:
    """A plan that rests on nothing."""
    return Plan("Heal", site.host.address, (Command(("touch", "it"), changes=True),), "nothing")


ENDS: dict[str, tuple[Outcome | Exception, str, str]] = {
    "unresolved": (Outcome(kind="unresolved", summary="All was tried."), "Unresolved", "All was tried."),
    "a refusal": (Refused("A reboot was refused by Ana."), "Refused", "A reboot was refused by Ana."),
    "an error": (HostRefused("No.", "Pin it."), "Unresolved", "No. Pin it."),
    "a defect": (ZeroDivisionError("oh"), "Unresolved", "Guardia itself failed: ZeroDivisionError: oh"),
}


@pytest.mark.parametrize("how", ENDS)
def test_a_site_that_stays_down_is_said_to_need_a_person(
    site: Site, post: MailServer, tmp_path: Path, how: str
) -> None:
    end, name, message = ENDS[how]

    def body(site: Site, incident: Incident) -> Outcome:
        if isinstance(end, Exception):
            raise end
        return end

    state = run(site, body)
    assert (state.name, state.message) == (name, message)
    assert state.is_failed() == (name == "Unresolved")
    assert subjects(post) == told("INCIDENT UPDATE - P1: fake on tandil")
    text = post.messages[0].get_content()
    assert f"{name.upper()}: {message}" in text
    assert "A person has to take over" in text
    assert message in record(tmp_path)
    assert nothing_open()


STOP, START, AGAIN = (act.title for act in (compose.stop_web, compose.start_web, compose.start_web_again))
STOPPED: list[tuple[list[str], str]] = [
    ([], ""),
    ([STOP], "is still"),
    ([STOP, AGAIN], ""),
    ([STOP, AGAIN, STOP], "is still"),
    ([STOP, START], ""),
    ([f"{STOP}!"], "may still be"),
    ([f"{STOP}!", f"{AGAIN}!"], "may still be"),
    ([f"{STOP}!", AGAIN], ""),
]


@pytest.mark.parametrize(("acts", "stopped"), STOPPED, ids=[", ".join(acts) for acts, _ in STOPPED])
def test_people_are_told_that_the_web_service_is_left_stopped(
    site: Site, post: MailServer, acts: list[str], stopped: str
) -> None:
    def body(site: Site, incident: Incident) -> Outcome:
        for title in acts:  # with ! those that failed
            timeline.record("act", title.removesuffix("!"), ok=not title.endswith("!"))
        return Outcome(kind="unresolved", summary="It ends here.")

    run(site, body)
    text = post.messages[0].get_content()
    assert (f"The web service {stopped} STOPPED. Retry the run" in text) == bool(stopped)


def stopping(site: Site, incident: Incident) -> Outcome:
    """A body that works while the web service is stopped."""
    with service_stopped(incident):
        raise AssertionError("it was not stopped")


def test_without_backups_the_web_service_is_not_stopped(site: Site, tmp_path: Path) -> None:
    state = run(site, stopping)
    assert state.name == "Unresolved" and state.message is not None and "has no [backups]" in state.message
    assert STOP not in record(tmp_path)


def test_a_stop_that_fails_is_followed_by_a_start(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_host: object, command: Command) -> None:
        calls.append(command.argv[-2])
        if command.argv[-2] == "stop":
            raise CommandFailed("it took too long")

    monkeypatch.setattr(bucket, "store", lambda _: None)
    monkeypatch.setattr(ssh, "run", fail)
    state = run(site, stopping)
    assert state.name == "Unresolved" and state.message is not None and "it took too long" in state.message
    assert calls == ["stop", "--no-recreate"]
    assert "STOPPED" not in record(tmp_path)


def test_an_act_that_fails_is_looked_at_all_the_same(site: Site, page: WebServer) -> None:
    def do(plan: Plan, site: Site, number: int = 1) -> str:
        raise CommandFailed("It said no, and healed.")

    failing = act("Fail", gate="restart", do=do)(plan_of)
    state = run(site, lambda site, incident: incident.resolved(str(attempt(incident, failing))))
    assert state.message == "True"


def test_an_incident_whose_record_cannot_be_written_is_closed_all_the_same(
    site: Site, tmp_path: Path, post: MailServer
) -> None:
    (tmp_path / "incidents").write_text("a file where the folder should be")
    assert run(site, lambda site, incident: incident.resolved("it came back")).name == "Resolved"
    assert len(post.messages) == 3
    assert nothing_open()


def test_a_plan_sends_nothing_opens_nothing_and_changes_nothing(
    site: Site, page: WebServer, post: MailServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.health = 502
    sent: list[object] = []
    monkeypatch.setattr(timeline, "send", lambda *entry: sent.append(entry))
    restart, reboot = (act(gate.title(), gate=gate)(plan_of) for gate in ("restart", "reboot"))

    def body(site: Site, incident: Incident) -> Outcome:
        incident.announce(http.verify(site).impact)
        assert not attempt(incident, restart)
        assert not attempt(incident, reboot, 2)
        with pytest.raises(AssertionError, match="plan mode would have run touch it"):
            ssh.run(site.host, Command(("touch", "it"), changes=True))
        assert nothing_open()
        run = timeline.current()
        assert run is not None
        calls.extend(entry.what for entry in run.entries)
        return incident.unresolved()

    state = run(site, body, mode="plan")
    assert (state.name, state.is_completed()) == ("Planned", True)
    assert calls == [
        "Verify from outside", "would restart", "would ask for approval to reboot", "would reboot",
    ]  # fmt: skip
    assert (sent, subjects(post)) == ([], [])
    assert not (tmp_path / "incidents").exists()


def test_a_second_alert_is_attached_to_the_open_incident(site: Site, post: MailServer) -> None:
    def first(site: Site, incident: Incident) -> Outcome:
        wanted[:] = [lambda site, incident: pytest.fail("two runs have the incident")]
        second: State[Any] = fake(site.name, return_state=True)  # type: ignore[assignment]
        calls.append(f"{second.name}: {second.message}")
        return incident.resolved("it came back")

    assert run(site, first).name == "Resolved"
    assert calls[0].startswith("Attached: fake on tandil is open since ")
    assert "this alert was attached to it. Follow " in calls[0]
    assert len(post.messages) == 3


def test_a_site_that_is_not_registered_is_bad_input(prefect_server: None) -> None:
    state: State[Any] = fake(f"no-{uuid4().hex[:8]}", return_state=True)  # type: ignore[assignment]
    assert (state.name, state.is_failed()) == ("Bad input", True)
    assert "There is no site 'no-" in str(state.message)


def test_the_page_of_a_playbook_has_one_line_a_step() -> None:
    text = "Title\nof two lines.\n\n1. First,\n   which goes on.\n2. Second.\n\nThe\nend."
    assert named.unwrapped(text) == "Title of two lines.\n\n1. First, which goes on.\n2. Second.\n\nThe end."
