"""The concurrency limits that let one flow at a time act on a site."""

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from tasks.steps import acting_limit


def ensure(sites: list[str]) -> None:
    """Make the limit of each site, if it is not there."""
    with get_client(sync_client=True) as client:
        for site in sites:
            try:
                client.read_global_concurrency_limit_by_name(acting_limit(site))
            except ObjectNotFound:
                try:
                    client.create_global_concurrency_limit(
                        GlobalConcurrencyLimitCreate(name=acting_limit(site), limit=1)
                    )
                except ObjectAlreadyExists:
                    continue  # another `guardia` was faster
