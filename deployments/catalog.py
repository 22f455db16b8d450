"""Every playbook as a deployment: what the Prefect UI shows, the CLI starts and REST calls.

To add a playbook: the flow, a row here, and a row in the tests.
"""

from typing import Any

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.types.entrypoint import EntrypointType

from blocks.errors import ConfigError
from flows.site_down import site_down

NAME = "guardia"  # every deployment is FLOW/guardia
PLAYBOOKS: dict[str, Flow[..., Any]] = {"site-down": site_down}


def deployments(sites: list[str]) -> list[RunnerDeployment]:
    """One deployment a playbook; its form offers the registered sites alone, and the only one is chosen already."""
    return [_deployment(flow, sites) for flow in PLAYBOOKS.values()]


def register(sites: list[str]) -> None:
    """Write the deployments to the server."""
    for deployment in deployments(sites):
        deployment.apply()


def known(playbook: str) -> str:
    """The playbook's name if there is one of that name; ConfigError listing them if not."""
    if playbook not in PLAYBOOKS:
        raise ConfigError(f"There is no playbook {playbook!r}.", f"Known: {', '.join(PLAYBOOKS)}.")
    return playbook


def start(playbook: str, site: str, reason: str) -> str:
    """Create a flow run of a playbook; returns its id."""
    with get_client(sync_client=True) as client:
        try:
            deployment = client.read_deployment_by_name(f"{known(playbook)}/{NAME}")
        except ObjectNotFound:
            raise ConfigError(f"The server has no deployment {playbook}/{NAME}.", "Start `guardia up` first.") from None
        run = client.create_flow_run_from_deployment(deployment.id, parameters={"site": site, "reason": reason})
    return str(run.id)


def _deployment(flow: Flow[..., Any], sites: list[str]) -> RunnerDeployment:
    deployment = flow.to_deployment(
        NAME,
        description=flow.description,
        parameters={"site": sites[0]} if len(sites) == 1 else {},
        tags=["guardia"],
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    assert isinstance(deployment, RunnerDeployment)
    if sites:
        deployment._parameter_openapi_schema.properties["site"]["enum"] = sites
    return deployment
