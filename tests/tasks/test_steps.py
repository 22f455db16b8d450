"""Looks run afresh; acts run once per flow run, whatever happens to it."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from uuid import uuid4

import pytest
from prefect import Flow, flow, task
from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency

from blocks.errors import Busy, CommandFailed, GuardiaError, HostUnreachable
from blocks.site import Site
from deployments import limits
from tasks import ssh, steps, timeline
from tasks.command import Command, Plan
from tasks.steps import Result, act, chore, look, once
from tests import sample

pytestmark = pytest.mark.usefixtures("prefect_server")
SITE = sample.site(name="steps")
calls: list[str] = []


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


def run(body: Callable[[], object], **options: Any) -> Any:
    """What the body returns inside a flow run that keeps results, as every playbook does."""
    made: Flow[..., Any] = flow(name="steps", persist_result=True, **options)(body)
    return made()


def _do(plan: Plan, site: Site, number: int = 1, attempt: int = 1) -> str:
    calls.append(f"{number}/{attempt}")
    return "done"


def plan_of(site: Site, number: int = 1, attempt: int = 1) -> Plan:
    """A plan that rests on nothing."""
    return Plan("Act", site.host.address, (Command(("touch", str(number)), changes=True),), "nothing")


first = act("First act", gate="restart", do=_do)(plan_of)
second = act("Second act", gate="restart", do=_do)(plan_of)


def test_an_act_is_done_once_for_each_of_its_inputs_and_its_name() -> None:
    def body() -> None:
        assert not first.done(SITE)
        first(SITE)
        first(SITE)
        first(SITE, 1, attempt=1)
        assert calls == ["1/1"]
        assert first.done(SITE)
        assert first.done(SITE, number=1)
        assert not first.done(SITE, 2)
        assert not second.done(SITE)
        first(SITE, attempt=2)
        second(SITE)
        assert calls == ["1/1", "1/2", "1/1"]

    run(body)
    assert not first.done(SITE), "nothing is done outside a flow run"


def test_an_act_that_changes_what_its_plan_rests_on_is_not_another_act_for_that() -> None:
    prune = act("Prune", gate="prune", do=_do, by=("site",))(plan_of)

    def body() -> None:
        prune(SITE, 7)
        assert prune.done(SITE, 0), "what was found is less now, because of the prune itself"
        prune(SITE, 0)
        assert calls == ["7/1"]

    run(body)


def test_neither_a_changed_setting_nor_new_code_repeats_an_act() -> None:
    def changed(plan: Plan, site: Site, number: int = 1, attempt: int = 1) -> str:
        calls.append("new code")
        return "done otherwise"

    def body() -> None:
        first(SITE)
        first(SITE.model_copy(update={"disk_limit": 1}))
        act("First act", gate="restart", do=changed)(plan_of)(SITE)

    run(body)
    assert calls == ["1/1"]


def test_a_run_that_is_tried_again_does_not_repeat_what_it_did() -> None:
    def body() -> None:
        first(SITE)
        calls.append("run")
        if calls.count("run") == 1:
            raise RuntimeError("the run fails after its act")

    run(body, retries=1)
    assert calls == ["1/1", "run", "run"]


def failing(*errors: GuardiaError) -> Any:
    """An act that fails so, one error after the other, and then works."""
    waiting = list(errors)

    def do(plan: Plan, site: Site, number: int = 1, attempt: int = 1) -> str:
        calls.append("tried")
        if waiting:
            raise waiting.pop(0)
        return "done"

    return act(f"Failing act {uuid4()}", gate="restart", do=do)(plan_of)


def test_an_act_that_failed_for_good_is_remembered_as_failed() -> None:
    broken = failing(CommandFailed("It broke."))

    def body() -> None:
        for _ in range(2):
            with pytest.raises(CommandFailed, match="It broke"):
                broken(SITE)
        assert broken.done(SITE)

    run(body)
    assert calls == ["tried"]


def test_a_lost_connection_is_worth_one_more_try_and_is_not_remembered() -> None:
    lost = HostUnreachable("No answer.")
    shaky, dead = failing(lost), failing(lost, lost)

    def body() -> None:
        shaky(SITE)
        assert calls == ["tried"] * 2
        with pytest.raises(HostUnreachable):
            dead(SITE)
        assert not dead.done(SITE)
        dead(SITE)

    run(body)
    assert calls == ["tried"] * 5


def looking(*errors: GuardiaError, **options: Any) -> Any:
    waiting = list(errors)

    @look(f"Look {uuid4()}", **options)
    def see(site: Site) -> int:
        calls.append("looked")
        if waiting:
            raise waiting.pop(0)
        return len(calls)

    return see


def test_a_look_runs_afresh_each_time_unless_its_first_answer_is_kept() -> None:
    fresh, kept = looking(), looking(kept=True)

    def body() -> tuple[int, ...]:
        return fresh(SITE), fresh(SITE), kept(SITE), kept(SITE)

    assert run(body) == (1, 2, 3, 3)


def test_a_look_is_tried_again_only_after_errors_that_may_pass() -> None:
    shaky, broken = looking(HostUnreachable("No answer.")), looking(CommandFailed("It broke."))

    def body() -> None:
        assert shaky(SITE) == 2
        with pytest.raises(CommandFailed):
            broken(SITE)

    run(body)
    assert calls == ["looked"] * 3


def test_a_thing_done_once_may_leave_out_inputs_that_differ_each_time() -> None:
    @once("Announce", by=("site",))
    def announce(site: Site, seen: str) -> str:
        calls.append(seen)
        return seen

    assert run(lambda: (announce(SITE, "a"), announce(SITE, "b"))) == ("a", "a")
    assert calls == ["a"]


@pytest.fixture
def record() -> timeline.Run:
    """The playbook run that the steps belong to; a flow run takes it over as its own."""
    limits.ensure([SITE.name])
    return timeline.Run(id=uuid4(), playbook="test", site=SITE)


def within(record: timeline.Run, body: Callable[[], None]) -> Any:
    def inside() -> None:
        timeline.begin(record)
        try:
            body()
        finally:
            record.held.close()
            timeline.end()

    return run(inside)


def test_what_was_seen_and_done_is_on_the_timeline(record: timeline.Run) -> None:
    broken, see = failing(CommandFailed("It broke.")), looking(CommandFailed("Blind."))

    def body() -> None:
        first(SITE)
        for step, error in ((broken, "It broke"), (see, "Blind")):
            with pytest.raises(CommandFailed, match=error):
                step(SITE)

    within(record, body)
    assert [(entry.kind, entry.outcome, entry.ok, entry.changes) for entry in record.entries] == [
        ("act", "done", True, True),
        ("act", "It broke.", False, True),
        ("look", "Blind.", False, False),
    ]


def test_an_act_that_failed_for_good_is_tried_again_once_somebody_retries_the_run(record: timeline.Run) -> None:
    broken = failing(CommandFailed("It broke."), CommandFailed("It broke again."))

    def body() -> None:
        for ended, said in enumerate(("It broke.", "It broke again.", "")):
            record.ended = ended
            assert not broken.done(SITE)
            for _ in range(2):
                with pytest.raises(CommandFailed, match=said) if said else nullcontext():
                    broken(SITE)
            assert broken.done(SITE)
        record.ended = 3
        assert broken.done(SITE), "what is done stays done"
        broken(SITE)

    within(record, body)
    assert calls == ["tried"] * 3


def test_plan_mode_changes_nothing_and_says_what_it_would_do(record: timeline.Run) -> None:
    record.planning = True
    within(record, lambda: first(SITE, 7))
    assert calls == []
    (entry,) = record.entries
    assert (entry.what, entry.detail["commands"], entry.changes) == ("would first act", ["touch 7"], False)
    assert not record.acting


def test_one_run_at_a_time_acts_on_a_site(record: timeline.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "ACTING_WAIT", 1)

    def body() -> None:
        with concurrency(steps.acting_limit(SITE.name), strict=True):
            with pytest.raises(Busy, match=r"Another playbook has been acting on steps for 1 s\. See `guardia status`"):
                first(SITE)
            assert calls == []
        first(SITE)
        first(SITE, 2)
        with pytest.raises(TimeoutError), concurrency(steps.acting_limit(SITE.name), strict=True, timeout_seconds=1):
            pass

    within(record, body)
    assert calls == ["1/1", "2/1"]
    with concurrency(steps.acting_limit(SITE.name), strict=True, timeout_seconds=5):
        pass  # the run let go of the site at its end


def test_the_commands_of_a_plan_run_in_order_and_stop_at_the_first_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def ran(host: object, command: Command) -> None:
        calls.append(command.line)
        if command.argv[0] == "false":
            raise CommandFailed("It broke.")

    monkeypatch.setattr(ssh, "run", ran)
    commands = tuple(Command((word,), changes=True) for word in ("true", "false", "never"))
    with pytest.raises(CommandFailed):
        steps.run_commands(Plan("Act", "vps.test", commands, "nothing"), SITE)
    assert calls == ["true", "false"]


def test_what_was_noted_by_a_process_that_died_before_its_result_was_kept_is_not_done_again(
    record: timeline.Run,
) -> None:
    @chore("Tidy", by=("site",))
    def tidy(site: Site, seen: str) -> Result:
        calls.append(seen)
        return Result(words=f"removed {seen}", text="of them")

    def died_too_early() -> None:
        """It did both and noted both, and Prefect kept neither result."""
        first._step.fn(SITE)
        task(name=tidy.name, persist_result=False)(tidy.fn)(SITE, "1 file")

    def body() -> None:
        died_too_early()
        with get_client(sync_client=True) as client:
            while len(timeline.read(client, record.id)) < 2:  # the test's time limit ends it
                time.sleep(0.1)
            record.earlier, record.entries[:] = timeline.read(client, record.id), []
        record.ended = 1  # as Crashed
        assert first.done(SITE)
        first(SITE)
        assert tidy(SITE, "what is left").words == "removed 1 file"
        assert first.done(SITE)
        first(SITE, 2)

    within(record, body)
    assert calls == ["1/1", "1 file", "2/1"]
    assert [(entry.what, entry.outcome) for entry in record.entries] == [("First act", "done")]
