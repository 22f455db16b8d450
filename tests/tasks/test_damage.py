"""What differs between two real databases, and how it is told."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from blocks.database import Tenants
from tasks import damage, differences, rescue_choice, rescue_rows
from tasks.differences import TableDamage
from tasks.postgres import SETTINGS
from tests.postgres_server import PostgresServer
from tests.tasks import shop
from tests.tasks.shop import Pair


def pair(postgres: PostgresServer, script: str, later: str) -> damage.Damage:
    """Compare two databases made by one script; then something happened to live."""
    postgres.create("d_live", script)
    postgres.create("d_beside", script)
    with postgres.connect("d_live") as live, postgres.connect("d_beside") as beside:
        live.execute(later.encode())
        return damage.compare(live, beside, Tenants())


@contextmanager
def garbled(postgres: PostgresServer, *tables: str) -> Iterator[Pair]:
    """Two shops, the live one with tables that the server cannot read."""
    shop.garble(postgres, "damaged_beside", "damaged_live", *tables)
    with postgres.connect("damaged_live") as live, postgres.connect("damaged_beside") as beside:
        yield live, beside
        damage.forget(beside)


def only(found: damage.Damage) -> TableDamage:
    (table,) = found.tables
    return table


def test_equal_databases_have_no_damage(shops: Pair) -> None:
    found = damage.compare(*shops, Tenants())
    assert found.ok and not found.tables and found.compared == 18
    assert found.summary == "all 18 tables are as in the backup"


def test_a_tenants_deleted_sales_are_counted_under_its_name(shops: Pair) -> None:
    live, beside = shops
    live.execute("SET session_replication_role = replica")
    live.execute("DELETE FROM sale_line WHERE tenant_id = 3")
    live.execute("INSERT INTO sale (tenant_id, total) VALUES (4, 0)")
    lines = shop.rows(beside, "SELECT count(*) FROM sale_line WHERE tenant_id = 3")[0][0]
    found = damage.compare(live, beside, Tenants())
    tables = {table.table: table for table in found.tables}
    assert tables["public.sale_line"].by_tenant == {"3": (lines, 0, 0)}
    assert tables["public.sale"].by_tenant == {"4": (0, 0, 1)}
    assert found.affected == ["3"] and found.tenants["3"] == "Ferretería Olavarria"
    assert "Ferretería Olavarria (3)" in found.text
    assert not found.ok


def test_the_columns_that_an_update_overwrote_are_counted(shops: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(differences, "KEYS", 7)
    live, beside = shops
    live.execute("SET session_replication_role = replica")
    live.execute("UPDATE product SET price = price + 1 WHERE tenant_id = 2")
    live.execute("UPDATE product SET name = 'x' WHERE id = 61")
    (product,) = damage.compare(live, beside, Tenants()).tables
    assert (product.missing, product.changed, product.new) == (0, 60, 0)
    assert product.columns == {"name": 1, "price": 60}


def test_rows_without_a_tenants_number_belong_to_whom_their_parents_belong(shops: Pair) -> None:
    live, beside = shops
    live.execute("DELETE FROM product_price WHERE product_id BETWEEN 1 AND 60")
    assert only(damage.compare(live, beside, Tenants())).by_tenant == {"1": (60, 0, 0)}


def test_a_tenant_that_is_gone_is_still_named(shops: Pair) -> None:
    live, beside = shops
    live.execute("SET session_replication_role = replica")
    live.execute("DELETE FROM tenant WHERE id = 5")
    found = damage.compare(live, beside, Tenants())
    assert found.tenants == {"5": "Ferretería Necochea"}


def test_the_summary_names_the_first_affected_tenants_and_counts_the_others() -> None:
    table = TableDamage(
        table="public.t", missing=8, new=1, by_tenant={str(n): (1, 0, 0) for n in range(8)} | {"8": (0, 0, 1)}
    )
    found = damage.Damage(
        live="l",
        beside="b",
        at=datetime.now(UTC),
        tables=(table,),
        tenants={str(n): f"T{n}" for n in range(9)},
        compared=3,
    )
    assert found.summary == "rows: 8 missing, 0 changed, 1 new; of T0, T1, T2, T3, T4 and 3 more"
    assert "8" not in found.affected


def test_a_dropped_and_a_new_table_are_named(postgres: PostgresServer) -> None:
    found = pair(
        postgres,
        "CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a SELECT generate_series(1, 7)",
        "DROP TABLE a; CREATE TABLE b (x int); INSERT INTO b VALUES (1), (1)",
    )
    a, b = found.tables
    assert (a.table, a.missing, a.dropped) == ("public.a", 7, True)
    assert (b.table, b.new, b.dropped) == ("public.b", 2, False)
    assert "dropped: public.a" in found.summary


def test_rows_without_a_key_are_compared_with_their_copies(postgres: PostgresServer) -> None:
    table = only(
        pair(
            postgres,
            "CREATE TABLE log (word text); INSERT INTO log VALUES ('a'), ('a'), ('a'), ('b'), (NULL)",
            "DELETE FROM log WHERE ctid IN (SELECT ctid FROM log WHERE word = 'a' LIMIT 2);"
            "DELETE FROM log WHERE word IS NULL; INSERT INTO log VALUES ('c'), ('')",
        )
    )
    assert (table.key, table.missing, table.changed, table.new) == ((), 3, 0, 2)


def test_columns_added_dropped_and_reordered_are_noted_and_not_taken_for_changes(postgres: PostgresServer) -> None:
    table = only(
        pair(
            postgres,
            "CREATE TABLE t (id int PRIMARY KEY, gone int, a text, b text); INSERT INTO t VALUES (1, 2, 'x', 'y')",
            "ALTER TABLE t DROP gone, DROP a, ADD extra int; ALTER TABLE t ADD a text; UPDATE t SET a = 'x'",
        )
    )
    assert (table.missing, table.changed, table.new) == (0, 0, 0)
    assert table.note == "columns added since the backup: extra; columns dropped since the backup: gone"


@pytest.mark.parametrize(
    ("script", "later", "expected"),
    [
        (
            "CREATE TABLE t (a text COLLATE \"C\", b uuid, j json, PRIMARY KEY (a, b));"
            "INSERT INTO t VALUES ('ñandú ''\"', '00000000-0000-0000-0000-000000000001', '{\"a\": 1}'),"
            "('日本', '00000000-0000-0000-0000-000000000002', NULL)",
            "UPDATE t SET j = '{\"a\": 2}' WHERE j IS NOT NULL",
            (0, 1, 0),
        ),
        (
            "CREATE TYPE mood AS ENUM ('ok', 'bad'); CREATE TABLE t (m mood PRIMARY KEY, a int[], b bytea);"
            "INSERT INTO t VALUES ('ok', '{1,NULL}', '\\x00ff'), ('bad', '{}', NULL)",
            "UPDATE t SET a = '{1}' WHERE m = 'ok'; UPDATE t SET b = '' WHERE m = 'bad'",
            (0, 2, 0),
        ),
        (
            'CREATE SCHEMA "Odd ""one"; CREATE TABLE "Odd ""one"."T%s" ("Id" int PRIMARY KEY, "a b" int);'
            'INSERT INTO "Odd ""one"."T%s" VALUES (1, 1), (2, 2)',
            'DELETE FROM "Odd ""one"."T%s" WHERE "Id" = 1',
            (1, 0, 0),
        ),
        (
            "CREATE TABLE t (id int, at int, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);"
            "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10);"
            "CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (10) TO (20); INSERT INTO t VALUES (1, 1), (2, 11)",
            "DELETE FROM t WHERE id = 2; INSERT INTO t VALUES (3, 12)",
            (1, 0, 1),
        ),
        (
            "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u () INHERITS (t);"
            "INSERT INTO t VALUES (1), (2); INSERT INTO u VALUES (3)",
            "DELETE FROM u",
            (1, 0, 0),
        ),
        (
            "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);"
            "CREATE TABLE t (id text COLLATE ci PRIMARY KEY, v int); INSERT INTO t VALUES ('Ab', 1), ('c', 2)",
            "UPDATE t SET v = 3 WHERE id = 'aB'",
            (0, 1, 0),
        ),
    ],
    ids=["text, uuid and json", "enum, array and bytea", "quoted names", "partitions", "inheritance", "collation"],
)  # fmt: skip
def test_exotic_tables_are_compared_exactly(
    postgres: PostgresServer, script: str, later: str, expected: tuple[int, int, int]
) -> None:
    table = only(pair(postgres, script, later))
    assert (table.missing, table.changed, table.new) == expected


def test_a_write_during_the_comparison_is_not_taken_for_damage(
    shops: Pair, seeded: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = differences.compare_table

    def and_then_write(*args: Any) -> TableDamage | None:
        with seeded.connect("damaged_live") as other:
            other.execute("INSERT INTO supplier (tenant_id, name) VALUES (1, 'late')")
            other.execute("INSERT INTO tenant_setting VALUES (1, clock_timestamp()::text, '')")
        return real(*args)

    monkeypatch.setattr(differences, "compare_table", and_then_write)
    assert damage.compare(*shops, Tenants()).tables == ()
    assert not damage.compare(*shops, Tenants()).tables[0].missing


def test_a_table_that_cannot_be_read_is_told_and_the_others_are_compared(seeded: PostgresServer) -> None:
    with garbled(seeded, "sale") as (live, beside):
        live.execute("SET session_replication_role = replica")
        live.execute("DELETE FROM product_price WHERE product_id BETWEEN 1 AND 60")
        live.execute("INSERT INTO tenant_setting VALUES (1, 'new', '')")
        found = damage.compare(live, beside, Tenants())
        tables = {table.table: table for table in found.tables}
        assert set(tables) == {"public.product_price", "public.sale", "public.tenant_setting"}
        assert tables["public.sale"].unreadable.startswith("invalid page in block 0 of relation base/")
        assert tables["public.product_price"].by_tenant == {"1": (60, 0, 0)}
        assert tables["public.tenant_setting"].by_tenant == {"1": (0, 0, 1)}
        assert not found.ok and found.compared == 18
        assert shop.rows(beside, "SELECT count(*) FROM guardia.damaged WHERE tab = 'public.sale'") == [(0,)]
    said = found.unreadable["public.sale"]
    assert said == f"public.sale cannot be read ({tables['public.sale'].unreadable})"
    assert found.summary == (
        f"{said}: rows cannot be counted there; elsewhere: 60 missing, 0 changed, 1 new; of Ferretería Tandil"
    )
    assert re.search(r"^public.sale +unknown  unknown  unknown$", found.text, re.M) and said in found.text


def test_a_table_whose_file_is_gone_is_told_too(seeded: PostgresServer) -> None:
    with garbled(seeded) as (live, beside):
        ((path,),) = shop.rows(live, "SELECT pg_relation_filepath('sale')")
        (seeded.data / path).unlink()
        (table,) = damage.compare(live, beside, Tenants()).tables
    assert table.table == "public.sale" and table.unreadable.startswith('could not open file "base/')


def test_what_a_whole_restore_brings_back_of_a_table_that_cannot_be_read_is_all_that_the_backup_has(
    seeded: PostgresServer,
) -> None:
    with garbled(seeded, "sale", "category") as (live, beside):
        live.execute("DELETE FROM tenant_setting WHERE tenant_id = 7")
        found = damage.compare(live, beside, Tenants())
        assert list(found.tenants) == ["7"]
        whole = damage.brought_back(found, beside, Tenants())
        tables = {table.table: table for table in whole.tables}
        alone = damage.brought_back(found, beside, None)
        ((of_the_third,),) = shop.rows(beside, "SELECT count(*) FROM sale WHERE tenant_id = 3")
    assert whole.unreadable == found.unreadable
    assert tables["public.sale"].missing == 2000 and tables["public.sale"].by_tenant["3"] == (of_the_third, 0, 0)
    assert tables["public.tenant_setting"] in found.tables
    assert [table.by_tenant for table in alone.tables if table.table == "public.sale"] == [{"": (2000, 0, 0)}]
    assert len(whole.tenants) == 20 and whole.tenants["3"] == "Ferretería Olavarria"


def test_the_backup_names_the_tenants_whose_table_cannot_be_read(seeded: PostgresServer) -> None:
    with garbled(seeded, "tenant") as (live, beside):
        live.execute("SET session_replication_role = replica")
        live.execute("DELETE FROM supplier WHERE tenant_id = 3")
        found = damage.compare(live, beside, Tenants())
        assert [table.table for table in found.tables if table.unreadable] == ["public.tenant"]
        assert found.tenants == {"3": "Ferretería Olavarria"}
        assert damage.owners(live, Tenants(), ["3"]) == []


def test_rows_are_compared_whose_tenant_stands_in_a_table_that_cannot_be_read(seeded: PostgresServer) -> None:
    with garbled(seeded, "product") as (live, beside):
        live.execute("SET session_replication_role = replica")
        live.execute("DELETE FROM product_price WHERE product_id BETWEEN 1 AND 60")
        live.execute("INSERT INTO product_price (product_id, price) VALUES (99, 1)")
        tables = {table.table: table for table in damage.compare(live, beside, Tenants()).tables}
        prices = tables["public.product_price"]
        assert prices.by_tenant == {"": (0, 0, 1), "1": (60, 0, 0)}
        assert prices.note.startswith("whose the new rows are cannot be told: invalid page in block 0")


def test_what_the_restored_database_cannot_read_is_an_error(seeded: PostgresServer) -> None:
    shop.garble(seeded, "damaged_beside", "spoilt_beside", "sale")
    with (
        seeded.connect("damaged_beside") as live,
        seeded.connect("spoilt_beside") as beside,
        pytest.raises(psycopg.errors.DataCorrupted),
    ):
        damage.compare(live, beside, Tenants())


def test_a_query_for_recent_data_that_meets_a_broken_page_is_shown_as_failed(seeded: PostgresServer) -> None:
    with garbled(seeded, "sale") as (live, _):
        shown = damage.recent(live, ["SELECT count(*) FROM sale", "SELECT 'still here' AS answer"])
    assert "failed: invalid page in block 0" in shown and "still here" in shown


def test_a_comparison_leaves_live_alone_and_can_be_forgotten(shops: Pair) -> None:
    live, beside = shops
    damage.compare(live, beside, Tenants())
    damage.compare(live, beside, None)
    assert shop.rows(live, "SELECT nspname FROM pg_namespace WHERE nspname = 'guardia'") == []
    damage.forget(beside)
    assert shop.rows(beside, "SELECT nspname FROM pg_namespace WHERE nspname = 'guardia'") == []


def test_the_guides_queries_are_shown_as_tables_of_bounded_size(shops: Pair) -> None:
    shown = damage.recent(
        shops[0],
        ["SELECT id, slug FROM tenant ORDER BY id LIMIT 1", "SELECT repeat('x', 500), n FROM generate_series(1, 99) n"],
    )
    assert "id  slug\n--  ------\n1   tandil" in shown
    assert max(map(len, shown.splitlines())) < 80 and len(shown.splitlines()) < 40


def test_everything_works_in_sessions_as_guardia_opens_them(seeded: PostgresServer) -> None:
    options = " ".join(f"-c {name}={value}" for name, value in SETTINGS.items())
    shop.copy(seeded, "damaged_beside", "damaged_live")
    with (
        seeded.connect("damaged_live", options=options) as live,
        seeded.connect("damaged_beside", options=options) as beside,
    ):
        live.execute("DELETE FROM public.tenant_setting WHERE tenant_id = 3")
        found = damage.compare(live, beside, Tenants())
        assert found.tenants == {"3": "Ferretería Olavarria"}
        assert rescue_rows.put_back(live, beside, rescue_choice.plan(beside, found, ["tenant_setting"])).rows == 3
        assert "Ferretería Azul" in damage.recent(live, ["SELECT * FROM tenant"])
        damage.forget(beside)


@pytest.mark.parametrize(
    "query", ["SELECT * FROM nowhere", "DELETE FROM sale", "SELECT 1; DROP TABLE sale", "COMMIT", "SELECT 1 / 0", ""]
)
def test_a_query_that_fails_or_writes_is_shown_as_failed(shops: Pair, query: str) -> None:
    shown = damage.recent(shops[0], [query, "SELECT 'still here' AS answer"])
    assert "failed: " in shown and "still here" in shown
    assert shop.rows(shops[0], "SELECT count(*) FROM sale") == [(2000,)]


def test_owners_are_looked_up_by_the_tenants_keys(shops: Pair) -> None:
    assert damage.owners(shops[0], Tenants(), ["2", "nobody"]) == [("2", "Ferretería Azul", "owner@azul.test")]
    assert damage.owners(shops[0], Tenants(email=None), ["2"]) == [("2", "Ferretería Azul", "")]
    assert damage.owners(shops[0], None, ["2"]) == []
