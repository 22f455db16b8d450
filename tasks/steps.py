"""The kinds of step that a playbook is made of.

`look` reads: it runs afresh each time and is tried again on errors that trying again can cure. `act` changes: it
shows its plan before it runs, runs once per flow run, and on a resumed or retried run is not repeated. `once` is
what an act is built on, and serves what must not be doubled without touching the site: messages and records.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, Generic, ParamSpec, TypeVar, cast

from prefect import Task, task
from prefect.cache_policies import NO_CACHE, CachePolicy
from prefect.client.schemas.objects import State, TaskRun
from prefect.concurrency.sync import concurrency
from prefect.context import FlowRunContext, TaskRunContext
from prefect.results import ResultStore, get_result_store
from pydantic import BaseModel

from blocks.errors import Busy, CommandFailed, GuardiaError
from blocks.site import Site
from tasks import ssh, timeline
from tasks.command import Plan, Statement

P = ParamSpec("P")
R = TypeVar("R")

ACTING_WAIT = 120  # seconds to wait for another playbook that is acting on the site
ACTING_LEASE = 60  # seconds after which a dead process's claim on the site lapses


def acting_limit(site_name: str) -> str:
    """The concurrency limit that lets one flow at a time act on a site."""
    return f"guardia-acting-{site_name}"


def look(title: str, *, retries: int = 2, kept: bool = False) -> Callable[[Callable[P, R]], Task[P, R]]:
    """A step that only reads.

    Its result is recorded on the timeline by its `summary`, if it has one, and its `text` as evidence. `retries`
    count only errors that are not permanent; `kept` keeps the first answer for the whole flow run, for what must
    be known from before an act.
    """

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        @wraps(function)
        def body(*args: P.args, **kwargs: P.kwargs) -> R:
            started = time.monotonic()
            try:
                result = function(*args, **kwargs)
            except GuardiaError as error:
                timeline.record("look", title, outcome=str(error), ok=False, seconds=time.monotonic() - started)
                raise
            timeline.record(
                "look", title, outcome=str(getattr(result, "summary", "")), ok=bool(getattr(result, "ok", True)),
                seconds=time.monotonic() - started, text=str(getattr(result, "text", "")),
            )  # fmt: skip
            return result

        return task(
            name=title,
            cache_policy=CachePolicy.from_cache_key_fn(_key) if kept else NO_CACHE,
            persist_result=kept,
            retries=retries,
            retry_delay_seconds=[1.0, 3.0, 9.0][:retries],
            retry_condition_fn=_worth_retrying,
        )(body)

    return decorate


def once(title: str, *, by: tuple[str, ...] | None = None) -> Callable[[Callable[P, R]], Task[P, R]]:
    """A step that is done once per flow run: a resumed or retried run gets the first result back.

    `by` names the inputs that make it another step (all of them if None): what was seen from outside differs each
    time, and must not announce an incident twice.
    """

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        return _once(function, title, lambda context, inputs: _key(context, _chosen(inputs, by)))

    return decorate


def _once(function: Callable[P, R], title: str, key: Callable[[TaskRunContext, dict[str, Any]], str]) -> Task[P, R]:
    return task(
        name=title,
        cache_policy=CachePolicy.from_cache_key_fn(key),
        persist_result=True,
        retries=1,
        retry_delay_seconds=2,
        retry_condition_fn=_worth_retrying,
    )(function)


class Result(BaseModel):
    """How an act ended: in words, with the `text` that is their evidence, and whether it `changed` anything.

    A failure that trying again at once cannot cure is kept too, so that a resumed run goes on; only when the run had
    ended and somebody retries it is it tried again, for the cause may be gone by then.
    """

    ok: bool = True
    words: str
    text: str = ""
    changed: bool = True


def chore(title: str, *, by: tuple[str, ...] | None = None) -> Callable[[Callable[P, Result]], Task[P, Result]]:
    """A step that changes Guardia's own things, once per flow run as `once`, and noted as an act is."""

    def decorate(function: Callable[P, Result]) -> Task[P, Result]:
        @wraps(function)
        def body(*args: P.args, **kwargs: P.kwargs) -> Result:
            context = TaskRunContext.get()
            key = _key(context, _chosen(_bound(function, args, kwargs), by)) if context else ""
            return _noted(title, key, lambda: function(*args, **kwargs))

        return once(title, by=by)(body)

    return decorate


def _noted(title: str, key: str, do: Callable[[], Result]) -> Result:
    """Do it and note it, unless this run's timeline has it already under the key of its result."""
    if key and (before := _of_note(key)) is not None:
        return before
    started = time.monotonic()
    try:
        result = do()
    except GuardiaError as error:
        seconds = time.monotonic() - started
        timeline.record("act", title, outcome=str(error), ok=False, seconds=seconds, changes=True)
        raise
    timeline.record(
        "act", title, outcome=result.words, ok=result.ok, seconds=time.monotonic() - started,
        changes=result.changed, text=result.text, key=key if result.ok else "",
    )  # fmt: skip
    return result


def _of_note(key: str) -> Result | None:
    entry = timeline.noted(key)
    return Result(words=entry.outcome, text=entry.text, changed=entry.changes) if entry is not None else None


class Act(Generic[P]):
    """A step that changes something, made by `act`."""

    def __init__(
        self,
        planner: Callable[P, Plan],
        *,
        title: str,
        gate: str,
        patience: int | None,
        do: Callable[..., str],
        by: tuple[str, ...] | None,
        holds: Callable[..., bool] | None,
    ) -> None:
        self.title, self.gate, self.patience = title, gate, patience
        self.holds = holds
        self.name = planner.__name__.replace("_", "-")
        self.plan = planner
        self.__doc__ = planner.__doc__
        self._by = by
        self._step: Task[P, Result] = _once(self._body(do), title, self._cached_as)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Carry out the plan, once per flow run; in plan mode only write it down.

        Raises Busy if another playbook keeps acting on the site, CommandFailed if the act failed for good, now or
        earlier in this run, HostError if the machine was lost.
        """
        run = timeline.current()
        if run is not None and run.planning:
            plan = self.plan(*args, **kwargs)
            timeline.record("act", f"would {self.title.lower()}", text=plan.markdown, detail=_shown(plan))
            return
        if run is not None:
            _claim_site(run)
        result = self._step(*args, **kwargs)
        if not result.ok:
            raise CommandFailed(result.words)

    def done(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Whether this flow run has already done exactly this act."""
        context = FlowRunContext.get()
        if context is None or context.flow_run is None:
            return False
        return self._stored(str(context.flow_run.id), _bound(self.plan, args, kwargs))[1] is not None

    def _cached_as(self, context: TaskRunContext, inputs: dict[str, Any]) -> str:
        return self._stored(str(context.task_run.flow_run_id), inputs)[0]

    def _stored(self, run_id: str, inputs: dict[str, Any]) -> tuple[str, Result | None]:
        """Under which key the result of the act is, or would be, stored, and what is there that still counts."""
        store = cast(ResultStore, get_result_store().update_for_task(self._step))
        run = timeline.current()
        ended = run.ended if run is not None else 0
        for number in range(ended + 1):
            name = f"{self.title}, retry {number}" if number else self.title
            key = _hashed(run_id, name, _chosen(inputs, self._by))
            result = cast(Result, store.read(key).result) if store.exists(key) else _of_note(key)
            if result is not None and (result.ok or number == ended):
                return key, result
        return key, None

    def _body(self, do: Callable[..., str]) -> Callable[P, Result]:
        @wraps(self.plan)
        def body(*args: P.args, **kwargs: P.kwargs) -> Result:
            def tried() -> Result:
                try:
                    return Result(words=do(self.plan(*args, **kwargs), *args, **kwargs))
                except GuardiaError as error:
                    if not error.permanent:
                        raise
                    return Result(ok=False, words=str(error))

            context = FlowRunContext.get()
            bound = _bound(self.plan, args, kwargs)
            key = self._stored(str(context.flow_run.id), bound)[0] if context and context.flow_run else ""
            return _noted(self.title, key, tried)

        return body


def act(
    title: str,
    *,
    gate: str,
    patience: int | None = None,
    do: Callable[..., str] | None = None,
    by: tuple[str, ...] | None = None,
    holds: Callable[..., bool] | None = None,
) -> Callable[[Callable[P, Plan]], Act[P]]:
    """A step that changes something. The decorated function makes its plan, from its inputs alone.

    `gate` names the entry of the site's gate policy; `patience` is how many seconds its effect may take to show
    outside (the site's own recovery timeout if None). What runs is the plan's commands, in order, or
    `do(plan, *inputs)`, which returns its outcome in words. The first input is the site. `by` names the inputs that
    make it another act (all of them if None): what a look found changes by the act itself, and must not repeat it.
    `holds` says whether its effect is there already, also if the process that brought it about was killed before it
    could note that: then nobody is asked.
    """

    def decorate(planner: Callable[P, Plan]) -> Act[P]:
        return Act(planner, title=title, gate=gate, patience=patience, do=do or run_commands, by=by, holds=holds)

    return decorate


def run_commands(plan: Plan, site: Site, *_: Any) -> str:
    """Run the plan's commands on the site's host, in order, stopping at the first that fails."""
    for command in plan.commands:
        assert not isinstance(command, Statement), "an act with SQL says how to do it"
        ssh.run(site.host, command)
    return "done"


def _claim_site(run: timeline.Run) -> None:
    """From its first act to its end or suspension a run holds the site; the claim of a killed process lapses."""
    if run.acting:
        return
    try:
        run.held.enter_context(
            concurrency(
                acting_limit(run.site.name), strict=True, timeout_seconds=ACTING_WAIT, lease_duration=ACTING_LEASE
            )
        )
    except TimeoutError:
        raise Busy(
            f"Another playbook has been acting on {run.site.name} for {ACTING_WAIT} s.",
            "See `guardia status`; start this one again when that one has ended.",
        ) from None
    run.acting = True


def _shown(plan: Plan) -> dict[str, Any]:
    return {"commands": [command.line for command in plan.commands], "cost": plan.cost, "hash": plan.hash}


def _worth_retrying(_task: Task[..., Any], _task_run: TaskRun, state: State[Any]) -> bool:
    error = state.result(raise_on_failure=False)
    return isinstance(error, GuardiaError) and not error.permanent


def _key(context: TaskRunContext, inputs: dict[str, Any]) -> str:
    run_id = context.task_run.flow_run_id
    return _hashed(str(run_id), context.task.name, inputs)


def _hashed(run_id: str, name: str, inputs: dict[str, Any]) -> str:
    """Flow run, step and inputs, and nothing else: a deploy of new code must not repeat a finished act."""
    text = json.dumps(inputs, sort_keys=True, default=_plain)
    return f"{run_id}-{hashlib.sha256((name + text).encode()).hexdigest()[:24]}"


def _chosen(inputs: dict[str, Any], by: tuple[str, ...] | None) -> dict[str, Any]:
    return inputs if by is None else {name: inputs[name] for name in by}


def _plain(value: Any) -> Any:
    if isinstance(value, Site):
        return value.name  # its secrets stay out of the key, and a changed setting does not repeat an act
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return str(value)


def _bound(function: Callable[..., Any], args: Any, kwargs: Any) -> dict[str, Any]:
    """Inputs by parameter name with the defaults filled in, as Prefect hashes them."""
    bound = inspect.signature(function).bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)
