"""One incident per episode: one of many alerts opens it, the others attach, and a dead run's claim is taken over."""

import contextvars
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.states import Completed, Running

from blocks.errors import IncidentOpen
from blocks.site import Site
from flows.claims import Claim, claim, holds, open_claims, release, yield_to
from flows.incident import Incident, case_of
from tasks import timeline
from tasks.http import Answer, Outside
from tests import sample

THREADS = 8
SITE = sample.site()


@pytest.fixture
def client(prefect_server: None) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


@flow(name="claiming")
def nothing() -> None:
    """A flow that a run can be of."""


def a_run(client: SyncPrefectClient) -> UUID:
    return client.create_flow_run(nothing, state=Running()).id


def wish(run_id: UUID, playbook: str) -> Claim:
    return Claim(
        run_id=run_id, playbook=playbook, section="Section", severity="P1", site="tandil", opened=datetime.now(UTC)
    )


def at_once(wishes: list[Claim]) -> list[str]:
    """What each of these claims got, all made at the same time."""

    def attempt(wanted: Claim) -> str:
        try:
            return "mine" if claim(wanted) == wanted else "another's"
        except IncidentOpen:
            return "attached"

    with ThreadPoolExecutor(len(wishes)) as pool:
        return [done.result() for done in [
            pool.submit(contextvars.copy_context().run, attempt, wanted) for wanted in wishes
        ]]  # fmt: skip


def new_name() -> str:
    return f"test-{uuid4().hex[:8]}"


def test_of_many_alerts_at_once_exactly_one_opens_the_incident(client: SyncPrefectClient) -> None:
    name = new_name()
    got = at_once([wish(a_run(client), name) for _ in range(THREADS)])
    assert sorted(got) == ["attached"] * (THREADS - 1) + ["mine"]
    assert [claim.playbook for claim in open_claims(client)].count(name) == 1


@pytest.mark.parametrize("dead", ["ended", "deleted"])
def test_exactly_one_of_many_takes_over_the_claim_of_a_run_that_is_no_more(
    client: SyncPrefectClient, dead: str
) -> None:
    name, old = new_name(), a_run(client)
    claim(wish(old, name))
    if dead == "ended":
        client.set_flow_run_state(old, Completed(), force=True)
    else:
        client.delete_flow_run(old)
    got = at_once([wish(a_run(client), name) for _ in range(THREADS)])
    assert sorted(got) == ["attached"] * (THREADS - 1) + ["mine"]


def test_a_resumed_run_finds_its_own_claim_as_it_was(client: SyncPrefectClient) -> None:
    mine = wish(a_run(client), new_name())
    assert claim(mine) == mine
    assert claim(mine.model_copy(update={"opened": datetime(2030, 1, 1, tzinfo=UTC)})) == mine


def test_an_alert_that_is_attached_is_noted_on_the_open_incident(client: SyncPrefectClient) -> None:
    name, holder, late = new_name(), a_run(client), a_run(client)
    claim(wish(holder, name))
    with pytest.raises(IncidentOpen, match=f"is open since .* UTC in the run {holder}; this alert was attached"):
        claim(wish(late, name))
    (noted,) = later(client, holder)
    assert noted.what == f"a second alert ({name}, {late}) attached to this incident"


def test_an_alert_attaches_to_the_incident_of_another_playbook_that_it_yields_to(client: SyncPrefectClient) -> None:
    name, holder, late = new_name(), a_run(client), wish(a_run(client), new_name())
    yield_to(late, (name,))
    claim(wish(holder, name))
    with pytest.raises(IncidentOpen, match=f"^{name} on .* is open since"):
        yield_to(late, ("other", name))
    yield_to(late, ("other",))
    yield_to(late.model_copy(update={"site": "azul"}), (name,))
    client.set_flow_run_state(holder, Completed(), force=True)
    yield_to(late, (name,))


def later(client: SyncPrefectClient, run_id: UUID) -> list[timeline.Entry]:
    """The timeline once the server has stored it."""
    import time

    for _ in range(100):
        if entries := timeline.read(client, run_id):
            return entries
        time.sleep(0.1)
    raise AssertionError("nothing arrived")


def test_only_the_run_that_has_an_incident_lets_go_of_it(client: SyncPrefectClient) -> None:
    name, holder, other = new_name(), a_run(client), a_run(client)
    claim(wish(holder, name))
    release("tandil", name, other)
    with pytest.raises(IncidentOpen):
        claim(wish(other, name))
    release("tandil", name, holder)
    assert claim(wish(other, name)).run_id == other
    release("tandil", name, other)
    release("tandil", name, other)


def test_an_incident_that_is_handed_over_is_open_no_longer(
    client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = wish(a_run(client), new_name())
    assert not holds(mine)
    claim(mine)
    assert holds(mine) and not holds(wish(a_run(client), mine.playbook))
    told: list[str] = []
    monkeypatch.setattr(Incident, "update", lambda _self, _status, why, **_: told.append(why))
    Incident(mine, SITE).hand_over("another is open")
    assert told == ["another is open"]
    assert not holds(mine)


def test_what_people_were_told_at_the_beginning_is_on_the_record_of_a_resumed_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = timeline.Entry(kind="note", what="impact: GET /: 502", detail={"told": ["Nobody yet", "GET /: 502"]})
    monkeypatch.setattr(Incident, "_entries", lambda _: [first])
    incident = Incident(wish(uuid4(), "test"), SITE)
    incident._remember()
    assert (incident.case.affected, incident.case.impact) == ("Nobody yet", "GET /: 502")


def seen(status: int) -> Outside:
    answer = Answer(request="GET /", status=status)
    return Outside(page=answer, health=answer)


WELL = [
    ([], "false alarm", "The site is healthy from outside"),
    (["look", "note"], "false alarm", "The site is healthy from outside"),
    (["message"], "resolved", "it came back by itself"),
    (["message", "act"], "resolved", "it came back after what was done before the approval"),
]


@pytest.mark.parametrize(("kinds", "kind", "summary"), WELL)
def test_a_healthy_site_is_a_false_alarm_only_if_nothing_happened(
    monkeypatch: pytest.MonkeyPatch, kinds: list[Any], kind: str, summary: str
) -> None:
    entries = [timeline.Entry(kind=kind, what="") for kind in kinds]
    monkeypatch.setattr(Incident, "_entries", lambda _: entries)
    outcome = Incident(wish(uuid4(), "test"), SITE).well_again(seen(200))
    assert outcome.kind == kind
    assert outcome.summary.startswith(summary)


def test_a_plan_never_ends_as_resolved() -> None:
    run = timeline.Run(id=uuid4(), playbook="test", site=SITE, planning=True)
    timeline.begin(run)
    try:
        incident = Incident(wish(run.id, "test"), SITE)
        ends = [incident.resolved("it"), incident.put_right("it", ["this"]), incident.put_right("it", [])]
    finally:
        timeline.end()
    assert {end.kind for end in ends} == {"planned"}


def test_the_facts_of_an_incident_link_to_what_the_site_has() -> None:
    site: Site = sample.site(sentry_url="https://sentry.test/x")
    case = case_of(wish(uuid4(), "test"), site)
    assert case.links == [("Sentry", "https://sentry.test/x")]
    assert (case.site, case.url, case.outcome) == ("tandil", "https://tandil.site/", "open")
