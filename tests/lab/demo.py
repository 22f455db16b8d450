"""A practice VPS is broken twice, and Guardia heals it: once by itself, once after an approval.

Everything that the demo starts it also stops; the incident records stay in ./incidents.
"""

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.policy import default
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console
from rich.markup import escape

from tests.lab import faults
from tests.lab.home import LabError
from tests.lab.outside import see
from tests.lab.served import SITE, Guardia
from tests.lab.stage import NAME, stage
from tests.lab.vps import PracticeVps

FAULTS = ("web-stopped", "docker-wedged")  # one that heals by itself, one that needs an approval
console = Console(soft_wrap=True, highlight=False)
app = App(name="python -m tests.lab.demo", help=__doc__, version_flags=[])


@app.default
def demo(
    *,
    end: Annotated[bool, Parameter("--exit", negative="", help="Approve by itself and end by itself.")] = False,
    fault: Annotated[str, Parameter(help="Break only this; `python -m tests.lab faults` lists them.")] = "",
    sales: Annotated[int, Parameter(help="How many sales the practice shop has.")] = 100_000,
) -> None:
    """Break a practice VPS and watch Guardia heal it. Exit status 0 if everything was healed, else 1."""
    if fault and fault not in faults.FAULTS:
        raise LabError(f"there is no fault {fault!r}; there are: {', '.join(faults.FAULTS)}")
    console.rule("A practice VPS (Debian, Docker Compose, a shop) and Guardia")
    with stage(sales, lambda line: console.print(f"[dim]{escape(line)}[/]")) as (vps, guardia):
        console.print(f"Prefect UI: [bold]{guardia.ui}[/]   Site file: {guardia.folder}/site.toml")
        healed = all(_incident(each, vps, guardia, end) for each in ([fault] if fault else FAULTS))
        console.rule("[bold green]Healed[/]" if healed else "[bold red]NOT healed[/]")
        if not end:
            console.print(f"All of it keeps running until Ctrl-C. In the Prefect UI: {guardia.ui}/runs")
            console.print(f"In another terminal:\n  .venv/bin/python -m tests.lab break web-hung --name {NAME}")
            console.print(f"  {_command('plan site-down')}\n  {_command('respond site-down')}")
            with suppress(KeyboardInterrupt):
                signal.pause()
    sys.exit(0 if healed else 1)


def _incident(fault: str, vps: PracticeVps, guardia: Guardia, end: bool) -> bool:
    """Break it, respond, show what happened; whether the site is healthy from outside after it."""
    from deployments.follow import follow  # Prefect reads its settings when it is imported

    console.rule(f"Incident: {fault}")
    console.print(f"From outside the site is {_seen(vps)}. Now: {faults.FAULTS[fault].what_breaks}")
    faults.inject(vps, fault)
    broken = datetime.now(UTC)
    console.print(f"From outside the site is {_seen(vps)}. The playbook is started over REST, as an alert would:")
    run = guardia.start("site-down", reason=f"the demo broke it: {fault}")
    threading.Thread(target=_answer, args=(guardia, run, end), daemon=True).start()
    good = follow(run, console) == 0
    _show(vps, guardia, run, broken)
    return good and see(vps.https_port, vps.ca_file).healthy


def _answer(guardia: Guardia, run: str, end: bool) -> None:
    """Whenever the run asks for an approval: give it on the command line, or say how a person can."""
    while guardia.wait_for_gate(run, 2 * 3600)["type"] == "PAUSED":
        time.sleep(1)  # so that the question is on the screen first
        if end:
            console.print(f"[bold yellow]--exit answers:[/] guardia approve {run[:8]} --as demo")
            said = guardia.command("approve", run, "--as", "demo", "--reason", "make demo --exit")
            if said.returncode:
                raise LabError(f"the approval failed: {said.stderr}")
        else:
            console.print("[bold yellow]It is your turn.[/] Read the plan and approve or refuse it, in the Prefect UI")
            console.print(f"  {guardia.ui}/runs/flow-run/{run}   (the button Resume)\nor in another terminal")
            console.print(f"  {_command(f'approve {run[:8]} --as YOUR-NAME')}")
            guardia.wait(run, lambda state: state["type"] != "PAUSED", 2 * 3600)


def _show(vps: PracticeVps, guardia: Guardia, run: str, broken: datetime) -> None:
    """What is left of it, and where."""
    waits = [entry for entry in guardia.timeline(run) if entry["what"].startswith("Wait for the site")]
    took = [datetime.fromisoformat(w["at"]) + timedelta(seconds=w["seconds"]) - broken for w in waits if w["ok"]]
    resolve = f"--cacert {vps.ca_file} --resolve ferreteria.test:{vps.https_port}:127.0.0.1"
    console.print(f"\n[bold]From outside[/]  {_seen(vps)}" + (f", {took[-1].seconds} s after it broke" if took else ""))
    console.print(f"[bold]Record[/]        {guardia.records()[-1] if guardia.records() else 'none'}")
    console.print(f"[bold]Run[/]           {guardia.ui}/runs/flow-run/{run}")
    console.print(f"[bold]Artifact[/]      {guardia.ui}/artifacts/key/incident-{SITE}-site-down")
    console.print(f"[bold]Site[/]          curl {resolve} {vps.site_url}/health")
    console.print(f"[bold]Mailbox[/]       {vps.mail}/new")
    for path in sorted((vps.mail / "new").iterdir()):
        message = message_from_bytes(path.read_bytes(), policy=default)
        if message["Date"].datetime >= broken.replace(microsecond=0):
            console.print(f"              [dim]to {message['To']}:[/] {escape(message['Subject'])}")


def _command(words: str) -> str:
    return f"GUARDIA_HOME={os.environ['GUARDIA_HOME']} .venv/bin/guardia {words}"


def _seen(vps: PracticeVps) -> str:
    seen = see(vps.https_port, vps.ca_file)
    return "[bold green]healthy[/]" if seen.healthy else f"[bold red]down ({seen.status or escape(seen.text)})[/]"


if __name__ == "__main__":
    for sign in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, signal.default_int_handler)  # so that all is stopped, as after Ctrl-C
    try:
        app()
    except LabError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
