"""What makes a function a job: a flow that nobody has to approve, and whose failure is an alarm of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

from prefect import Flow, get_run_logger, runtime
from prefect.client.schemas.objects import State
from prefect.concurrency.sync import concurrency
from prefect.states import Completed, Failed
from pydantic import BaseModel

from blocks import site_file
from blocks.errors import Busy, ConfigError, GuardiaError
from blocks.site import Site
from flows.named import as_flow
from tasks import notify, quiet, timeline

BAD_INPUT = "Bad input"  # the state of a run that its parameters or the site's blocks kept from beginning
WAIT = 3600  # seconds to wait for another job of the same kind on the site


class Ended(BaseModel):
    """How a job ended: the name of its state, what to say, and whether it is good news."""

    name: str
    words: str
    ok: bool = True


def job_limit(job: str, site: str) -> str:
    """The concurrency limit that lets one job of a kind at a time work for a site."""
    return f"guardia-{job}-{site}"


def job(*, wants: type[BaseModel] | None = None) -> Callable[[Callable[..., Ended]], Flow[..., Any]]:
    """Make a job. The body gets the site, and `wants` as the playbooks do, and returns how it ended.

    A job that fails, in whatever way, is an alarm; so is one that ends as not ok. Only of a site whose blocks cannot
    be loaded deployments/freshness.py tells.
    """

    def decorate(body: Callable[..., Ended]) -> Flow[..., Any]:
        name = body.__name__.replace("_", "-")

        def work(site: str, **more: Any) -> State[Any]:
            """Do the job.

            Args:
                site: Which site to do it for.
            """
            quiet.expected_errors()
            try:
                found = site_file.load(site)
                inputs = (wants.model_validate(more),) if wants else ()
            except (ConfigError, ValueError) as error:
                return Failed(name=BAD_INPUT, message=str(error))
            run = timeline.Run(id=UUID(runtime.flow_run.id), playbook=name, site=found)
            timeline.begin(run)
            try:
                ended = _ended(partial(body, found, *inputs), run)
                timeline.record("closed", ended.name.lower(), outcome=ended.words, ok=ended.ok)
                if not ended.ok:
                    alarm(found, name, ended)
            finally:
                timeline.end()
            return (Completed if ended.ok else Failed)(name=ended.name, message=ended.words)

        return as_flow(work, body, name, wants)

    return decorate


def _ended(body: Callable[[], Ended], run: timeline.Run) -> Ended:
    limit = job_limit(run.playbook, run.site.name)
    try:
        timeline.recall(run)
        with concurrency(limit, strict=True, timeout_seconds=WAIT, lease_duration=60):
            return body()
    except TimeoutError:
        return Ended(name="Failed", words=str(Busy(f"Another {run.playbook} has been working for {WAIT} s.")), ok=False)
    except GuardiaError as error:
        return Ended(name="Failed", words=str(error), ok=False)
    except Exception as error:  # noqa: BLE001 - a defect of our own must not be silent either
        get_run_logger().exception("Guardia itself failed")
        return Ended(name="Failed", words=f"Guardia itself failed: {type(error).__name__}: {error}", ok=False)


def alarm(site: Site, name: str, ended: Ended) -> None:
    """Tell the primary on-call, or else the secondary, of a job that did not end well."""
    body = (
        f"{name} on {site.name}: {ended.name}\n\n{ended.words}\n\n"
        "See what is there with `guardia backups`; start the playbook with `guardia respond backup-failed`.\n"
    )
    notify.alarm(site, f"ALARM - {name} on {site.name}: {ended.name}", body)
