"""The concurrency limits that let one playbook act on a site, and one job of a kind work for it, at a time."""

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from flows.job import job_limit
from tasks.schedule import JOBS
from tasks.steps import acting_limit


def ensure(sites: list[str]) -> None:
    """Make the limits of each site, if they are not there."""
    with get_client(sync_client=True) as client:
        for name in [name for site in sites for name in (acting_limit(site), *(job_limit(job, site) for job in JOBS))]:
            try:
                client.read_global_concurrency_limit_by_name(name)
            except ObjectNotFound:
                try:
                    client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))
                except ObjectAlreadyExists:
                    continue  # another `guardia` was faster
