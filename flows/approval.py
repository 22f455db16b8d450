"""The gate: the only place that waits for a person, and no process waits with it.

The run is suspended with a form that shows the exact plan. The answer is for that plan: after the resume all looks
run afresh, and a plan that is no longer the same is asked about again. Silence is a refusal, after the secondary was
asked too.
"""

import shlex
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Literal, TypeVar, cast, get_args
from uuid import UUID

from prefect import suspend_flow_run
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.input import RunInput, read_flow_run_input
from prefect.input.run_input import keyset_from_base_key
from pydantic import Field

from blocks.errors import Refused
from blocks.on_call import Person
from blocks.site import Site
from flows.incident import Incident
from tasks import notify, report, timeline
from tasks.command import Plan
from tasks.report import Case
from tasks.steps import Act, once

ESCALATE_AFTER = {"P1": 5 * 60, "P2": 30 * 60, "P3": 2 * 3600, "P4": 24 * 3600}  # seconds, the guide's table
NOBODY = "nobody"  # the approver on record when silence answered
REFUSE_AFTER = {"P1": 3600, "P2": 2 * 3600, "P3": 24 * 3600, "P4": 7 * 86400}  # seconds until silence is a refusal
BACKSTOP = 900  # seconds after which Prefect itself fails a run whose silence nobody turned into a refusal


class Answered(RunInput):
    """What every answer says: the decision, who made it, and why."""

    decision: str
    approver: str = Field(title="Your name", min_length=1, max_length=80)
    reason: str = Field(title="Why", default="", max_length=500)


class Answer(Answered):
    """What a person answers to a plan."""

    decision: Literal["approve", "refuse"] = Field(
        description="`approve` does exactly this. `refuse`, or no answer, ends the playbook."
    )
    plan: str = Field(default="", title="Plan", max_length=64, description="What you answer to: leave it as it is.")


A = TypeVar("A", bound=Answered)


def approve(incident: Incident, act: Act[Any], *inputs: Any) -> None:
    """Return once the act may be done: at once if the site's policy says so or it is done already.

    Raises Refused if a person refused or nobody answered in time.
    """
    site = incident.site
    if getattr(site.gates, act.gate) == "none" or act.done(*inputs):
        return
    plan = act.plan(*inputs)
    run = timeline.current()
    if run is not None and run.planning:
        timeline.record("asked", f"would ask for approval to {act.title.lower()}", detail={"hash": plan.hash})
        return
    if act.holds is None or not act.holds(*inputs):
        ask(incident, act.name, plan, Answer)


def ask(incident: Incident, step: str, plan: Plan, form: type[A], **initial: Any) -> A:
    """Suspend the run until a person has filled in the form, which shows the plan; returns the answer.

    A run that was killed after the answer, and retried, is not asked again while the plan is the same.

    `initial` are the form's values to begin with. Raises Refused if the decision is `refuse`, or nobody answered in
    time.
    """
    key, given = _question(incident.case.run_id, step, plan.hash)
    if given is not None:
        return form.model_validate(initial | given)
    _ask(incident.site, incident.case, plan, key, flags(form))
    incident.publish()
    if "plan" in form.model_fields:
        initial["plan"] = plan.hash
    shown = form.with_initial_data(description=form_text(incident.case, incident.site, plan), **initial)
    waits = refuse_after(incident.case, incident.site) + BACKSTOP
    answer = suspend_flow_run(shown, timeout=waits, key=key)
    if answer.decision == "refuse":
        why = f": {answer.reason}" if answer.reason else ""
        raise Refused(f"{plan.what} was refused by {answer.approver}{why}.", "The site was not touched by it.")
    return answer


def form_text(case: Case, site: Site, plan: Plan) -> str:
    """What stands above the form: the plan with its cost, what silence means, why it is asked.

    The UI shows about ten lines of it before it has to be scrolled, so what decides comes first.
    """
    return (
        f"### {plan.what} on {case.site} ({plan.where})?\n\n{plan.markdown}\n\n"
        f"**If nobody answers:** {silence(case, site)}\n\n"
        f"**{case.severity} {case.section}**, seen from outside: {case.impact}\n\n"
        f"What was seen and done so far: artifact `incident-{case.site}-{case.playbook}`. "
        f"The approval is for exactly this plan (`{plan.hash}`)."
    )


def silence(case: Case, site: Site) -> str:
    """What silence means, for the form and the messages."""
    after, until = _span(escalate_after(case, site)), _span(refuse_after(case, site))
    second = site.on_call.secondary
    asked = f"{second.name} is asked after {after}" if second else f"a reminder is sent after {after}"
    return f"{asked}; after {until} it counts as refused, and the playbook ends."


def escalate_after(case: Case, site: Site) -> int:
    """Seconds of silence before the secondary is asked."""
    return site.gates.escalate_after or ESCALATE_AFTER[case.severity]


def refuse_after(case: Case, site: Site) -> int:
    """Seconds of silence that count as a refusal."""
    return site.gates.refuse_after or REFUSE_AFTER[case.severity]


def flags(form: type[Answered]) -> list[str]:
    """What `guardia approve` is given for each answer to a form but refusal: nothing where that is to approve."""
    answers = [answer for answer in get_args(form.model_fields["decision"].annotation) if answer != "refuse"]
    return ["" if answer == "approve" else f"--choose {shlex.quote(answer)} " for answer in answers]


@once("Ask for approval", by=("key",))
def _ask(site: Site, case: Case, plan: Plan, key: str, flags: list[str]) -> None:
    now = datetime.now(UTC)
    asked = timeline.record(
        "asked", f"{site.on_call.primary.name}: {plan.what}?",
        text=report.message("approval", case, plan=plan, silence=silence(case, site), flags=flags),
        detail={
            "key": key,
            "what": plan.what,
            "hash": plan.hash,
            "flags": flags,
            "commands": [command.line for command in plan.commands],
            "cost": plan.cost,
            "escalate_at": (now + timedelta(seconds=escalate_after(case, site))).isoformat(),
            "refuse_at": (now + timedelta(seconds=refuse_after(case, site))).isoformat(),
        },
    )  # fmt: skip
    tell_question(site, case, asked, site.on_call.primary)


def note_answers(run_id: UUID) -> None:
    """Put on the record, when a run is resumed, the answer that resumed it.

    That comes first: the run may find the site healed, or another plan, and never ask again what was answered.
    """
    run = timeline.current()
    entries = timeline.whole(run) if run else []
    answered = {entry.detail["key"] for entry in entries if entry.kind == "answered"}
    for asked in (entry for entry in entries if entry.kind == "asked"):
        key = asked.detail["key"]
        if key not in answered and (stored := _answer_of(run_id, key)):
            who, decision, why = (stored.get(word, "") for word in ("approver", "decision", "reason"))
            astray = _astray(stored, asked.detail["hash"])
            if astray:
                why = f"that was the answer to the plan {stored['plan']}, so it does not count for this one. {why}"
            timeline.record(
                "answered", f"{who}: {decision} {asked.detail['what']}", outcome=why.strip(), at=_resumed(run_id),
                ok=decision != "refuse" and not astray, detail={"key": key, **stored},
            )  # fmt: skip


def _resumed(run_id: UUID) -> datetime:
    """When the answer was given."""
    with get_client(sync_client=True) as client:
        states = client.read_flow_run_states(run_id)
    return max((state.timestamp for state in states if state.name == "Resuming"), default=datetime.now(UTC))


def tell_question(site: Site, case: Case, asked: timeline.Entry, person: Person) -> None:
    """Send the plan, word for word as it was first asked, to somebody who may approve it."""
    subject = f"APPROVAL NEEDED - {case.severity}: {asked.detail['what']} on {case.site}?"
    notify.tell(site, [person], subject, asked.text, "approval")


def _question(run_id: UUID, step: str, plan: str) -> tuple[str, dict[str, Any] | None]:
    """The key of this question, and the approval that a run which was killed since had got for it already.

    When a run that had ended is started again, Prefect keeps the form and would refuse to store it twice: then the
    question has a new key. It keeps the answer too if the retry was forced, as the UI's is, and would take it for the
    new one. What was refused, or was tried and failed, is asked again; so is what somebody answered with the form of
    another plan, which Prefect lets pass.
    """
    with get_client(sync_client=True) as client:
        remembered = client.read_flow_run(run_id).empirical_policy.pause_keys or set()
        states = client.read_flow_run_states(run_id)
        stored = {row.key: row for row in client.filter_flow_run_input(run_id, f"suspended-{step}-{plan}", 200, set())}
    killed, ends = _was_killed(states), [state.timestamp for state in states if state.is_final()]
    for number in count(1):
        candidate = f"{step}-{plan}" if number == 1 else f"{step}-{plan}-{number}"
        keys = keyset_from_base_key(f"suspended-{candidate}")
        form, answer = stored.get(keys["schema"]), stored.get(keys["response"])
        given = answer.decoded_value if answer else None
        if given and _astray(given, plan):
            continue
        if form is None or (candidate in remembered and all(form.created and end < form.created for end in ends)):
            return candidate, None
        if killed and given and given["decision"] != "refuse":
            return candidate, given
    raise AssertionError("count() does not end")


def _astray(answer: dict[str, Any], plan: str) -> bool:
    """Whether it is the answer to another plan: of a form that was opened before this question was asked."""
    return answer.get("plan", "") not in {"", plan}


def _was_killed(states: list[State[Any]]) -> bool:
    """Whether the run's process had died when it was last started again."""
    ends = [state for state in states if state.is_final()]
    return bool(ends) and max(ends, key=lambda state: state.timestamp).is_crashed()


def _answer_of(run_id: UUID, key: str) -> dict[str, Any] | None:
    """What was answered to a question, as Prefect keeps it; None if nothing was."""
    found = read_flow_run_input(keyset_from_base_key(f"suspended-{key}")["response"], flow_run_id=run_id)
    return cast(dict[str, Any] | None, found)


def _span(seconds: int) -> str:
    return f"{seconds // 60} min" if seconds >= 120 and seconds % 60 == 0 else f"{seconds} s"
