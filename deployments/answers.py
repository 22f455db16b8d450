"""Answer a waiting approval from outside the UI: the command line, and silence, answer with the same call."""

import time
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import SetStateStatus
from pydantic import BaseModel

from blocks.errors import ConfigError
from flows.claims import Claim, open_claims
from tasks import timeline


class Question(BaseModel):
    """An approval that a suspended run waits for."""

    claim: Claim
    asked: timeline.Entry

    @property
    def key(self) -> str:
        """Act and plan hash."""
        return str(self.asked.detail["key"])


def waiting(client: SyncPrefectClient) -> list[Question]:
    """Every approval that is waited for now."""
    questions = []
    for claim in open_claims(client):
        run = client.read_flow_run(claim.run_id)
        if run.state is not None and run.state.is_paused():
            asked = pending(timeline.read(client, claim.run_id))
            questions += [Question(claim=claim, asked=asked)] if asked else []
    return questions


def pending(entries: list[timeline.Entry]) -> timeline.Entry | None:
    """The last question on a timeline, unless it was answered."""
    asked = [entry for entry in entries if entry.kind == "asked"]
    answered = {entry.detail.get("key") for entry in entries if entry.kind == "answered"}
    return asked[-1] if asked and asked[-1].detail.get("key") not in answered else None


def find(client: SyncPrefectClient, run: str) -> Question:
    """The waiting approval of a run, given by its id, the beginning of it, or its name.

    Raises ConfigError, listing what waits, if none or several match.
    """
    questions = waiting(client)
    matching = [q for q in questions if str(q.claim.run_id).startswith(run) or run == _name(client, q)]
    if len(matching) == 1:
        return matching[0]
    rows = ", ".join(f"{q.claim.run_id} ({q.claim.playbook} on {q.claim.site})" for q in questions) or "nothing"
    problem = "is ambiguous" if matching else "does not wait for an approval"
    raise ConfigError(f"{run!r} {problem}.", f"Waiting now: {rows}.")


def answer(client: SyncPrefectClient, run_id: UUID, words: dict[str, Any]) -> None:
    """Resume a suspended run with an answer, which is what its form asks for.

    Prefect answers 200 to a resume that it did not do, so the status in its answer counts. Raises ConfigError if the
    run does not take the answer.
    """
    for _ in range(20):
        result = client.resume_flow_run(run_id, words)
        if result.status == SetStateStatus.ACCEPT:
            return
        why = str(getattr(result.details, "reason", ""))
        if "schema not found" not in why:
            break
        time.sleep(0.5)  # the run has just been suspended, and its form is not stored yet
    raise ConfigError(f"The run {run_id} did not take the answer: {why.rstrip('.')}.", "See `guardia status`.")


def _name(client: SyncPrefectClient, question: Question) -> str:
    run: FlowRun = client.read_flow_run(question.claim.run_id)
    return run.name
