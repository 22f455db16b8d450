"""What makes a function that reads like the guide a playbook: a Prefect flow with an incident around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

from prefect import Flow, get_run_logger, runtime
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import BaseModel, ValidationError

from blocks import site_file
from blocks.errors import CommandError, ConfigError, GuardiaError, IncidentOpen, Refused
from blocks.on_call import Severity
from blocks.site import Site
from flows.approval import approve, note_answers
from flows.incident import Claim, Incident, Outcome, claim
from flows.named import as_flow
from tasks import compose, http, quiet, swapping, timeline
from tasks.steps import Act

Mode = Literal["respond", "plan"]
Body = Callable[..., Outcome]

STATE_NAMES = {
    "resolved": "Resolved", "false alarm": "False alarm", "refused": "Refused", "unresolved": "Unresolved",
    "planned": "Planned",
}  # fmt: skip


def playbook(
    section: str, severity: Severity, *, wants: type[BaseModel] | None = None
) -> Callable[[Body], Flow[..., Any]]:
    """Make a playbook of the guide's `section`. The body gets the site and the incident and returns how it ended.

    `wants` are further parameters of the flow, which the body gets as a third argument; their descriptions are shown
    by the UI's form.

    The flow takes the site's name, the mode (`plan`: look, print the commands, change nothing) and why it was
    started; the UI's form explains them in the words of its docstring. It ends Completed as Resolved, False alarm,
    Refused, Planned or Attached, or Failed as Unresolved.
    """

    def decorate(body: Body) -> Flow[..., Any]:
        name = body.__name__.replace("_", "-")

        def respond(site: str, mode: Mode = "respond", reason: str = "", **more: Any) -> State[Any]:
            """Respond to it.

            Args:
                site: Which site to look at.
                mode: `respond` heals it and asks before anything that can hurt. `plan` only looks and shows what
                    it would run.
                reason: What you saw or were told, for the incident's record.
            """
            quiet.expected_errors()
            claimed = Claim(
                run_id=runtime.flow_run.id, playbook=name, section=section, severity=severity, site=site,
                opened=datetime.now(UTC),
            )  # fmt: skip
            try:
                whole = partial(body, wanted=wants.model_validate(more)) if wants else body
                return _run(whole, claimed, site_file.load(site), mode, reason)
            except (ConfigError, ValidationError) as error:
                return Failed(name="Bad input", message=str(error))

        return as_flow(respond, body, name, wants)

    return decorate


def carry_out(incident: Incident, act: Act[Any], *inputs: Any) -> None:
    """Ask if it must be asked, and do the act once; raises what it failed with, or Refused."""
    approve(incident, act, incident.site, *inputs)
    act(incident.site, *inputs)


@contextmanager
def service_stopped(incident: Incident) -> Iterator[None]:
    """Stop the web service for the block, and start it after it: also when the block failed or was refused.

    A retry of a run that had started the service again stops it once more. A database that a swap left closed, because
    it was cut off, is opened before the block and, if that failed, after it.
    """
    failed_before = incident.count(compose.start_web_again.title)
    carry_out(incident, compose.stop_web, failed_before + 1)
    try:
        _open_database(incident)
        yield
    except Exception:  # defects too; a suspension is none, and keeps it stopped
        with suppress(GuardiaError):  # what the block failed with says more
            _open_database(incident)
        compose.start_web_again(incident.site, failed_before + 1)
        raise
    compose.start_web(incident.site)


def _open_database(incident: Incident) -> None:
    if not swapping.accepting(incident.site).ok:
        carry_out(incident, swapping.open_again, incident.count(swapping.open_again.title) + 1)


def attempt(incident: Incident, act: Act[Any], *inputs: Any) -> bool:
    """Ask if it must be asked, do the act once, and say whether the site is healthy from outside after it."""
    approve(incident, act, incident.site, *inputs)
    if act.done(incident.site, *inputs):
        return False  # done before this run was resumed, and the site was looked at since
    patience = act.patience or incident.site.recovery_timeout
    try:
        act(incident.site, *inputs)
    except CommandError:
        patience = 2  # it is on the timeline; what it may have done shows soon
    run = timeline.current()
    if run is not None and run.planning:
        return False
    return http.recovery(incident.site, patience).recovered


def _run(body: Body, wanted: Claim, site: Site, mode: Mode, reason: str) -> State[Any]:
    run = timeline.Run(id=wanted.run_id, playbook=wanted.playbook, site=site, planning=mode == "plan")
    timeline.begin(run)
    try:
        held = wanted if run.planning else claim(wanted)
        incident = Incident(held, site)
        if held is not wanted:
            note_answers(run.id)  # what resumed this run
        elif reason:
            timeline.record("note", f"started because: {reason}")
        outcome = _outcome(body, incident, site)
        if run.planning:
            incident.publish()
        else:
            incident.close(outcome)
        return _state(outcome)
    except IncidentOpen as error:
        return Completed(name="Attached", message=str(error))
    finally:
        run.held.close()
        timeline.end()


def _outcome(body: Body, incident: Incident, site: Site) -> Outcome:
    """How the body ended, its errors turned into outcomes; a suspension passes through as it must."""
    try:
        return body(site, incident)
    except Refused as error:
        return Outcome(kind="refused", summary=str(error))
    except GuardiaError as error:
        return Outcome(kind="unresolved", summary=str(error))
    except Exception as error:  # noqa: BLE001 - a defect of our own must not leave an incident open and silent
        get_run_logger().exception("Guardia itself failed")
        return Outcome(kind="unresolved", summary=f"Guardia itself failed: {type(error).__name__}: {error}")


def _state(outcome: Outcome) -> State[Any]:
    make = Failed if outcome.kind == "unresolved" else Completed
    return make(name=STATE_NAMES[outcome.kind], message=outcome.summary)
