"""Runs that wait for a person, as Prefect holds them: suspended, with a form, and a question on their timeline."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import State
from prefect.input.run_input import keyset_from_base_key
from prefect.states import Suspended

from blocks import site_file
from blocks.site import Site
from flows.approval import Answer
from flows.claims import Claim, claim, release
from tasks import timeline
from tests import sample
from tests.mail_server import MailServer

KEY = "reboot-abc"


@pytest.fixture
def client(prefect_server: None) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture(scope="package")
def post() -> Iterator[MailServer]:
    with MailServer() as server:
        yield server


@pytest.fixture(scope="package")
def site(prefect_server: None, post: MailServer) -> Site:
    """A registered site whose people get mail."""
    site = sample.site(name="waiting", mailbox=post.settings)
    site_file.register(site)
    return site


@pytest.fixture
def mail(post: MailServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MailServer:
    """The mail of this test alone, and a folder for its records."""
    monkeypatch.setenv("GUARDIA_INCIDENTS", str(tmp_path / "incidents"))
    post.messages.clear()
    return post


@flow(name="waiting")
def nothing() -> None:
    """A flow that a run can be of."""


@pytest.fixture(scope="package")
def deployment(prefect_server: None) -> UUID:
    """Where the runs come from; only then does Prefect resume them. Nobody picks them up."""
    with get_client(sync_client=True) as client:
        return client.create_deployment(client.create_flow(nothing), name="waiting")


@dataclass
class Waiting:
    """A run that waits with this claim."""

    claim: Claim
    client: SyncPrefectClient

    @property
    def run_id(self) -> UUID:
        return self.claim.run_id

    def say(self, kind: timeline.Kind, what: str, **fields: Any) -> timeline.Entry:
        """Put an entry on its timeline and see that it has arrived there."""
        entry = timeline.Entry(kind=kind, what=what, **fields)
        timeline.send(self.run_id, what, entry)
        for _ in range(100):
            if entry.id in {known.id for known in self.timeline()}:
                return entry
            time.sleep(0.1)
        raise AssertionError(f"{what} did not arrive")

    def timeline(self) -> list[timeline.Entry]:
        return timeline.read(self.client, self.run_id)

    def answer(self) -> dict[str, str]:
        """What its form was answered with."""
        response = keyset_from_base_key(f"suspended-{KEY}")["response"]
        said: dict[str, str] = json.loads(self.client.read_flow_run_input(self.run_id, response))
        return said


@pytest.fixture
def wait(client: SyncPrefectClient, site: Site, deployment: UUID) -> Iterator[Callable[..., Waiting]]:
    """Makes a run that waits, asked so many seconds ago."""
    made: list[Waiting] = []

    def make(playbook: str = "waiting", *, escalate_in: float = 300, refuse_in: float = 3600) -> Waiting:
        now = datetime.now(UTC)
        keys: Any = keyset_from_base_key(f"suspended-{KEY}")
        run = client.create_flow_run_from_deployment(deployment, name=f"{playbook}-{uuid4().hex[:6]}")
        client.create_flow_run_input(run.id, keys["schema"], json.dumps(Answer.model_json_schema()))
        state: State[Any] = Suspended(timeout_seconds=3600, pause_key=KEY)
        state.state_details.run_input_keyset = keys
        client.set_flow_run_state(run.id, state, force=True)
        wanted = Claim(
            run_id=run.id, playbook=playbook, section="Section", severity="P1", site=site.name, opened=now
        )  # fmt: skip
        waiting = Waiting(claim(wanted), client)
        made.append(waiting)
        detail = {
            "key": KEY, "what": "Reboot the VPS", "hash": "abc",
            "escalate_at": (now + timedelta(seconds=escalate_in)).isoformat(),
            "refuse_at": (now + timedelta(seconds=refuse_in)).isoformat(),
        }  # fmt: skip
        waiting.say("asked", "Ana: Reboot the VPS?", text="the plan, word for word", detail=detail)
        return waiting

    yield make
    for waiting in made:
        release(site.name, waiting.claim.playbook, waiting.run_id)
