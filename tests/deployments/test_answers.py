"""Answers from outside the UI: for one question, found without doubt, and taken by the run."""

from collections.abc import Callable
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient

from blocks.errors import ConfigError
from deployments import answers
from tasks.timeline import Entry
from tests.deployments.conftest import Waiting

Wait = Callable[..., Waiting]


def entry(kind: Any, key: str) -> Entry:
    return Entry(kind=kind, what=key, detail={"key": key})


TIMELINES = {
    "nothing was asked": ([entry("look", "a")], None),
    "asked": ([entry("asked", "a")], "a"),
    "asked and answered": ([entry("asked", "a"), entry("answered", "a")], None),
    "asked, answered, asked about another plan": (
        [entry("asked", "a"), entry("answered", "a"), entry("asked", "b")],
        "b",
    ),
    "asked again since the plan changed": ([entry("asked", "a"), entry("asked", "b")], "b"),
}


@pytest.mark.parametrize(("entries", "key"), TIMELINES.values(), ids=TIMELINES)
def test_the_last_question_waits_unless_it_was_answered(entries: list[Entry], key: str | None) -> None:
    asked = answers.pending(entries)
    assert (asked.detail["key"] if asked else None) == key


def test_a_question_is_found_by_id_by_its_beginning_and_by_name(client: SyncPrefectClient, wait: Wait) -> None:
    first, second = wait("one"), wait("two")
    name = client.read_flow_run(first.run_id).name
    for words in (str(first.run_id), str(first.run_id)[:12], name):
        found = answers.find(client, words)
        assert (found.claim, found.key) == (first.claim, "reboot-abc")
    assert answers.find(client, str(second.run_id)).claim == second.claim
    assert answers.find(client, str(second.run_id)).asked.text == "the plan, word for word"


@pytest.mark.parametrize(("words", "problem"), [("", "is ambiguous"), ("zzz", "does not wait for an approval")])
def test_a_doubtful_name_is_an_error_that_lists_what_waits(
    client: SyncPrefectClient, wait: Wait, words: str, problem: str
) -> None:
    made = [wait("one"), wait("two")]
    with pytest.raises(ConfigError, match=f"'{words}' {problem}") as caught:
        answers.find(client, words)
    for waiting in made:
        assert f"{waiting.run_id} ({waiting.claim.playbook} on {waiting.claim.site})" in caught.value.cure


def test_a_run_takes_one_good_answer_and_no_other(client: SyncPrefectClient, wait: Wait) -> None:
    waiting = wait()
    with pytest.raises(ConfigError, match=rf"{waiting.run_id} did not take the answer: .*perhaps"):
        answers.answer(client, waiting.run_id, {"decision": "perhaps", "approver": "Ana", "reason": ""})
    answers.answer(client, waiting.run_id, {"decision": "approve", "approver": "Ana", "reason": "it must be"})
    assert waiting.answer() == {"decision": "approve", "approver": "Ana", "reason": "it must be"}
    assert answers.waiting(client) == []
    with pytest.raises(ConfigError, match="did not take the answer"):
        answers.answer(client, waiting.run_id, {"decision": "refuse", "approver": "Beto", "reason": ""})
