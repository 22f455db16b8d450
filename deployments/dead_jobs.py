"""Alarm when a job could not tell of its failure itself: its process died, or it failed before it had begun.

Serves the guide's "Backup Failed". `guardia up` runs it beside the flows; that an alarm was sent is on the run's
timeline, so a restart neither loses nor repeats one.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, State

from blocks import site_file
from deployments import heartbeats, rounds
from flows.job import BAD_INPUT, Ended, alarm
from tasks import timeline
from tasks.schedule import JOBS, NAME

EVERY = 10.0  # seconds between two rounds
GRACE = timedelta(seconds=20)  # for somebody who retries the run at once
PAST = timedelta(hours=24)  # what died before is told by the age of the backups
log = logging.getLogger("guardia.dead_jobs")


def watch(stop: threading.Event) -> None:
    """Go round until told to stop."""
    rounds.go(stop, EVERY, partial(round_trip, logged=set()), log)


def round_trip(client: SyncPrefectClient, watching_since: datetime, logged: set[UUID]) -> None:
    """Declare jobs dead whose process is gone, and tell the on-call, once, of each that is.

    `logged` are the runs of which it was logged, once, that they cannot be seen to: each round tries them again.
    """
    now = datetime.now(UTC)
    for job in JOBS:
        for run, state in _runs(client, job, "RUNNING", "PENDING"):
            with _by_itself(job, run, logged):
                heartbeats.bury(client, run.id, state, now, watching_since)
        for run, state in _runs(client, job, "CRASHED", "FAILED"):
            if now - PAST < state.timestamp < now - GRACE and state.name != BAD_INPUT:
                with _by_itself(job, run, logged):
                    _tell(client, job, run, state)


@contextmanager
def _by_itself(job: str, run: FlowRun, logged: set[UUID]) -> Iterator[None]:
    """A run that cannot be seen to does not keep the others from being told."""
    try:
        yield
    except Exception:
        if run.id not in logged:
            log.exception("The run %s of %s cannot be seen to; it is tried again every %s s", run.name, job, EVERY)
        logged.add(run.id)


def _runs(client: SyncPrefectClient, job: str, *states: str) -> list[tuple[FlowRun, State[Any]]]:
    """The newest runs of a job in these states."""
    body: dict[str, Any] = {
        "flows": {"name": {"any_": [job]}},
        "deployments": {"name": {"any_": [NAME]}},
        "flow_runs": {"state": {"type": {"any_": states}}},
        "sort": "EXPECTED_START_TIME_DESC",
        "limit": 50,
    }
    rows = client._client.post("/flow_runs/filter", json=body).raise_for_status().json()
    runs = [FlowRun.model_validate(row) for row in rows]
    return [(run, run.state) for run in runs if run.state is not None]


def _tell(client: SyncPrefectClient, job: str, run: FlowRun, state: State[Any]) -> None:
    """An alarm, unless the timeline says that this end was told already: by this, or by the job before it failed."""
    closed = [entry.at for entry in timeline.read(client, run.id) if entry.kind == "closed"]
    if any(at >= state.timestamp for at in closed) or (closed and state.is_failed()):
        return
    site, when = site_file.load(run.parameters["site"]), f"{state.timestamp:%Y-%m-%d %H:%M} UTC"
    ended = Ended(name=str(state.name), words=f"It ended at {when} before it was through. {state.message}", ok=False)
    timeline.begin(timeline.Run(id=run.id, playbook=job, site=site))
    try:
        timeline.record("closed", ended.name.lower(), outcome=ended.words, ok=False)
        alarm(site, job, ended)
    finally:
        timeline.end()
