"""An incident as people meet it: they are told when it begins, goes on and ends, and it is written down.

Serves the guide's "Communication Templates" and "Post-Incident".
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import takewhile
from typing import Any

from prefect.artifacts import create_markdown_artifact
from pydantic import BaseModel

from blocks.errors import ConfigError
from blocks.site import Site
from flows.claims import Claim, release, run_url
from tasks import compose, notify, report, timeline
from tasks.http import Outside
from tasks.report import Case, EndsAs, Status
from tasks.steps import once

WEB_IS_STOPPED = (
    "The web service {is_} STOPPED. Retry the run in the Prefect UI: it goes on where it was, and starts it. "
    "Or give it up: `guardia respond site-down` starts it."
)
_TOLD = "told"  # the detail of the entry that keeps what people were told when it began


class Outcome(BaseModel):
    """How a playbook ended, in the words of its record."""

    kind: EndsAs
    summary: str
    root_cause: str = "not yet known"


class Incident:
    """The incident that a playbook works on. Its methods are the lines of the guide that are about people."""

    def __init__(self, claim: Claim, site: Site) -> None:
        self.site = site
        self.case = case_of(claim, site)

    def announce(self, impact: str, affected: str = "All users") -> None:
        """Send the guide's initial notification, once, with what users notice as the impact."""
        if not timeline.planning():
            self.case.affected, self.case.impact = affected, impact
            _announce(self.site, self.case)
            self._remember()

    def update(self, status: Status, note: str = "", *, more: bool = True) -> None:
        """Send the guide's update."""
        if not timeline.planning():
            words = {"status": status, "note": note, "more": more}
            self._tell("update", f"INCIDENT UPDATE - {self.case.severity}: {_name(self.case)}", words)

    def well_again(self, seen: Outside) -> Outcome:
        """The site is healthy at the start: a false alarm, or healed while an approval was awaited."""
        return self.nothing_to_do(f"The site is healthy from outside: {seen.summary}")

    def nothing_to_do(self, seen: str) -> Outcome:
        """All is well at the start: a false alarm, or put right while an approval was awaited."""
        if any(entry.kind == "act" for entry in self._entries()):
            return self.resolved("it came back after what was done before the approval")
        if any(entry.kind == "message" for entry in self._entries()):
            return self.resolved("it came back by itself")
        return Outcome(kind="false alarm", summary=seen)

    def count(self, act: str, *, before: tuple[str, ...] = ()) -> int:
        """How many times an act of this title was done in this run, before the first of those in `before`."""
        done = [entry.what for entry in self._entries() if entry.kind == "act" and entry.ok]
        return list(takewhile(lambda what: what not in before, done)).count(act)

    def resolved(self, how: str) -> Outcome:
        """Healthy from outside several times in a row, thanks to `how`."""
        if timeline.planning():
            return self.unresolved()
        return Outcome(kind="resolved", summary=how, root_cause=f"not yet analysed; {how}")

    def put_right(self, done: str, left: list[str]) -> Outcome:
        """What was wrong inside is right again, but for what is `left`; it was never to be seen from outside."""
        if left and not timeline.planning():
            return Outcome(kind="unresolved", summary=f"{done}. Still wrong: {'; '.join(left)}.")
        return self.resolved(done)

    def unresolved(self, why: str = "Everything that the playbook knows was tried.") -> Outcome:
        """The playbook is at its end and the site is still down."""
        if timeline.planning():
            return Outcome(kind="planned", summary="Nothing was changed: this is what the playbook would do.")
        return Outcome(kind="unresolved", summary=f"The site is still not healthy. {why}")

    def close(self, outcome: Outcome) -> None:
        """Tell people how it ended, write the record, publish it, and let the next alert open a new incident."""
        self.case.closed = datetime.now(UTC)
        if outcome.kind != "resolved" and (is_ := self._web_is_stopped()):
            outcome = outcome.model_copy(update={"summary": f"{outcome.summary} {WEB_IS_STOPPED.format(is_=is_)}"})
        self.case.outcome, self.case.summary = outcome.kind, outcome.summary
        self.case.root_cause = outcome.root_cause
        if outcome.kind == "resolved":
            self._tell("resolution", f"INCIDENT RESOLVED - {self.case.severity}: {_name(self.case)}", {})
        elif outcome.kind in {"unresolved", "refused"}:
            self.update("Identified", f"{outcome.kind.upper()}: {outcome.summary}", more=False)
        timeline.record("closed", outcome.kind, outcome=outcome.summary, ok=outcome.kind != "unresolved")
        self.publish()
        try:
            timeline.record("note", f"the record is {report.write(self.case, self._markdown())}")
        except ConfigError as error:  # the artifact has it; an incident that stays open would be closed again and again
            timeline.record("note", str(error), ok=False)
        release(self.case.site, self.case.playbook, self.case.run_id)

    def hand_over(self, why: str) -> None:
        """Let go of the incident for another one that is open on the site, and tell people."""
        self.update("Identified", why, more=False)
        timeline.record("closed", "attached", outcome=why)
        self.publish()
        release(self.case.site, self.case.playbook, self.case.run_id)

    def publish(self) -> None:
        """Show the record so far as an artifact of the run."""
        key = (
            f"plan-{self.case.site}-{self.case.playbook}"
            if timeline.planning()
            else artifact_key(self.case.site, self.case.playbook)
        )
        create_markdown_artifact(
            key=key,
            markdown=self._markdown(),
            description=f"{self.case.severity} {self.case.section} on {self.case.site}: {self.case.outcome}",
        )

    def _web_is_stopped(self) -> str:
        """Whether it "is still", for the run stopped it last and did not get to start it, or "may still be".

        Stopping it may have failed half-way. Else nothing.
        """
        stop, starts = compose.stop_web.title, (compose.start_web.title, compose.start_web_again.title)
        tried = [e for e in self._entries() if e.kind == "act" and (e.what == stop or (e.ok and e.what in starts))]
        if not tried or tried[-1].what != stop:
            return ""
        return "is still" if tried[-1].ok else "may still be"

    def _remember(self) -> None:
        """What people were told when it began, perhaps by an earlier process of the run, stays what they are told."""
        for entry in self._entries():
            if _TOLD in entry.detail:
                self.case.affected, self.case.impact = entry.detail[_TOLD]
                return

    def _markdown(self) -> str:
        run = timeline.current()
        self._remember()
        return report.markdown(self.case, self._entries(), run.secrets if run else frozenset())

    def _entries(self) -> list[timeline.Entry]:
        run = timeline.current()
        return timeline.whole(run) if run else []

    def _tell(self, template: Any, subject: str, words: dict[str, Any]) -> None:
        self._remember()
        words.setdefault("actions", report.actions(self._entries()))
        body = report.message(template, self.case, **words)
        notify.tell(self.site, self.site.on_call.told(self.case.severity), subject, body, template)


@once("Tell people that it began", by=())
def _announce(site: Site, case: Case) -> None:
    timeline.record("note", f"impact: {case.impact}", detail={_TOLD: [case.affected, case.impact]})
    body = report.message("initial", case)
    subject = f"INCIDENT ALERT - {case.severity}: {_name(case)}"
    notify.tell(site, site.on_call.told(case.severity), subject, body, "initial")


def case_of(claim: Claim, site: Site) -> Case:
    """The facts of an incident for its messages and record."""
    links = [("Sentry", str(site.sentry_url or "")), ("Repository", str(site.github_url or ""))]
    return Case(
        run_id=claim.run_id,
        playbook=claim.playbook,
        section=claim.section,
        severity=claim.severity,
        site=site.name,
        url=str(site.url),
        opened=claim.opened,
        run_url=run_url(claim.run_id),
        links=[(name, link) for name, link in links if link],
    )


def artifact_key(site: str, playbook: str) -> str:
    """The artifact that shows the incident."""
    return f"incident-{site}-{playbook}"


def _name(what: Case) -> str:
    return f"{what.playbook} on {what.site}"
