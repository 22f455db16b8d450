"""What a restore makes room for, and what a run that was stopped again still knows."""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from blocks.errors import ConfigError
from blocks.site import Site
from flows.choice import Chosen
from flows.claims import Claim
from flows.data_corruption import compared, make_room
from flows.incident import Incident
from tasks import compose, rescuing, restoring, swapping
from tasks.timeline import Entry
from tests import sample

SITE = sample.site()
STOP, DROP = compose.stop_web.title, restoring.drop_beside.title


class Dropping:
    """Stands for the act that drops a database, and remembers which."""

    title = DROP

    def __init__(self) -> None:
        self.dropped: list[str] = []

    def __call__(self, site: Site, name: str) -> None:
        assert site == SITE
        self.dropped.append(name)

    def done(self, site: Site, name: str) -> bool:
        assert site == SITE
        return name in self.dropped


@pytest.fixture
def drop(monkeypatch: pytest.MonkeyPatch) -> Dropping:
    dropping = Dropping()
    monkeypatch.setattr(restoring, "drop_beside", dropping)
    return dropping


def incident(monkeypatch: pytest.MonkeyPatch, *acts: str) -> Incident:
    """An incident with these acts on its timeline, in order."""
    entries: Any = [Entry(kind="act", what=what) for what in acts]
    monkeypatch.setattr(Incident, "_entries", lambda _: entries)
    claim = Claim(run_id=uuid4(), playbook="x", section="X", severity="P1", site=SITE.name, opened=datetime.now(UTC))
    return Incident(claim, SITE)


def chosen(backup: str) -> Chosen:
    return Chosen(how="whole restore", backup=backup)


def test_what_was_restored_to_compare_with_is_removed_when_another_is_chosen(
    drop: Dropping, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_room(incident(monkeypatch, STOP), chosen("last"), "last")
    assert drop.dropped == []
    make_room(incident(monkeypatch, STOP), chosen("older"), "last")
    assert drop.dropped == ["last"]


def test_a_retried_run_that_chooses_what_was_removed_says_so(drop: Dropping, monkeypatch: pytest.MonkeyPatch) -> None:
    drop.dropped = ["last"]
    with pytest.raises(ConfigError, match="restored from last was removed") as caught:
        make_room(incident(monkeypatch, STOP, DROP, STOP), chosen("last"), "last")
    assert "Start the playbook again" in caught.value.cure


def test_a_rescue_that_has_removed_it_at_its_end_goes_on_to_its_letters(
    drop: Dropping, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop.dropped = ["last"]
    make_room(incident(monkeypatch, STOP, rescuing.put_back.title, DROP), chosen("last"), "last")
    assert drop.dropped == ["last"], "it was removed once more"


@pytest.mark.parametrize(
    ("acts", "times"),
    [
        ((), 1),
        ((STOP,), 1),
        ((STOP, STOP), 2),
        ((STOP, DROP, STOP), 1),
        ((STOP, STOP, DROP, STOP), 2),
        ((STOP, swapping.swap_in.title, STOP), 1),
    ],
)
def test_the_comparison_of_the_choice_is_made_anew_until_its_database_is_gone(
    monkeypatch: pytest.MonkeyPatch, acts: tuple[str, ...], times: int
) -> None:
    assert compared(incident(monkeypatch, *acts)) == times
