"""A job: nobody approves it, one of a kind works for a site at a time, and its failure is an alarm."""

from collections.abc import Callable
from typing import Any

import pytest
from prefect.client.schemas.objects import State
from pydantic import BaseModel, Field

from blocks import site_file
from blocks.errors import StoreUnreachable
from blocks.on_call import Person
from blocks.site import Site
from deployments import limits
from flows import job as jobs
from flows.job import Ended, job
from tasks.steps import Result, chore
from tests.mail_server import MailServer

wanted: list[Callable[[str], Ended]] = []
times: list[int] = []


class Wanted(BaseModel):
    """What the job takes."""

    backup: str = Field(default="", description="Which backup.")


@job(wants=Wanted)
def verify_backup(site: Site, words: Wanted) -> Ended:
    """Does what the test wants, under the name of a real job, whose limit is there."""
    return wanted[0](words.backup)


def run(site: str, body: Callable[[str], Ended], **parameters: Any) -> State[Any]:
    wanted[:] = [body]
    state: State[Any] = verify_backup(site, return_state=True, **parameters)  # type: ignore[assignment]
    return state


def fail(_: str) -> Ended:
    raise StoreUnreachable("The bucket does not answer.", "Is it up?")


def break_down(_: str) -> Ended:
    raise ZeroDivisionError("by zero")


@chore("Tidy")
def tidy() -> Result:
    times.append(1)
    return Result(words="tidied")


def test_a_chore_of_a_job_is_done_once(site: Site, post: MailServer) -> None:
    times.clear()
    state = run(site.name, lambda _: Ended(name="Proven", words=tidy().words + tidy().words))
    assert (state.message, times, post.messages) == ("tidiedtidied", [1], [])


def test_a_job_that_went_well_tells_nobody(site: Site, post: MailServer) -> None:
    state = run(site.name, lambda backup: Ended(name="Proven", words=f"{backup} is proven."), backup="B")
    assert (state.name, state.message, state.is_completed()) == ("Proven", "B is proven.", True)
    assert post.messages == []


@pytest.mark.parametrize(
    ("body", "name", "words"),
    [
        (lambda _: Ended(name="Bad backup", words="a table is missing", ok=False), "Bad backup", "a table is missing"),
        (fail, "Failed", "The bucket does not answer. Is it up?"),
        (break_down, "Failed", "Guardia itself failed: ZeroDivisionError: by zero"),
    ],
)
def test_a_job_that_failed_in_whatever_way_is_an_alarm(
    site: Site, post: MailServer, body: Callable[[str], Ended], name: str, words: str
) -> None:
    state = run(site.name, body)
    assert (state.name, state.message, state.is_failed()) == (name, words, True)
    (mail,) = post.messages
    assert str(mail["To"]) == "ana@tandil.site"
    assert str(mail["Subject"]) == f"ALARM - verify-backup on {site.name}: {name}"
    assert words in mail.get_content()


def test_the_secondary_is_told_where_the_primary_cannot_be_reached(
    site: Site, post: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    primary = Person(name="Ana", channels=["slack-webhook/no-such"])
    mute = site.model_copy(update={"on_call": site.on_call.model_copy(update={"primary": primary})})
    monkeypatch.setattr(site_file, "load", lambda _: mute)
    assert run(site.name, fail).message == "The bucket does not answer. Is it up?"
    assert [str(mail["To"]) for mail in post.messages] == ["beto@tandil.site"]


def test_an_unknown_site_is_bad_input(site: Site) -> None:
    state = run("nowhere", fail)
    assert state.name == "Bad input" and "There is no site 'nowhere'" in str(state.message)


def test_a_second_job_of_the_kind_waits_and_gives_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "WAIT", 1)
    inner: list[State[Any]] = []

    def body(_: str) -> Ended:
        if not inner:
            inner.append(State(type="PENDING"))
            inner[0] = run(site.name, body)
        return Ended(name="Proven", words="")

    limits.ensure([site.name])
    assert run(site.name, body).name == "Proven"
    assert inner[0].name == "Failed" and "Another verify-backup has been working" in str(inner[0].message)
