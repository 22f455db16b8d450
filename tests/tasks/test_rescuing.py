"""Which rows a person means, and rows that would break what always holds."""

from datetime import UTC, datetime

import pytest
from psycopg import Connection

from blocks.errors import ConfigError, DatabaseRefused
from tasks import rescuing
from tasks.damage import Damage
from tasks.differences import TableDamage
from tasks.rescue import Rescue
from tests import sample
from tests.postgres_server import PostgresServer

FOUND = Damage(
    live="d", beside="d_new", at=datetime(2026, 11, 24, 12, tzinfo=UTC), compared=9,
    tenants={"3": "Azul", "4": "Tandil, the new one", "7": "Azul"},
    tables=tuple(TableDamage(table=name, missing=1) for name in ("public.sale", "old.sale", "public.move")),
)  # fmt: skip

MEANT: dict[str, tuple[list[str], list[str]]] = {
    "public.sale": (["public.sale"], []),
    "move": (["public.move"], []),
    "3": ([], ["3"]),
    "Azul (7)": ([], ["7"]),
    "Tandil, the new one": ([], ["4"]),
}


@pytest.mark.parametrize("word", MEANT)
def test_a_word_means_one_table_or_one_tenant(word: str) -> None:
    assert rescuing._sorted_out(FOUND, [word]) == MEANT[word]


@pytest.mark.parametrize(("word", "problem"), [("sale", "several"), ("Azul", "several"), ("Rauch", "no affected")])
def test_a_word_that_means_several_or_none_is_refused_with_those_there_are(word: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        rescuing._sorted_out(FOUND, ["move", word])
    assert "public.sale, old.sale, public.move, Azul (3)" in caught.value.cure


def test_the_plan_says_that_the_backup_failed_its_proof() -> None:
    wanted = Rescue(
        live="d", beside="d_new", at=FOUND.at, tables=(), tenants={}, chosen=(), of=(), include_changed=False
    )
    assert rescuing.put_back.plan(sample.site(), wanted).facts == ("nothing to put back",)
    facts = rescuing.put_back.plan(sample.site(), wanted, "no sale is free: 3 rows").facts
    assert facts == ("the backup is BAD: no sale is free: 3 rows", "nothing to put back")


INVARIANTS = "-- name: no debts\nSELECT * FROM account WHERE amount < 0;\n"


def test_rows_with_which_more_violates_an_invariant_are_refused(postgres: PostgresServer) -> None:
    postgres.create("worse", "CREATE TABLE account (amount int); INSERT INTO account VALUES (-1), (5)")
    with postgres.connect("worse") as live:
        verify = rescuing._no_worse(live, INVARIANTS)
        assert verify is not None
        verify(live)  # what was wrong before is not the rows' fault
        with pytest.raises(DatabaseRefused, match="no debts: 2 rows"), live.transaction():
            live.execute("INSERT INTO account VALUES (-2), (-3)")
            verify(live)
        assert amounts(live) == [-1, 5]
        with live.transaction():
            live.execute("INSERT INTO account VALUES (7)")
            verify(live)
        assert amounts(live) == [-1, 5, 7]


def test_invariants_that_cannot_be_asked_do_not_keep_rows_out(postgres: PostgresServer) -> None:
    postgres.create("gone")
    with postgres.connect("gone") as live:
        assert rescuing._no_worse(live, INVARIANTS) is None


def amounts(live: Connection[tuple[object, ...]]) -> list[object]:
    return [amount for (amount,) in live.execute("SELECT amount FROM account ORDER BY 1")]
