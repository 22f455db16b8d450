"""What makes a function that reads like the guide a playbook: a Prefect flow with an incident around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from itertools import count
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
from flows.claims import Claim, claim, holds, yield_to
from flows.incident import Incident, Outcome
from flows.named import as_flow
from tasks import bucket, compose, http, quiet, rescuing, swapping, timeline
from tasks.steps import Act

Mode = Literal["respond", "plan"]
Body = Callable[..., Outcome]

WEB_STOPPED = ("data-corruption", "undo-restore")  # playbooks that keep the web service stopped while they ask
STATE_NAMES = {
    "resolved": "Resolved", "false alarm": "False alarm", "refused": "Refused", "unresolved": "Unresolved",
    "planned": "Planned",
}  # fmt: skip


def playbook(
    section: str, severity: Severity, *, wants: type[BaseModel] | None = None, yields_to: tuple[str, ...] = ()
) -> Callable[[Body], Flow[..., Any]]:
    """Make a playbook of the guide's `section`. The body gets the site and the incident and returns how it ended.

    `wants` are further parameters of the flow, which the body gets as a third argument; their descriptions are shown
    by the UI's form. While an incident of a playbook that this one `yields_to` is open on the site, an alert attaches
    to that: it has stopped the web service on purpose, and starting it would let writes in.

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
                return _run(whole, claimed, site_file.load(site), mode, reason, yields_to=yields_to)
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

    If somebody has started it meanwhile, while an approval was awaited or after this run had died, it is stopped once
    more: another try, which must not rest on what was seen before. A database that a swap left closed, because it was
    cut off, is opened before the block and, if that failed, after it.

    Raises ConfigError, before anything is stopped, for a site without backups: the block needs them.
    """
    site = incident.site
    bucket.store(site)
    if compose.start_web.done(site):  # the block was through before this run was resumed
        yield
        return
    stopped = incident.count(compose.stop_web.title) > incident.count(compose.start_web_again.title)
    number = _another(compose.stop_web, site)
    if not stopped:
        approve(incident, compose.stop_web, site, number)
    try:
        if not stopped:
            compose.stop_web(site, number)  # it may fail half-way
        elif not compose.web_state(site).ok:
            carry_out(incident, compose.stop_web, number)
        _open_database(incident)
        yield
    except Exception:  # defects too; a suspension is none, and keeps it stopped
        with suppress(Exception):  # what the block failed with says more
            _open_database(incident)
        compose.start_web_again(site, _another(compose.start_web_again, site))
        raise
    compose.start_web(site)


def tries(incident: Incident) -> int:
    """How often writes were stopped before data was put in place. What was seen and saved in an earlier try is stale:
    the site was open to writes since.
    """
    acted = (swapping.swap_in.title, swapping.swap_back.title, rescuing.put_back.title)
    return max(1, incident.count(compose.stop_web.title, before=acted))


def _open_database(incident: Incident) -> None:
    if not swapping.accepting(incident.site).ok:
        carry_out(incident, swapping.open_again, _another(swapping.open_again, incident.site))


def _another(act: Act[Any], site: Site) -> int:
    """The number of an attempt that this run has not made yet."""
    return next(number for number in count(1) if not act.done(site, number))


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
    return recovered(incident, patience)


def recovered(incident: Incident, patience: int) -> bool:
    """Whether the site is healthy from outside within so many seconds; in plan mode nothing was done that heals."""
    return not timeline.planning() and http.recovery(incident.site, patience).recovered


def _run(body: Body, wanted: Claim, site: Site, mode: Mode, reason: str, *, yields_to: tuple[str, ...]) -> State[Any]:
    run = timeline.Run(id=wanted.run_id, playbook=wanted.playbook, site=site, planning=mode == "plan")
    timeline.begin(run)
    try:
        timeline.recall(run)
        if not run.planning:
            yield_to(wanted, yields_to)
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
        if not run.planning and holds(wanted):  # it waited for an answer when the other incident was opened
            note_answers(run.id)
            Incident(wanted, site).hand_over(str(error))
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
