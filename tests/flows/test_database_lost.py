"""Which branch of the guide is taken for which cause; tests/lab has the real ones."""

from typing import Any

import pytest

from blocks.site import Site
from deployments import catalog
from flows import database_lost as module
from flows.database_lost import database_lost
from tasks import compose, diagnosis, host
from tasks.diagnosis import Cause, Kind
from tests.web_server import WebServer

ADVICE: dict[Kind, str] = {
    "damaged table": "start the playbook data-corruption",
    "not the database": "start the playbook site-down",
    "unknown": "for a reason that the guide does not know",
}


@pytest.mark.parametrize(("kind", "advice"), ADVICE.items())
def test_what_the_playbook_cannot_heal_ends_with_advice_and_the_evidence(
    site: Site, page: WebServer, monkeypatch: pytest.MonkeyPatch, kind: Kind, advice: str
) -> None:
    page.health = 500
    for look in ((host, "reach"), (compose, "database_state"), (compose, "database_log")):
        monkeypatch.setattr(*look, lambda _site: None)
    monkeypatch.setattr(module, "attempt", lambda *_: False)
    monkeypatch.setattr(diagnosis, "why", lambda _site: Cause(kind=kind, lines=["a line of its log"]))
    state: Any = database_lost(site.name, return_state=True)
    assert state.name == "Unresolved"
    assert advice in state.message
    assert "a line of its log" in state.message


def test_both_playbooks_are_offered() -> None:
    assert {"database-lost", "backup-failed"} <= catalog.PLAYBOOKS.keys()
