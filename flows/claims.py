"""Who has an incident: one episode of a playbook on a site is one incident, whatever many alerts start.

The claim is a Prefect variable whose creation a second alert loses. Serves the house rule that a second alert attaches
to the open incident.
"""

from __future__ import annotations

from datetime import datetime
from typing import NoReturn
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import VariableCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.utilities.urls import url_for
from pydantic import BaseModel

from blocks.errors import IncidentOpen
from blocks.on_call import Severity
from tasks import timeline

CLAIM_TAG = "guardia-incident"


class Claim(BaseModel):
    """Who has the open incident of a playbook on a site."""

    run_id: UUID
    playbook: str
    section: str
    severity: Severity
    site: str
    opened: datetime


def claim(wanted: Claim) -> Claim:
    """Open the incident, or find it open by this very run (which was resumed).

    Raises IncidentOpen, after a note on its timeline, if another run that still lives has it.
    """
    with get_client(sync_client=True) as client:
        while True:
            holder = _create(client, wanted)
            if holder is None:
                return wanted
            variable_id, found = holder
            if found.run_id == wanted.run_id:
                return found
            if _lives(client, found.run_id):
                _attach(wanted, found)
            _drop(client, variable_id)  # of two that drop a dead claim, one creates the next


def yield_to(wanted: Claim, playbooks: tuple[str, ...]) -> None:
    """Raise IncidentOpen if a run that still lives has an incident of one of these playbooks open on the site."""
    with get_client(sync_client=True) as client:
        for found in open_claims(client):
            if found.site == wanted.site and found.playbook in playbooks and _lives(client, found.run_id):
                _attach(wanted, found)


def _attach(wanted: Claim, found: Claim) -> NoReturn:
    """Let an alert end in the incident that is open: a note on its timeline, and IncidentOpen."""
    note = f"a second alert ({wanted.playbook}, {wanted.run_id}) attached to this incident"
    timeline.send(found.run_id, f"{found.playbook} on {found.site}", timeline.Entry(kind="note", what=note))
    raise IncidentOpen(
        f"{found.playbook} on {found.site} is open since {found.opened:%H:%M:%S} UTC in the run {found.run_id}; "
        "this alert was attached to it.",
        f"Follow {run_url(found.run_id)}",
    )


def holds(wanted: Claim) -> bool:
    """Whether this very run has its incident open already: it was resumed."""
    with get_client(sync_client=True) as client:
        return _own(client, wanted.site, wanted.playbook, wanted.run_id) is not None


def release(site: str, playbook: str, run_id: UUID) -> None:
    """Let go of the incident, if this run has it."""
    with get_client(sync_client=True) as client:
        if variable_id := _own(client, site, playbook, run_id):
            _drop(client, variable_id)


def open_claims(client: SyncPrefectClient) -> list[Claim]:
    """Every incident that is open now."""
    body = {"variables": {"tags": {"all_": [CLAIM_TAG]}}}
    rows = client._client.post("/variables/filter", json=body).raise_for_status().json()
    return [Claim.model_validate(row["value"]) for row in rows]


def claim_name(site: str, playbook: str) -> str:
    """The variable that says who has the incident."""
    return f"guardia-incident-{site}-{playbook}"


def run_url(run_id: UUID) -> str:
    """Where the UI shows a run; its id if the UI's address is not known."""
    return url_for("flow-run", obj_id=run_id) or str(run_id)


def _own(client: SyncPrefectClient, site: str, playbook: str, run_id: UUID) -> UUID | None:
    """The variable that says that this run has the incident, if it does."""
    variable = client.read_variable_by_name(claim_name(site, playbook))
    if variable is None or Claim.model_validate(variable.value).run_id != run_id:
        return None
    return variable.id


def _create(client: SyncPrefectClient, wanted: Claim) -> tuple[UUID, Claim] | None:
    """None if the claim is ours now, else the one that is there."""
    name = claim_name(wanted.site, wanted.playbook)
    while True:
        try:
            client.create_variable(VariableCreate(name=name, value=wanted.model_dump(mode="json"), tags=[CLAIM_TAG]))
        except ObjectAlreadyExists:
            variable = client.read_variable_by_name(name)
            if variable is None:
                continue  # released in between
            return variable.id, Claim.model_validate(variable.value)
        return None


def _drop(client: SyncPrefectClient, variable_id: UUID) -> None:
    """By id, not by name: a claim that came after the dead one stays. Somebody else may have been faster."""
    try:
        client._client.delete(f"/variables/{variable_id}")
    except httpx.HTTPStatusError as error:
        if error.response.status_code != httpx.codes.NOT_FOUND:
            raise


def _lives(client: SyncPrefectClient, run_id: UUID) -> bool:
    try:
        state = client.read_flow_run(run_id).state
    except ObjectNotFound:
        return False
    return state is not None and not state.is_final()
