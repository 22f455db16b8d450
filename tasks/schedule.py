"""Guardia's own jobs: whether their schedules are active, and how their last runs ended.

Serves the guide's "Backup Failed", steps 1 and 4.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from pydantic import BaseModel

from blocks.site import Site
from tasks.command import Plan
from tasks.steps import act, look

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

NAME = "guardia"  # every deployment is FLOW/guardia
JOBS = ("daily-backup", "verify-backup")
LOOKED_AT = 50  # runs of a deployment, of whichever site, among which the last one of this site is looked for


class Run(BaseModel):
    """How the last run of a job ended."""

    job: str
    ok: bool
    words: str
    at: datetime


class Jobs(BaseModel):
    """The jobs of a site: those that no schedule starts, and how the last run of each ended."""

    paused: list[str] = []
    missing: list[str] = []
    last: list[Run] = []

    @property
    def ok(self) -> bool:
        """All are started by their schedules, and ended well."""
        return not self.paused and not self.missing and all(run.ok for run in self.last)

    @property
    def summary(self) -> str:
        """One line for the timeline."""
        words = [f"{job} has no schedule" for job in self.missing]
        words += [f"the schedule of {job} is paused" for job in self.paused]
        words += [f"{run.job} at {run.at:%Y-%m-%d %H:%M} UTC: {run.words}" for run in self.last]
        return "; ".join(words) or "no job has run yet"


@look("Check Guardia's own backup jobs")
def jobs(site: Site) -> Jobs:
    """Schedules and last runs, as the Prefect server has them. (Backup Failed, steps 1 and 4.)"""
    from prefect.client.orchestration import get_client

    found = Jobs()
    with get_client(sync_client=True) as client:
        for job in JOBS:
            deployment = _deployment(client, job)
            mine = _schedules(deployment, site) if deployment else {}
            if deployment is None or not mine:
                found.missing.append(job)
                continue
            if deployment.paused or not all(mine.values()):
                found.paused.append(job)
            if last := _last_run(client, deployment.id, job, site):
                found.last.append(last)
    return found


def _resume(_plan: Plan, site: Site, found: Jobs) -> str:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        for job in found.paused:
            deployment = _deployment(client, job)
            if deployment is None:
                continue
            if deployment.paused:
                client.resume_deployment(deployment.id)
            for schedule, active in _schedules(deployment, site).items():
                if not active:
                    client.update_deployment_schedule(deployment.id, schedule, active=True)
    return "done"


@act("Resume the backup schedule", gate="schedule", do=_resume, by=("site",))
def resume(site: Site, found: Jobs) -> Plan:
    """Let the schedules start the jobs again. Somebody paused them, maybe for a reason. (Backup Failed, step 4.)"""
    return Plan(
        what=f"Resume the schedule of {' and '.join(found.paused)} for {site.name}",
        where="Guardia itself",
        commands=(),
        cost="None: the job runs at its next time.",
        facts=tuple(f"sets the schedule of {job}/{NAME} active" for job in found.paused),
    )


def _deployment(client: SyncPrefectClient, job: str) -> DeploymentResponse | None:
    from prefect.exceptions import ObjectNotFound

    try:
        return client.read_deployment_by_name(f"{job}/{NAME}")
    except ObjectNotFound:
        return None


def _schedules(deployment: DeploymentResponse, site: Site) -> dict[UUID, bool]:
    """The ids of the schedules that start the job for this site, and whether each is active."""
    return {
        schedule.id: schedule.active
        for schedule in deployment.schedules
        if schedule.parameters.get("site", deployment.parameters.get("site")) == site.name
    }


def _last_run(client: SyncPrefectClient, deployment: UUID, job: str, site: Site) -> Run | None:
    """The newest run for this site that has ended."""
    body = {
        "deployments": {"id": {"any_": [str(deployment)]}},
        "flow_runs": {"state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]}}},
        "sort": "END_TIME_DESC",
        "limit": LOOKED_AT,
    }
    rows = client._client.post("/flow_runs/filter", json=body).raise_for_status().json()
    for row in rows:
        if row["parameters"].get("site") == site.name:
            state = row["state"]
            words = f"{state['name']}: {state.get('message') or 'no reason given'}"
            return Run(job=job, ok=state["type"] == "COMPLETED", words=words, at=row["end_time"] or state["timestamp"])
    return None
