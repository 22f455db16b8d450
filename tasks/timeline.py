"""The timeline of an incident: what was seen, run, asked, answered and told, as it happened.

Each entry is a Prefect event of the resource `guardia.incident.<flow run id>`, so that it outlives the process: a
run that was suspended for an approval, or killed, finds its own past there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID, uuid4, uuid5

from pydantic import BaseModel, Field

from blocks.site import Site
from tasks.masking import mask

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

Kind = Literal["look", "act", "command", "asked", "answered", "escalated", "message", "note", "closed"]
log = logging.getLogger("guardia")


class Entry(BaseModel):
    """One thing that happened. `at` is when it began, `seconds` how long it took, `text` its evidence."""

    id: UUID = Field(default_factory=uuid4)
    at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    kind: Kind
    what: str
    outcome: str = ""
    ok: bool = True
    seconds: float | None = None
    changes: bool = False
    text: str = ""
    detail: dict[str, Any] = {}


@dataclass
class Run:
    """The playbook run that the steps belong to. In plan mode (`planning`) nothing is changed or sent."""

    id: UUID
    playbook: str
    site: Site
    planning: bool = False
    entries: list[Entry] = field(default_factory=list)
    secrets: frozenset[str] = frozenset()
    held: ExitStack = field(default_factory=ExitStack)  # what is released when the run ends or is suspended
    acting: bool = False
    ended: int = 0  # how often it had ended before it was started again
    earlier: list[Entry] = field(default_factory=list)  # what processes of this run before this one recorded


_current: ContextVar[Run | None] = ContextVar("guardia_run", default=None)


def current() -> Run | None:
    """The run that the caller is a step of; None outside a playbook."""
    return _current.get()


def planning() -> bool:
    """Whether the current run only plans: nothing may be changed or sent."""
    return (run := current()) is not None and run.planning


def begin(run: Run) -> None:
    """Make this the current run: its steps record on its timeline."""
    _current.set(run)


def recall(run: Run) -> None:
    """Learn what earlier processes of the run did, if it was suspended or killed and goes on now."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        run.ended = sum(state.is_final() for state in client.read_flow_run_states(run.id))
        run.earlier = read(client, run.id)


def end() -> None:
    """There is no current run any more."""
    _current.set(None)


def record(kind: Kind, what: str, *, key: str = "", **fields: Any) -> Entry:
    """Add to the current run's timeline and log and, unless planning, to its events. Outside a run, to nothing.

    `noted` finds it by its `key`.
    """
    run = current()
    if key and run is not None:
        fields["id"] = uuid5(run.id, key)
    for name in fields.keys() & {"outcome", "text"}:  # what came from elsewhere; from here it goes everywhere
        fields[name] = mask(fields[name], run.secrets if run else frozenset())
    began = datetime.now(UTC) - timedelta(seconds=fields.get("seconds") or 0)
    entry = Entry(kind=kind, what=what, **({"at": began} | fields))
    if run is not None:
        run.entries.append(entry)
        for listener in _listeners:
            listener(entry)
        if not run.planning:
            send(run.id, f"{run.playbook} on {run.site.name}", entry)
    return entry


def noted(key: str) -> Entry | None:
    """What the current run, in this process or in one that was killed, recorded under the key; None if it did not."""
    run = current()
    if run is None:
        return None
    wanted = uuid5(run.id, key)
    return next((entry for entry in (*run.entries, *run.earlier) if entry.id == wanted), None)


@contextmanager
def heard_by(listener: Callable[[Entry], None]) -> Iterator[None]:
    """Tell the listener of each entry as it happens, instead of the run's log."""
    before, _listeners[:] = _listeners[:], [listener]
    try:
        yield
    finally:
        _listeners[:] = before


def send(run_id: UUID, name: str, entry: Entry) -> None:
    """Put an entry on a run's timeline on the server. A lost entry is logged, never a reason to stop healing."""
    from prefect.client.orchestration import get_client

    event = {
        "id": str(entry.id),
        "occurred": entry.at.isoformat(),
        "event": f"guardia.{entry.kind}",
        "resource": {"prefect.resource.id": _resource(run_id), "prefect.resource.name": name},
        "related": [{"prefect.resource.id": f"prefect.flow-run.{run_id}", "prefect.resource.role": "flow-run"}],
        "payload": entry.model_dump(mode="json"),
    }
    try:
        with get_client(sync_client=True) as client:
            client._client.post("/events", json=[event]).raise_for_status()
    except Exception as error:  # noqa: BLE001 - whatever it is, the site matters more
        log.warning("The timeline entry %r could not be sent: %s", entry.what, error)


def read(client: SyncPrefectClient, run_id: UUID) -> list[Entry]:
    """A run's timeline so far, oldest first, as the server has it."""
    query: dict[str, Any] = {
        "filter": {
            "resource": {"id": [_resource(run_id)]},
            "occurred": {"since": "2000-01-01T00:00:00Z", "until": "2999-01-01T00:00:00Z"},
            "order": "ASC",
        },
        "limit": 50,
    }
    entries: list[Entry] = []
    response = client._client.post("/events/filter", json=query)
    while True:
        response.raise_for_status()
        page = response.json()
        entries += [Entry.model_validate(event["payload"]) for event in page["events"]]
        if not page.get("next_page"):
            return entries
        response = client._client.get(page["next_page"])


def whole(run: Run) -> list[Entry]:
    """The current run's timeline with what earlier processes of the same run recorded, oldest first."""
    from prefect.client.orchestration import get_client

    known = {entry.id: entry for entry in run.entries}
    if not run.planning:
        with get_client(sync_client=True) as client:
            known = {entry.id: entry for entry in read(client, run.id)} | known
    return sorted(known.values(), key=lambda entry: entry.at)


def _resource(run_id: UUID) -> str:
    return f"guardia.incident.{run_id}"


def _log(entry: Entry) -> None:
    from prefect.exceptions import MissingContextError
    from prefect.logging import get_run_logger

    try:
        logger: Any = get_run_logger()
    except MissingContextError:
        logger = log  # on behalf of a run that waits, or has died
    took = f" ({entry.seconds:.1f} s)" if entry.seconds is not None else ""
    level = logging.INFO if entry.ok else logging.WARNING
    logger.log(level, "%s: %s%s%s", entry.kind, entry.what, f" — {entry.outcome}" if entry.outcome else "", took)


_listeners: list[Callable[[Entry], None]] = [_log]
