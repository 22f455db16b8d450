"""What the terminal shows: one line an entry, whatever its words are, and a plan before it is answered."""

import io
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from rich.console import Console

from blocks.errors import ConfigError
from deployments import follow
from tasks.timeline import Entry
from tests.deployments.conftest import Waiting

AT = datetime(2026, 3, 1, 3, 4, 5, tzinfo=UTC)


class Screen:
    """A console whose text can be read."""

    def __init__(self) -> None:
        self._file = io.StringIO()
        self.console = Console(file=self._file, width=200)

    def text(self) -> str:
        return self._file.getvalue()


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    monkeypatch.setenv("PREFECT_API_URL", "http://ui.test/api")
    yield Screen()


LINES: list[tuple[dict[str, Any], str]] = [
    ({"kind": "look", "what": "Look", "outcome": "fine", "seconds": 0.25}, "03:04:05 · Look — fine 0.2 s\n"),
    ({"kind": "act", "what": "[/bold] [red]x", "ok": False}, "03:04:05 ▶ [/bold] [red]x\n"),
    ({"kind": "command", "what": "docker ps"}, ""),
    ({"kind": "command", "what": "docker restart", "changes": True}, "03:04:05 $ docker restart\n"),
    (
        {"kind": "asked", "what": "Ana: reboot?", "detail": {"commands": ["reboot [now]"], "cost": "a [minute]"}},
        "03:04:05 ? Ana: reboot?\n           reboot [now]\n           cost: a [minute]\n",
    ),
]


@pytest.mark.parametrize(("said", "shown"), LINES)
def test_an_entry_is_one_line_with_its_words_as_they_are(screen: Screen, said: dict[str, Any], shown: str) -> None:
    follow.print_entry(Entry(at=AT, **said), screen.console)
    assert screen.text() == shown


ENDS: list[tuple[State[Any], int, str]] = [
    (Completed(name="Resolved", message="it came back"), 0, "Resolved: it came back"),
    (Completed(name="Refused", message="by Ana"), 1, "Refused: by Ana"),
    (Failed(name="Unresolved", message="[all] tried"), 1, "Unresolved: [all] tried"),
]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end[0].name)
def test_a_run_is_followed_to_its_end(
    client: SyncPrefectClient, wait: Callable[..., Waiting], screen: Screen, end: tuple[State[Any], int, str]
) -> None:
    waiting, (state, status, words) = wait(), end
    client.set_flow_run_state(waiting.run_id, state, force=True)
    assert follow.follow(str(waiting.run_id), screen.console) == status
    assert screen.text().startswith(f"Run {waiting.run_id}: http://ui.test/runs/flow-run/{waiting.run_id}\n")
    assert "? Ana: Reboot the VPS?\n" in screen.text()
    assert screen.text().endswith(f"{words}\n")


WORDS = {"decision": "refuse", "approver": "[Ana]", "reason": ""}


def test_an_answer_is_given_below_the_plan_that_it_is_for(wait: Callable[..., Waiting], screen: Screen) -> None:
    waiting = wait()
    follow.answer(str(waiting.run_id), WORDS, "abc", screen.console)
    assert screen.text() == "the plan, word for word\nRefused by [Ana].\n"
    assert waiting.answer() == {**WORDS, "plan": "abc"}


def test_an_answer_to_another_plan_is_none(wait: Callable[..., Waiting], screen: Screen) -> None:
    waiting = wait()
    with pytest.raises(ConfigError, match="asks about the plan abc, not def"):
        follow.answer(str(waiting.run_id), WORDS, "def", screen.console)


def test_what_waits_and_what_is_open_is_shown(wait: Callable[..., Waiting], screen: Screen) -> None:
    waiting = wait()
    follow.show_waiting(screen.console)
    follow.show_status(screen.console)
    assert "the plan, word for word" in screen.text()
    assert f"Waits: Ana: Reboot the VPS?  guardia approve {str(waiting.run_id)[:8]} --plan abc" in screen.text()


def test_what_may_be_chosen_is_part_of_the_command_that_answers() -> None:
    detail = {"flags": ["--choose rescue ", "--choose x "], "hash": "abc"}
    asked = Entry(kind="asked", what="Ana: Get the data back?", detail=detail)
    assert follow._how("925e41cd-6af7", asked) == "guardia approve 925e41cd --choose rescue or --choose x --plan abc"
    asked = Entry(kind="asked", what="Ana: Reboot?", detail={"flags": [""], "hash": "abc"})
    assert follow._how("925e41cd-6af7", asked) == "guardia approve 925e41cd --plan abc"
