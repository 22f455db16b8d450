"""Show runs on the terminal: their steps as they happen, what waits for an answer, what is open."""

import os
import time
from typing import Any
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from blocks import site_file
from blocks.errors import ConfigError
from deployments import answers
from flows.claims import open_claims
from tasks import timeline

_MARKS = {"look": "·", "act": "▶", "asked": "?", "answered": "✎", "escalated": "!", "message": "✉",
          "note": " ", "closed": "■"}  # fmt: skip


LATE = 20  # seconds after which a run that nobody picks up is worth a word


def follow(run_id: str, console: Console) -> int:
    """Print a run's timeline as it grows. Returns 0 if the run ended well, 1 if not."""
    seen: set[UUID] = set()
    told_waiting, told_late, started = False, False, time.monotonic()
    with get_client(sync_client=True) as client:
        console.print(f"Run {run_id}: {ui(f'/runs/flow-run/{run_id}')}")
        final = False
        while True:
            run = client.read_flow_run(UUID(run_id))
            entries = timeline.read(client, run.id)
            for entry in entries:
                if entry.id not in seen:
                    seen.add(entry.id)
                    print_entry(entry, console)
            if final:
                return _ended(run, console)
            final = run.state is not None and run.state.is_final()
            asked = answers.pending(entries) if run.state is not None and run.state.is_paused() else None
            if asked and not told_waiting:
                console.print(f"[bold yellow]Waiting for an approval.[/] {_how(run_id, asked)} --as YOUR-NAME")
            told_waiting = asked is not None
            scheduled = run.state is None or run.state.is_scheduled()
            if scheduled and not seen and not told_late and time.monotonic() - started > LATE:
                told_late = True
                console.print("[yellow]Nothing has picked the run up yet.[/] Is `guardia up` running?")
            time.sleep(1 if final else 0.5)  # the server stores the last entries a moment after they were sent


def plan(playbook: Flow[..., Any], site: str, console: Console) -> None:
    """Run a playbook in plan mode in this process and print what it saw and would do."""
    with timeline.heard_by(lambda entry: print_entry(entry, console)):
        state: State[Any] = playbook(site, mode="plan", return_state=True)  # type: ignore[assignment]
    console.print(f"[bold]{state.name}[/]: {escape(state.message or '')}")
    if state.is_failed():
        raise ConfigError(state.message or "The plan could not be made.")


def answer(run: str, words: dict[str, Any], plan_hash: str | None, console: Console) -> None:
    """Show the plan that a run waits with, and answer it."""
    with get_client(sync_client=True) as client:
        question = answers.find(client, run)
        if plan_hash and question.asked.detail["hash"] != plan_hash:
            raise ConfigError(
                f"The run now asks about the plan {question.asked.detail['hash']}, not {plan_hash}.",
                "Read the new plan with `guardia approve` and answer that.",
            )
        console.print(escape(question.asked.text))
        if question.asked.detail.get("flags", [""]) == [""]:  # what may be chosen is no plan yet
            words = {**words, "plan": question.asked.detail["hash"]}
        answers.answer(client, question.claim.run_id, words)
    said = {"approve": "Approved", "refuse": "Refused"}.get(words["decision"], words["decision"].capitalize())
    console.print(f"[bold]{said}[/] by {escape(words['approver'])}.")


def show_waiting(console: Console) -> None:
    """Print every plan that waits for an answer."""
    with get_client(sync_client=True) as client:
        questions = answers.waiting(client)
    for question in questions:
        console.rule(f"{question.claim.playbook} on {question.claim.site}")
        console.print(escape(question.asked.text))
    if not questions:
        console.print("Nothing waits for an approval.")


def show_status(console: Console) -> None:
    """Print server, sites and open incidents."""
    with get_client(sync_client=True) as client:
        client.hello().raise_for_status()
        console.print(f"Prefect UI  {ui('/')}")
        console.print(
            f"Sites       {', '.join(site_file.names()) or 'none; register one with `guardia apply site.toml`'}"
        )
        claims = open_claims(client)
        if not claims:
            console.print("Incidents   none open")
            return
        table = Table("severity", "playbook", "site", "opened (UTC)", "state", "run")
        for claim in claims:
            run = client.read_flow_run(claim.run_id)
            state = run.state.name if run.state else "?"
            table.add_row(claim.severity, claim.playbook, claim.site, f"{claim.opened:%H:%M:%S}", state, str(run.id))
        console.print(table)
        for question in answers.waiting(client):
            how = _how(str(question.claim.run_id), question.asked)
            console.print(f"[yellow]Waits:[/] {escape(question.asked.what)}  {how}")


def print_entry(entry: timeline.Entry, console: Console) -> None:
    """One line of a timeline, and the commands of a plan below it; commands that were run only if they change."""
    if entry.kind == "command" and not entry.changes:
        return
    style = "default" if entry.ok else "red"
    outcome = f" [dim]—[/] {escape(entry.outcome)}" if entry.outcome else ""
    took = f" [dim]{entry.seconds:.1f} s[/]" if entry.seconds is not None else ""
    mark = _MARKS.get(entry.kind, "$")
    console.print(f"[dim]{entry.at:%H:%M:%S}[/] {mark} [{style}]{escape(entry.what)}[/]{outcome}{took}")
    for line in entry.detail.get("commands", []):
        console.print(f"           [bold]{escape(line)}[/]")
    if entry.detail.get("cost"):
        console.print(f"           [dim]cost: {escape(entry.detail['cost'])}[/]")


def ui(path: str) -> str:
    """An address in the Prefect UI."""
    return os.environ["PREFECT_API_URL"].removesuffix("/api") + path


def _how(run_id: str, asked: timeline.Entry) -> str:
    """The command that answers a question, with what may be chosen."""
    flags = " or ".join(flag.strip() for flag in asked.detail.get("flags", []) if flag)
    return " ".join(["guardia approve", run_id[:8], *([flags] if flags else []), f"--plan {asked.detail['hash']}"])


def _ended(run: FlowRun, console: Console) -> int:
    assert run.state is not None
    good = run.state.is_completed()
    colour = "green" if good else "red"
    console.print(f"[bold {colour}]{run.state.name}[/]: {escape(run.state.message or '')}")
    return 0 if good and run.state.name != "Refused" else 1
