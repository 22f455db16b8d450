"""What a restore gave back and cost, tenant by tenant, and the letters that say so."""

import time
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import get_client

from blocks.errors import CommandFailed
from tasks import loss, notify, timeline
from tasks.command import Plan
from tasks.damage import Damage
from tasks.differences import TableDamage
from tasks.loss import Loss, Share
from tasks.rescue import Rescue, TableRescue
from tests import sample
from tests.mail_server import MailServer

SITE = sample.site()
PLAN = Plan(what="", where="", commands=(), cost="")
OWNERS = [("3", "Azul", "owner@azul.test"), ("7", "Rauch", "")]
DAMAGE = Damage(
    live="d", beside="d_new", at=datetime(2026, 11, 24, 12, tzinfo=UTC), compared=9,
    tenants={"3": "Azul", "7": "Rauch"},
    tables=(
        TableDamage(table="public.sale", missing=7, changed=2, new=6, by_tenant={"3": (7, 2, 5), "7": (0, 0, 1)}),
        TableDamage(table="public.schema_version", new=1),
    ),
)  # fmt: skip


def of(how: loss.How) -> Loss:
    return loss.of(DAMAGE, how, "2026-11-24T030000Z", OWNERS, "Kept in d_old.")


def test_a_whole_restore_costs_what_is_only_in_the_live_database() -> None:
    shares = {share.name: (share.back, share.set_back, share.lost) for share in of("whole restore").shares}
    assert shares == {
        "Azul": ({"public.sale": 7}, {"public.sale": 2}, {"public.sale": 5}),
        "Rauch": ({}, {}, {"public.sale": 1}),
        "no tenant": ({}, {}, {"public.schema_version": 1}),
    }
    assert of("whole restore").summary.endswith("7 rows back, 2 rows set back, 7 rows lost; 2 tenants are affected")
    assert of("whole restore").shares[0].words == "Azul: 7 rows come back, 2 rows are set back, 5 rows are lost"


def rescued(missing: int, changed: int) -> Loss:
    """What a rescue of so many rows of Azul cost."""
    table = TableRescue(
        table="public.sale", key=("id",), compared=(), missing=missing, changed=changed, needed=0,
        by_tenant={"3": (missing, changed)},
    )  # fmt: skip
    rescue = Rescue(
        live="d", beside="d_new", at=DAMAGE.at, tables=(table,), tenants=DAMAGE.tenants, chosen=(), of=("3",),
        include_changed=changed > 0,
    )  # fmt: skip
    return loss.of(rescue, "rescue", "2026-11-24T030000Z", OWNERS, "Nothing was taken away.")


def broken() -> Loss:
    """What a whole restore costs while another table cannot be read."""
    move = TableDamage(table="public.move", unreadable="invalid page in block 0")
    found = DAMAGE.model_copy(update={"tables": (*DAMAGE.tables, move)})
    return loss.of(found, "whole restore", "2026-11-24T030000Z", OWNERS, "Kept in d_old.")


def test_what_a_table_held_that_cannot_be_read_is_not_said_to_be_nothing() -> None:
    cost, words = broken(), "public.move cannot be read (invalid page in block 0): what of it is lost"
    assert cost.shares == of("whole restore").shares
    assert cost.summary == f"{of('whole restore').summary}; {words} cannot be counted"
    assert cost.text.splitlines()[-2:] == [f"{words} cannot be counted", "Kept in d_old."]


def test_a_letter_says_of_which_table_nothing_can_be_counted() -> None:
    ((_, text),) = loss.letters(SITE, broken())
    assert "All of move is as it was in that backup." in text and "public.move" not in text
    spared = broken().model_copy(update={"shares": [Share(tenant="3", name="Azul", email="a@b.test")]})
    ((_, text),) = loss.letters(SITE, spared)
    assert "how much that is cannot be counted" in text and "Nothing of yours was lost" not in text


def test_a_rescue_costs_nothing_and_gives_back_only_what_was_chosen() -> None:
    cost = rescued(4, 0)
    assert [(share.name, share.back, share.lost) for share in cost.shares] == [("Azul", {"public.sale": 4}, {})]
    assert (
        cost.summary
        == "rescue from 2026-11-24T030000Z: 4 rows back, 0 rows set back, 0 rows lost; 1 tenants are affected"
    )


def test_the_record_of_a_whole_restore_names_what_was_set_aside_and_the_command_that_swaps_back() -> None:
    undo = "It goes back by `guardia undo-restore --site tandil`."
    there = "What is lost is still in the database d_old"
    assert loss.way_back(SITE, "d_old", "b-safety") == f"{there} and in the backup b-safety. {undo}"
    assert loss.way_back(SITE, "d_old", "") == f"{there} alone: there is NO safety backup. {undo}"


def test_the_record_of_a_rescue_which_sets_nothing_aside_names_the_safety_backup_to_go_back_to() -> None:
    words = loss.way_back(SITE, "", "b-safety")
    assert "the backup b-safety; it goes back by `guardia restore b-safety --site tandil`" in words
    assert "undo-restore" not in words


def test_what_was_not_compared_is_not_said_to_cost_nothing() -> None:
    plan = loss.of(DAMAGE.model_copy(update={"compared": 0, "tables": ()}), "whole restore", "b", [], "")
    assert plan.summary == "whole restore from b: what it costs is counted when it is restored beside the live data"


def test_the_record_names_every_table_and_where_the_lost_rows_are() -> None:
    assert of("whole restore").text.splitlines() == [
        "Azul: back public.sale 7; set back public.sale 2; lost public.sale 5",
        "Rauch: back nothing; set back nothing; lost public.sale 1",
        "no tenant: back nothing; set back nothing; lost public.schema_version 1",
        "Kept in d_old.",
    ]


def test_only_owners_with_an_address_get_a_letter() -> None:
    assert [share.email for share, _ in loss.letters(SITE, of("whole restore"))] == ["owner@azul.test"]


def test_a_letter_says_exactly_what_came_back_and_what_is_lost() -> None:
    ((_, text),) = loss.letters(SITE, of("whole restore"))
    assert "on 2026-11-24 12:00:00 UTC data of https://tandil.site/ was put back" in text
    assert "as it was in the backup 2026-11-24T030000Z:\n- sale: 7 rows\n" in text
    assert "has, because it was changed since:\n- sale: 2 rows\n" in text
    assert "because it was entered after that backup:\n- sale: 5 rows\n" in text


def test_a_letter_after_a_rescue_says_that_nothing_was_lost() -> None:
    ((_, text),) = loss.letters(SITE, rescued(4, 0))
    assert "Nothing of yours was lost." in text and "No longer" not in text


def test_rows_that_an_update_spoilt_are_not_said_to_be_gone_when_they_are_set_back() -> None:
    ((share, text),) = loss.letters(SITE, rescued(0, 60))
    assert (share.back, share.set_back, share.lost) == ({}, {"public.sale": 60}, {})
    assert "Set back to what the backup 2026-11-24T030000Z has, because it was changed since:\n- sale: 60 rows" in text
    assert "What it was in between is kept" in text and "Nothing else of yours was lost." in text
    assert "No longer" not in text and "Put back" not in text


def test_the_plan_of_the_letters_is_the_same_until_the_loss_is_another() -> None:
    first, again = (loss.write_to_tenants.plan(SITE, rescued(4, 0)).hash for _ in range(2))
    assert first == again != loss.write_to_tenants.plan(SITE, of("whole restore")).hash


@pytest.mark.usefixtures("prefect_server")
def test_a_run_that_was_killed_among_its_letters_writes_to_nobody_twice() -> None:
    with MailServer() as post:
        site = sample.site(mailbox=post.settings)
        owners = [*OWNERS[:1], ("7", "Rauch", "owner@rauch.test")]
        cost = loss.of(DAMAGE, "whole restore", "2026-11-24T030000Z", owners, "")
        run_id = uuid4()
        timeline.begin(timeline.Run(id=run_id, playbook="data-corruption", site=site))
        try:
            notify.note("Azul", "owner@azul.test", "Your data", problem="", body="", template=loss.LETTER)
            notify.note("Rauch", "owner@rauch.test", "Your data", problem="was cut off", body="", template=loss.LETTER)
            timeline.begin(timeline.Run(id=run_id, playbook="data-corruption", site=site))  # the next process
            stored(run_id)
            assert loss._write(PLAN, site, cost) == "2 letters sent"
        finally:
            timeline.end()
    assert [message["To"] for message in post.messages] == ["owner@rauch.test"]


def test_letters_that_could_not_be_sent_are_a_failure_that_names_their_tenants() -> None:
    with MailServer() as post:
        site = sample.site(mailbox=post.settings)
    cost = loss.of(DAMAGE, "whole restore", "2026-11-24T030000Z", [*OWNERS[:1], ("7", "Rauch", "owner@rauch.test")], "")
    with pytest.raises(CommandFailed, match=r"^0 letters sent; NOT to Azul, Rauch\."):
        loss._write(PLAN, site, cost)


def stored(run_id: UUID) -> None:
    """Wait until the server has both notes."""
    with get_client(sync_client=True) as client:
        for _ in range(100):
            if len(timeline.read(client, run_id)) == 2:
                return
            time.sleep(0.1)
    raise AssertionError("the notes did not arrive")
