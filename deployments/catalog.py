"""Every playbook and job as a deployment: what the Prefect UI shows, the CLI starts, schedules and REST calls.

To add a playbook: the flow, a row here, and a row in the tests.
"""

import logging
from collections.abc import Sequence
from typing import Any

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.schedules import Cron, Schedule
from prefect.types.entrypoint import EntrypointType

from blocks import site_file
from blocks.errors import ConfigError
from flows.backup_failed import backup_failed
from flows.daily_backup import daily_backup
from flows.data_corruption import data_corruption
from flows.database_lost import database_lost
from flows.site_down import site_down
from flows.undo_restore import undo_restore
from flows.verify_backup import verify_backup
from tasks.schedule import NAME

log = logging.getLogger("guardia.catalog")
PLAYBOOKS: dict[str, Flow[..., Any]] = {
    "site-down": site_down,
    "data-corruption": data_corruption,
    "undo-restore": undo_restore,
    "database-lost": database_lost,
    "backup-failed": backup_failed,
}
JOBS: dict[str, Flow[..., Any]] = {"daily-backup": daily_backup, "verify-backup": verify_backup}


def deployments(sites: list[str]) -> list[RunnerDeployment]:
    """One deployment a flow; its form offers the registered sites alone, and the only one is chosen already.

    Jobs run each day, at the hours of the site and in its time zone, for each site that has a bucket.
    """
    jobs = [
        _deployment(flow, sites, [schedule for site in sites for schedule in _daily(site, name)])
        for name, flow in JOBS.items()
    ]
    return [_deployment(flow, sites) for flow in PLAYBOOKS.values()] + jobs


def register(sites: list[str]) -> None:
    """Write the deployments to the server."""
    for deployment in deployments(sites):
        deployment.apply()


def known(playbook: str) -> str:
    """The playbook's name if there is one of that name; ConfigError listing them if not."""
    if playbook not in PLAYBOOKS:
        raise ConfigError(f"There is no playbook {playbook!r}.", f"Known: {', '.join(PLAYBOOKS)}.")
    return playbook


def start(flow: str, site: str, **parameters: Any) -> str:
    """Create a run of a playbook or job; returns its id."""
    with get_client(sync_client=True) as client:
        try:
            deployment = client.read_deployment_by_name(f"{flow}/{NAME}")
        except ObjectNotFound:
            raise ConfigError(f"The server has no deployment {flow}/{NAME}.", "Start `guardia up` first.") from None
        run = client.create_flow_run_from_deployment(deployment.id, parameters={"site": site, **parameters})
    return str(run.id)


def _daily(name: str, job: str) -> list[Schedule]:
    """When a job runs for a site: never without a bucket. A site that cannot be loaded is an alarm of freshness.py."""
    try:
        site = site_file.load(name)
    except ConfigError as error:
        log.error("%s is never started for %s: %s", job, name, error)
        return []
    if site.backups is None:
        return []
    hour, minute = (site.backups.backup_at if job == "daily-backup" else site.backups.verify_at).split(":")
    cron = f"{int(minute)} {int(hour)} * * *"
    return [Cron(cron, timezone=site.timezone, parameters={"site": name}, slug=name)]


def _deployment(flow: Flow[..., Any], sites: list[str], schedules: Sequence[Schedule] = ()) -> RunnerDeployment:
    deployment = flow.to_deployment(
        NAME,
        description=flow.description,
        parameters={"site": sites[0]} if len(sites) == 1 else {},
        tags=["guardia"],
        schedules=list(schedules),
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    assert isinstance(deployment, RunnerDeployment)
    if sites:
        deployment._parameter_openapi_schema.properties["site"]["enum"] = sites
    return deployment
