"""The gate: when it asks, under which key, with which form, and what silence means."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRunPolicy, State
from prefect.input.run_input import keyset_from_base_key
from prefect.states import Crashed, Failed, Running
from pydantic import ValidationError

from blocks.on_call import Severity
from flows import approval
from flows.approval import Answer, approve, escalate_after, flags, form_text, silence
from flows.choice import Choice
from flows.claims import Claim
from flows.incident import Incident, case_of
from tasks.command import Plan
from tasks.steps import act
from tests import sample

CLAIM = Claim(
    run_id=uuid4(), playbook="site-down", section="Complete Site Down", severity="P1", site="tandil",
    opened=datetime.now(UTC),
)  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [{}, {"approver": "Ana"}, {"decision": "approve"}, {"decision": "yes", "approver": "Ana"},
     {"decision": "approve", "approver": ""}, {"decision": "approve", "approver": "a" * 81}],
)  # fmt: skip
def test_an_answer_without_a_decision_and_a_name_is_none(words: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Answer(**words)


def test_the_form_asks_for_a_decision_and_a_name_and_takes_a_reason() -> None:
    schema = Answer.model_json_schema()
    assert schema["properties"]["decision"]["enum"] == ["approve", "refuse"]
    assert schema["required"] == ["decision", "approver"]
    assert schema["properties"]["approver"]["minLength"] == 1
    assert Answer(decision="refuse", approver="Ana").reason == ""


def test_the_command_that_answers_is_told_for_each_answer_of_the_form() -> None:
    assert flags(Answer) == [""]
    choices = ["'whole restore'", "rescue", "'rescue with changed rows'"]
    assert flags(Choice) == [f"--choose {choice} " for choice in choices]


def test_an_act_that_the_policy_lets_pass_is_not_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[Any] = []
    monkeypatch.setattr(approval, "suspend_flow_run", lambda *_, **__: pytest.fail("it asked"))
    site = sample.site(gates={"reboot": "none"})

    def plan(site: Any) -> Plan:
        planned.append(site)
        return Plan("Reboot", "vps.test", (), "all of it")

    approve(Incident(CLAIM, site), act("Reboot", gate="reboot")(plan), site)
    assert planned == [], "it made a plan to ask about"


GATES = [
    ("P1", {}, "Beto is asked after 5 min; after 60 min it counts as refused, and the playbook ends."),
    ("P2", {}, "Beto is asked after 30 min; after 120 min it counts as refused, and the playbook ends."),
    ("P1", {"escalate_after": 7, "refuse_after": 90}, "Beto is asked after 7 s; after 90 s it counts as refused, "
     "and the playbook ends."),
]  # fmt: skip


@pytest.mark.parametrize(("severity", "gates", "words"), GATES)
def test_silence_is_explained_by_severity_and_policy(severity: Severity, gates: dict[str, int], words: str) -> None:
    site = sample.site(gates=gates)
    case = case_of(CLAIM.model_copy(update={"severity": severity}), site)
    assert silence(case, site) == words


def test_without_a_secondary_a_reminder_is_sent() -> None:
    site = sample.site(on_call={"primary": {"name": "Ana", "channels": ["ana@tandil.site"]}})
    assert silence(case_of(CLAIM, site), site).startswith("a reminder is sent after 5 min; ")
    assert escalate_after(case_of(CLAIM, site), site) == 300


def test_the_form_shows_the_plan_its_hash_and_what_silence_means() -> None:
    site = sample.site()
    plan = Plan("Reboot the VPS", "vps.test", (), "a minute")
    text = form_text(case_of(CLAIM, site), site, plan)
    for words in (
        plan.markdown,
        plan.hash,
        silence(case_of(CLAIM, site), site),
        "artifact `incident-tandil-site-down`",
    ):
        assert words in text


@flow(name="asking")
def nothing() -> None:
    """A flow that a run can be of."""


@pytest.fixture
def client(prefect_server: None) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


def test_a_question_has_a_new_key_only_if_its_answer_was_forgotten(client: SyncPrefectClient) -> None:
    run_id: UUID = client.create_flow_run(nothing).id
    assert approval._question(run_id, "reboot", "abc") == ("reboot-abc", None)
    schema = keyset_from_base_key("suspended-reboot-abc")["schema"]
    client.create_flow_run_input(run_id, schema, "{}")
    assert approval._question(run_id, "reboot", "abc") == ("reboot-abc-2", None)
    assert approval._question(run_id, "prune", "abc") == ("prune-abc", None)
    client.update_flow_run(run_id, empirical_policy=FlowRunPolicy(pause_keys={"reboot-abc"}))
    assert approval._question(run_id, "reboot", "abc") == ("reboot-abc", None)


GIVEN: dict[str, tuple[State[Any], str, bool]] = {
    "killed after an approval": (Crashed(), "approve", True),
    "killed after a choice": (Crashed(), "rescue", True),
    "killed after a refusal": (Crashed(), "refuse", False),
    "failed after an approval": (Failed(), "approve", False),
}


@pytest.mark.parametrize("forced", [True, False], ids=["forced", "not forced"])
@pytest.mark.parametrize(("end", "decision", "kept"), GIVEN.values(), ids=GIVEN)
def test_an_approval_outlives_the_process_that_got_it_and_nothing_else(
    client: SyncPrefectClient, end: State[Any], decision: str, kept: bool, forced: bool
) -> None:
    run_id: UUID = client.create_flow_run(nothing).id
    keys, answer = keyset_from_base_key("suspended-reboot-abc"), {"decision": decision, "approver": "Ana"}
    client.create_flow_run_input(run_id, keys["schema"], "{}")
    client.create_flow_run_input(run_id, keys["response"], json.dumps(answer))
    for state in (end, Running()):  # it ends, and is started again
        client.set_flow_run_state(run_id, state, force=True)
    remembered = {"reboot-abc"} if forced else set()  # a forced retry forgets no answer
    client.update_flow_run(run_id, empirical_policy=FlowRunPolicy(pause_keys=remembered))
    expected = ("reboot-abc", answer) if kept else ("reboot-abc-2", None)
    assert approval._question(run_id, "reboot", "abc") == expected
    assert approval._question(run_id, "reboot", "other") == ("reboot-other", None)


def test_the_answer_to_another_plan_does_not_count(client: SyncPrefectClient) -> None:
    run_id: UUID = client.create_flow_run(nothing).id
    keys = keyset_from_base_key("suspended-reboot-abc")
    client.create_flow_run_input(run_id, keys["schema"], "{}")
    answer = {"decision": "approve", "approver": "Beto", "plan": "of-the-prune"}
    client.create_flow_run_input(run_id, keys["response"], json.dumps(answer))
    client.update_flow_run(run_id, empirical_policy=FlowRunPolicy(pause_keys={"reboot-abc"}))
    assert approval._question(run_id, "reboot", "abc") == ("reboot-abc-2", None)


def test_the_form_is_sent_back_with_the_hash_of_the_plan_that_it_showed() -> None:
    shown = Answer.with_initial_data(description="The plan", plan="abc")
    assert shown.model_json_schema()["properties"]["plan"]["default"] == "abc"
