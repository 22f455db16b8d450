"""The site-down playbook, served and started over REST, against a practice VPS that is really broken."""

import mailbox
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.lab import faults
from tests.lab.served import SITE, Guardia, served, site_file
from tests.lab.vps import PracticeVps, wait_healthy

pytestmark = [pytest.mark.lab, pytest.mark.timeout(420)]

RESTART, PRUNE, REBOOT = "Restart all services", "Delete unused Docker data", "Reboot the VPS"
ASK_BEFORE_RESTART = {"gates_restart": '"ask"'}  # the quickest gate there is
ROWS: list[tuple[str, str, str, str]] = []  # fault, path taken, gates asked, seconds to healthy from outside


@pytest.fixture(scope="module")
def guardia(machine: PracticeVps, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guardia]:
    with served(machine, tmp_path_factory.mktemp("guardia")) as running:
        yield running


@pytest.fixture
def settings(vps: PracticeVps, guardia: Guardia) -> Iterator[Callable[..., None]]:
    """Apply the site file with other settings, as an operator would; the old ones come back after the test."""

    def apply(**changed: str) -> None:
        done = guardia.command("apply", str(site_file(vps, guardia.folder, store=None, **changed)))
        assert done.returncode == 0, done.stderr

    yield apply
    apply()


def approve(guardia: Guardia, run: str, decision: str = "approve", reason: str = "") -> None:
    words = ["approve", run, "--as", "Ana", "--reason", reason]
    done = guardia.command(*words, *(["--refuse"] if decision == "refuse" else []))
    assert done.returncode == 0, done.stdout + done.stderr


def asked(guardia: Guardia, run: str) -> list[dict[str, Any]]:
    return [entry for entry in guardia.timeline(run) if entry["kind"] == "asked"]


def answers(guardia: Guardia, run: str) -> list[tuple[str, str]]:
    """Who answered what, in order."""
    said = [entry for entry in guardia.timeline(run) if entry["kind"] == "answered"]
    return [(entry["detail"]["approver"], entry["detail"]["decision"]) for entry in said]


def seconds_to_healthy(entries: list[dict[str, Any]]) -> float:
    """From the flow's first step to healthy from outside several times in a row, waits for a person included."""
    recovered = [e for e in entries if e["what"].startswith("Wait for the site") and e["ok"]]
    begin, end = datetime.fromisoformat(entries[0]["at"]), datetime.fromisoformat(recovered[-1]["at"])
    return (end - begin).total_seconds() + float(recovered[-1]["seconds"])


def last_record(guardia: Guardia) -> str:
    return guardia.records()[-1].read_text()


def open_incidents(guardia: Guardia) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = guardia.post(
        "/variables/filter", {"variables": {"tags": {"all_": ["guardia-incident"]}}}
    )
    return found


def mails(vps: PracticeVps, word: str) -> list[str]:
    """Who got a mail with this word in its subject."""
    return [str(mail["To"]) for mail in mailbox.Maildir(vps.mail, create=False) if word in str(mail["Subject"])]


def settled(guardia: Guardia, run: str, seconds: float = 240) -> dict[str, Any]:
    state = guardia.wait(run, seconds=seconds)
    time.sleep(1)  # the server stores the last entries of the timeline a moment after they were sent
    assert open_incidents(guardia) == [], "the incident was left open"
    return state


@pytest.mark.parametrize(
    ("fault", "path", "within"),
    [
        ("web-stopped", [RESTART], 20),
        ("web-hung", [RESTART], 60),
        ("nginx-broken", [RESTART], 60),
        ("all-stopped", [RESTART], 40),
        ("memory-runaway", [RESTART], 90),
        ("disk-full", [RESTART, PRUNE], 240),
        ("docker-wedged", [RESTART, REBOOT], 240),
    ],
)
def test_a_broken_site_is_healed(
    vps: PracticeVps, guardia: Guardia, fault: str, path: list[str], within: float
) -> None:
    faults.inject(vps, fault)
    before = vps.boot_id()
    run = guardia.start(reason=f"the fault {fault}")
    while (state := guardia.wait_for_gate(run))["type"] == "PAUSED":
        approve(guardia, run)
        guardia.wait(run, lambda now: now["type"] != "PAUSED")
    entries = guardia.timeline(run)
    state = settled(guardia, run)
    assert state["name"] == "Resolved", (state, entries)
    wait_healthy(vps, 5)
    acts = guardia.acts(run)
    assert acts[: len(path)] == path
    assert set(acts) <= {*path}, "it did more than the fault asked for"
    assert (vps.boot_id() != before) == (REBOOT in path)
    gates = [entry["what"].removeprefix("Ana: ") for entry in asked(guardia, run)]
    assert len(gates) == len([act for act in path if act != RESTART])
    took = seconds_to_healthy(guardia.timeline(run))
    ROWS.append((fault, " → ".join(acts), ", ".join(gates) or "none", f"{took:.1f}"))
    assert took <= within


def test_a_healthy_site_is_a_false_alarm_and_nobody_is_told(vps: PracticeVps, guardia: Guardia) -> None:
    told, mark = len(mails(vps, "INCIDENT")), vps.audit()
    run = guardia.start()
    assert settled(guardia, run)["name"] == "False alarm"
    assert guardia.acts(run) == []
    assert len(mails(vps, "INCIDENT")) == told
    assert mark.changes() == []
    assert "**false alarm**" in last_record(guardia)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("unreachable", "cannot be reached over SSH"),
        ("ssh-key-refused", "refused the SSH key"),
        ("host-key-changed", "shows another host key"),
    ],
)
def test_a_machine_that_cannot_be_reached_ends_the_playbook_with_the_cure(
    vps: PracticeVps, guardia: Guardia, fault: str, says: str
) -> None:
    faults.inject(vps, "web-stopped")
    faults.inject(vps, fault)
    told = len(mails(vps, "INCIDENT UPDATE"))
    run = guardia.start()
    state = settled(guardia, run)
    assert (state["type"], state["name"]) == ("FAILED", "Unresolved")
    assert says in state["message"]
    assert guardia.acts(run) == []
    assert says in last_record(guardia)
    assert len(mails(vps, "INCIDENT UPDATE")) == told + 3, "the on-call and the stakeholders hear that it is not solved"


def test_a_refused_reboot_leaves_the_machine_alone_and_the_reason_on_record(vps: PracticeVps, guardia: Guardia) -> None:
    faults.inject(vps, "docker-wedged")
    before = vps.boot_id()
    run = guardia.start()
    assert guardia.wait_for_gate(run)["name"] == "Suspended"
    approve(guardia, run, "refuse", "a migration is running")
    state = settled(guardia, run)
    assert (state["type"], state["name"]) == ("COMPLETED", "Refused")
    assert "Ana: a migration is running" in state["message"]
    assert "refused by Ana: a migration is running" in last_record(guardia)
    assert vps.boot_id() == before


def test_silence_is_escalated_and_then_a_refusal(
    vps: PracticeVps, guardia: Guardia, settings: Callable[..., None]
) -> None:
    settings(**ASK_BEFORE_RESTART, gates_escalate_after="2", gates_refuse_after="8")
    faults.inject(vps, "web-stopped")
    mark, to_bruno = vps.audit(), mails(vps, "APPROVAL NEEDED").count("bruno@ferreteria.test")
    run = guardia.start()
    assert guardia.wait_for_gate(run)["name"] == "Suspended"
    state = settled(guardia, run)
    assert (state["type"], state["name"]) == ("COMPLETED", "Refused")
    assert "nobody answered within" in state["message"]
    assert [e["what"] for e in guardia.timeline(run) if e["kind"] == "escalated"] == ["Bruno is asked too"]
    assert mails(vps, "APPROVAL NEEDED").count("bruno@ferreteria.test") == to_bruno + 1
    assert mark.changes() == []
    assert mark.events() == []


def test_an_approval_is_for_the_plan_it_showed_and_another_plan_is_asked_about_again(
    vps: PracticeVps, guardia: Guardia
) -> None:
    faults.inject(vps, "disk-full")
    run = guardia.start()
    assert guardia.wait_for_gate(run)["name"] == "Suspended"
    vps.shell("docker create --name somebody-elses ferreteria/base true")
    approve(guardia, run)
    guardia.wait(run, lambda state: state["type"] != "PAUSED")
    assert guardia.wait_for_gate(run)["name"] == "Suspended", "the plan changed, and nobody was asked again"
    time.sleep(1)
    first, second = asked(guardia, run)
    assert "somebody-elses" not in first["text"]
    assert "deletes the stopped container somebody-elses" in second["text"]
    old = guardia.command("approve", run, "--as", "Ana", "--plan", first["detail"]["hash"])
    assert old.returncode == 1
    assert "now asks about the plan" in old.stderr
    approve(guardia, run)
    assert settled(guardia, run)["name"] == "Resolved"
    assert len(asked(guardia, run)) == 2
    assert answers(guardia, run) == [("Ana", "approve")] * 2
    assert guardia.acts(run).count(PRUNE) == 1


def test_a_site_that_heals_itself_while_an_approval_waits_is_left_alone(
    vps: PracticeVps, guardia: Guardia, settings: Callable[..., None]
) -> None:
    settings(**ASK_BEFORE_RESTART)
    faults.inject(vps, "web-stopped")
    run = guardia.start()
    assert guardia.wait_for_gate(run)["name"] == "Suspended"
    faults.heal(vps)
    mark = vps.audit()
    approve(guardia, run)
    assert settled(guardia, run)["name"] == "Resolved"
    assert guardia.acts(run) == []
    assert answers(guardia, run) == [("Ana", "approve")], "who answered what stays on the record"
    assert mark.changes() == []


def test_a_resume_with_a_bad_answer_is_rejected_and_the_run_goes_on_waiting(
    vps: PracticeVps, guardia: Guardia, settings: Callable[..., None]
) -> None:
    settings(**ASK_BEFORE_RESTART)
    faults.inject(vps, "web-stopped")
    run = guardia.start()
    assert guardia.wait_for_gate(run)["name"] == "Suspended"
    time.sleep(2)
    for answer in ({}, {"decision": "maybe", "approver": "Ana"}, {"decision": "approve", "approver": ""}):
        assert guardia.post(f"/flow_runs/{run}/resume", {"run_input": answer})["status"] == "REJECT"
    assert guardia.get(f"/flow_runs/{run}")["state"]["name"] == "Suspended"
    approve(guardia, run, "refuse")
    settled(guardia, run)


def test_of_many_alerts_at_once_one_opens_the_incident_and_the_others_attach(
    vps: PracticeVps, guardia: Guardia, settings: Callable[..., None]
) -> None:
    settings(**ASK_BEFORE_RESTART)
    faults.inject(vps, "web-stopped")
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda _: guardia.start(), range(4)))
    states = {run: guardia.wait_for_gate(run) for run in runs}
    assert sorted(state["name"] for state in states.values()) == ["Attached", "Attached", "Attached", "Suspended"]
    [opener] = [run for run, state in states.items() if state["name"] == "Suspended"]
    time.sleep(1)
    notes = [e["what"] for e in guardia.timeline(opener) if e["kind"] == "note"]
    assert len([note for note in notes if "attached to this incident" in note]) == 3
    approve(guardia, opener, "refuse")
    settled(guardia, opener)


def test_a_flow_process_that_is_killed_in_an_act_leaves_nothing_locked(vps: PracticeVps, guardia: Guardia) -> None:
    faults.inject(vps, "web-hung")  # a hung web keeps its restart waiting long enough to be killed in it
    run = guardia.start()
    wait_for_entry(guardia, run, "docker version --format '{{.Server.Version}}'")
    for pid in _flow_processes(guardia, run):
        os.kill(pid, signal.SIGKILL)
    assert guardia.wait(run)["type"] == "CRASHED"
    again = guardia.start()  # at once: the dead run's incident is taken over, its claim on the site lapses
    assert guardia.wait(again)["name"] in {"Resolved", "False alarm"}
    assert open_incidents(guardia) == []


def test_plan_mode_prints_the_commands_and_changes_nothing(vps: PracticeVps, guardia: Guardia) -> None:
    faults.inject(vps, "disk-full")
    mark, told = vps.audit(), len(mails(vps, "INCIDENT"))
    records = guardia.records()
    done = guardia.command("plan", "site-down", timeout=240)
    assert done.returncode == 0, done.stderr
    for words in ("docker-compose.prod.yml --env-file /root/ferreteria/.env.prod restart", "docker system prune -f",
                  "systemctl reboot", "Nothing was changed"):  # fmt: skip
        assert words in done.stdout
    noise = [event for event in mark.events() if "ferreteria_db_prod" not in event]  # the broken db restarts by itself
    assert noise == []
    assert [change for change in mark.changes() if "ferreteria_db_prod" not in change] == []
    assert len(mails(vps, "INCIDENT")) == told
    assert guardia.records() == records
    assert open_incidents(guardia) == []


def test_the_network_of_the_prober_alone_is_not_an_outage(
    vps: PracticeVps, guardia: Guardia, settings: Callable[..., None]
) -> None:
    nowhere = replace(vps, https_port=9, ssh_port=9, control_port=9)
    assert guardia.command("apply", str(site_file(nowhere, guardia.folder))).returncode == 0
    try:
        told = len(mails(vps, "INCIDENT ALERT"))
        run = guardia.start()
        state = settled(guardia, run)
    finally:
        settings()
    assert "Guardia's own network is down" in state["message"]
    assert guardia.acts(run) == []
    assert len(mails(vps, "INCIDENT ALERT")) == told, "users hear of an outage that nobody has seen"


def test_a_playbook_waits_while_another_acts_on_the_site(vps: PracticeVps, guardia: Guardia) -> None:
    faults.inject(vps, "web-stopped")
    slot = {"names": [f"guardia-acting-{SITE}"], "slots": 1}
    guardia.post("/v2/concurrency_limits/increment", {**slot, "mode": "concurrency"})
    try:
        run = guardia.start()
        wait_for_entry(guardia, run, "Read the logs of web, db and nginx")
        time.sleep(5)
        assert guardia.acts(run) == []
        assert guardia.get(f"/flow_runs/{run}")["state"]["type"] == "RUNNING"
    finally:
        guardia.post("/v2/concurrency_limits/decrement", slot)
    assert settled(guardia, run)["name"] == "Resolved"


@pytest.mark.parametrize(
    ("breaks", "mends", "says"),
    [
        ("mv /root/ferreteria/docker-compose.prod.yml /root/away",
         "mv /root/away /root/ferreteria/docker-compose.prod.yml", "is not on 127.0.0.1"),
        ("mv /usr/bin/docker /usr/bin/docker.away", "mv /usr/bin/docker.away /usr/bin/docker", "no `docker`"),
        ("sed -i 's/^  web:/  shop:/' /root/ferreteria/docker-compose.prod.yml",
         "cd /root/ferreteria && git checkout -q docker-compose.prod.yml", "has no service web"),
    ],
)  # fmt: skip
def test_a_site_file_that_does_not_fit_the_machine_ends_with_the_cure_and_changes_nothing(
    vps: PracticeVps, guardia: Guardia, breaks: str, mends: str, says: str
) -> None:
    faults.inject(vps, "web-stopped")
    try:
        vps.shell(breaks)
        run = guardia.start()
        state = settled(guardia, run)
        doctor = guardia.command("doctor")
    finally:
        vps.shell(mends)
    assert (state["type"], state["name"]) == ("FAILED", "Unresolved")
    assert says in state["message"]
    assert guardia.acts(run) == []
    assert doctor.returncode == 1


def test_an_unknown_site_is_refused_when_the_run_is_created(guardia: Guardia) -> None:
    with pytest.raises(httpx.HTTPStatusError) as refused:
        guardia.start(site="nowhere")
    assert refused.value.response.is_client_error
    assert f"'nowhere' is not one of ['{SITE}']" in refused.value.response.text
    done = guardia.command("respond", "site-down", "--site", "nowhere")
    assert done.returncode == 1
    assert "There is no site 'nowhere'; registered: tandil" in done.stderr


def test_the_doctor_is_content_with_a_healthy_site_and_changes_nothing(vps: PracticeVps, guardia: Guardia) -> None:
    mark = vps.audit()
    done = guardia.command("doctor")
    assert done.returncode == 0, done.stdout
    assert "✗" not in done.stdout
    assert mark.changes() == []
    assert mark.events() == []


def test_the_incident_is_written_down_shown_and_told(vps: PracticeVps, guardia: Guardia) -> None:
    before = {word: len(mails(vps, word)) for word in ("INCIDENT ALERT - P1", "INCIDENT RESOLVED - P1")}
    faults.inject(vps, "web-stopped")
    done = guardia.command("respond", "site-down", "--reason", "a test | with <b>odd</b> words")
    assert done.returncode == 0, done.stdout
    assert "Resolved" in done.stdout
    assert {word: len(mails(vps, word)) for word in before} == {word: count + 3 for word, count in before.items()}
    record = last_record(guardia)
    for words in ("# P1 Complete Site Down: tandil", "| Outcome | **resolved**", "Restart all services", "exit 0",
                  "- [x] Incident documented", "- [x] Communication sent to affected users",
                  "- [ ] Root cause analysis", "--- web", "--- db", "--- nginx", "a test \\| with"):  # fmt: skip
        assert words in record
    assert not any(secret in record for secret in ("practice-only-7f3a9c", "practice-only-c45e11", "PRIVATE KEY"))
    assert "practice-only" not in guardia.log()
    key = {"artifacts": {"key": {"any_": [f"incident-{SITE}-site-down"]}}, "sort": "CREATED_DESC", "limit": 1}
    [artifact] = guardia.post("/artifacts/filter", key)
    assert "## Post-incident checklist" in artifact["data"]
    path = guardia.records()[-1]
    assert path.name.startswith(f"{datetime.now():%Y-%m-%d}-{SITE}-site-down")


def wait_for_entry(guardia: Guardia, run: str, what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while what not in [entry["what"] for entry in guardia.timeline(run)]:
        assert time.monotonic() < deadline, f"{what!r} did not happen"
        time.sleep(0.3)


def _flow_processes(guardia: Guardia, run: str) -> list[int]:
    """The processes below `guardia up` that run this flow run."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                environment = (folder / "environ").read_bytes()
                command = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if run.encode() in environment and b"prefect" in command:
                found.append(int(folder.name))
    return found
