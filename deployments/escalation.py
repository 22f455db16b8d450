"""What happens while a run waits for a person, or has died: escalate, refuse in the name of silence, update, close.

Serves the guide's severity table ("Escalation", "updates every 15 minutes"). `guardia up` runs it beside the flows;
all it knows it reads from the timelines, so a restart loses nothing.
"""

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled

from blocks import site_file
from deployments import heartbeats, rounds
from deployments.answers import answer, pending
from flows.approval import NOBODY, tell_question
from flows.claims import Claim, open_claims
from flows.incident import Incident, Outcome
from tasks import timeline

EVERY = 2.0  # seconds between two rounds
UPDATES = timedelta(minutes=15)
GRACE = timedelta(seconds=20)  # for a run that has ended to close its incident by itself
log = logging.getLogger("guardia.escalation")


def watch(stop: threading.Event) -> None:
    """Go round until told to stop."""
    rounds.go(stop, EVERY, round_trip, log)


def round_trip(client: SyncPrefectClient, watching_since: datetime) -> None:
    """Look once at every open incident and do what is due; one that cannot be helped does not keep the others waiting.

    A run whose process died with its `guardia up` stays Running in Prefect: it is declared dead once it has been
    silent since before `watching_since`, so that a run which could not reach a stopped server gets its time.
    """
    for claim in open_claims(client):
        try:
            _see_to(client, claim, datetime.now(UTC), watching_since)
        except Exception:
            log.exception("%s on %s cannot be seen to; it is tried again in %s s", claim.playbook, claim.site, EVERY)


def _see_to(client: SyncPrefectClient, claim: Claim, now: datetime, watching_since: datetime) -> None:
    try:
        state = client.read_flow_run(claim.run_id).state
    except ObjectNotFound:
        state = Cancelled(message="the run was deleted", timestamp=claim.opened)
    if state is None:
        return
    if state.is_final():
        if state.timestamp < now - GRACE:
            _as_run(claim, partial(_close_dead, state=state))
        return
    if heartbeats.bury(client, claim.run_id, state, now, watching_since):
        return
    entries = timeline.read(client, claim.run_id)
    if state.is_paused():
        _silent(client, claim, entries, now)
    if claim.severity == "P1" and _update_due(entries, now):
        _as_run(claim, partial(_update, waits_for=pending(entries) if state.is_paused() else None))


def _silent(client: SyncPrefectClient, claim: Claim, entries: list[timeline.Entry], now: datetime) -> None:
    asked = pending(entries)
    if asked is None:
        return
    if now >= datetime.fromisoformat(asked.detail["refuse_at"]):
        waited = round((now - asked.at).total_seconds())
        reason = f"nobody answered within {waited} s, and silence is refusal"
        words = {"decision": "refuse", "approver": NOBODY, "reason": reason}
        answer(client, claim.run_id, words)
    elif now >= datetime.fromisoformat(asked.detail["escalate_at"]) and not _escalated(asked, entries):
        _as_run(claim, lambda incident: _escalate(incident, asked))


def _escalate(incident: Incident, asked: timeline.Entry) -> None:
    on_call = incident.site.on_call
    person = on_call.secondary or on_call.primary
    what = f"{person.name} is asked too" if on_call.secondary else f"{person.name} is reminded"
    timeline.record("escalated", what, detail={"key": asked.detail["key"]})
    tell_question(incident.site, incident.case, asked, person)


def _update(incident: Incident, waits_for: timeline.Entry | None) -> None:
    if waits_for is None:
        incident.update("Fixing")
    else:
        incident.update("Identified", f"Waiting for an approval: {waits_for.what}")


def _escalated(asked: timeline.Entry, entries: list[timeline.Entry]) -> bool:
    key = asked.detail["key"]
    return any(entry.kind == "escalated" and entry.detail.get("key") == key for entry in entries)


def _update_due(entries: list[timeline.Entry], now: datetime) -> bool:
    told = [e.at for e in entries if e.kind == "message" and e.detail.get("template") in {"initial", "update"}]
    return bool(told) and now - max(told) >= UPDATES


def _close_dead(incident: Incident, state: State[Any]) -> None:
    """A run that crashed or was cancelled cannot close its own incident."""
    incident.close(
        Outcome(kind="unresolved", summary=f"The run ended as {state.name} before it was through ({state.message}).")
    )


def _as_run(claim: Claim, do: Callable[[Incident], None]) -> None:
    """Do something in the name of an incident's run, on its timeline."""
    site = site_file.load(claim.site)
    timeline.begin(timeline.Run(id=claim.run_id, playbook=claim.playbook, site=site))
    try:
        do(Incident(claim, site))
    finally:
        timeline.end()
