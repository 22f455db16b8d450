"""Whether the process of a run still lives. Prefect itself never notices that one died with its `guardia up`."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import State
from prefect.states import Crashed

SILENT = timedelta(seconds=120)  # without a heartbeat, which a run sends every 30 s: its process is gone


def bury(client: SyncPrefectClient, run: UUID, state: State[Any], now: datetime, watching_since: datetime) -> bool:
    """Declare a run crashed whose process is gone; whether that was so.

    It must have been silent since before `watching_since`: one that could not reach a stopped server gets its time.
    """
    if now - max(state.timestamp, watching_since) <= SILENT or not _is_dead(client, run, state, now):
        return False
    client.set_flow_run_state(run, Crashed(message="Its process has died."), force=True)
    return True


def _is_dead(client: SyncPrefectClient, run: UUID, state: State[Any], now: datetime) -> bool:
    """Whether a run that should have a process has sent no heartbeat for a while."""
    heartbeats = {
        "event": {"name": ["prefect.flow-run.heartbeat"]},
        "resource": {"id": [f"prefect.flow-run.{run}"]},
        "occurred": {"since": (now - SILENT).isoformat(), "until": now.isoformat()},
    }
    if not (state.is_running() or state.is_pending()):
        return False
    answer = client._client.post("/events/filter", json={"filter": heartbeats, "limit": 1})
    return not answer.raise_for_status().json()["events"]
