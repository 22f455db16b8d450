"""Rows put back into a real database that others keep writing to."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from blocks.database import Tenants
from blocks.errors import ConfigError, DatabaseRefused
from tasks import damage, rescue_choice, rescue_rows
from tasks.differences import TableDamage
from tasks.rescue import PutBack, Rescue
from tests.lab.site.invariants import invariants
from tests.postgres_server import PostgresServer
from tests.tasks import shop
from tests.tasks.shop import Pair

# Children first, as someone who means it would.
DELETE_SALES = """
DELETE FROM stock_move USING sale_line l WHERE sale_line_id = l.id AND l.tenant_id = 3;
DELETE FROM finance_ledger USING sale_payment p WHERE payment_id = p.id AND p.tenant_id = 3;
DELETE FROM sale_payment WHERE tenant_id = 3;
DELETE FROM receipt_mail WHERE tenant_id = 3;
DELETE FROM sale_line WHERE tenant_id = 3;
DELETE FROM sale WHERE tenant_id = 3;
"""
SALES = ("sale", "sale_line", "sale_payment", "stock_move", "finance_ledger")


@contextmanager
def pair(postgres: PostgresServer, script: str, later: str) -> Iterator[Pair]:
    """Two databases made by one script; then something happened to live."""
    postgres.create("r_live", script)
    postgres.create("r_beside", script)
    with postgres.connect("r_live") as live, postgres.connect("r_beside") as beside:
        live.execute(later.encode())
        yield live, beside


def plan(pair: Pair, *tables: str, tenants: tuple[str, ...] = (), changed: bool = False) -> Rescue:
    found = damage.compare(*pair, Tenants())
    return rescue_choice.plan(pair[1], found, tables, tenants, include_changed=changed)


def put_back(pair: Pair, *tables: str, changed: bool = False) -> PutBack:
    return rescue_rows.put_back(*pair, plan(pair, *tables, changed=changed))


@pytest.mark.parametrize("tables", [("public.a",), ("public.b",), ()])
def test_no_rows_are_put_back_while_a_table_cannot_be_read(postgres: PostgresServer, tables: tuple[str, ...]) -> None:
    with pair(postgres, "CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (1)", "DELETE FROM a") as both:
        found = damage.compare(*both, Tenants())
        broken = TableDamage(table="public.b", unreadable="invalid page in block 7")
        found = found.model_copy(update={"tables": (*found.tables, broken)})
        with pytest.raises(DatabaseRefused, match=r"public\.b cannot be read \(invalid page in block 7\)") as caught:
            rescue_choice.plan(both[1], found, tables)
    assert caught.value.cure == "Restore the whole backup: only that brings such a table back."


def equal(pair: Pair) -> bool:
    return not damage.compare(*pair, Tenants()).tables


def violated(live: Connection[Any]) -> list[str]:
    return [name for name, query in invariants().items() if shop.rows(live, query)]


def sell(live: Connection[Any], tenant: int) -> int:
    """A sale as the application writes it: totals, stock and the ledger follow by triggers."""
    with live.transaction():
        row = live.execute(
            "INSERT INTO sale (tenant_id, status) VALUES (%s, 'paid') RETURNING id", (tenant,)
        ).fetchone()
        assert row
        live.execute(
            "INSERT INTO sale_line (tenant_id, sale_id, product_id, quantity, unit_price) "
            "SELECT tenant_id, %s, id, 1, price FROM product WHERE id = %s",
            (row[0], (tenant - 1) * 60 + 1),
        )
        live.execute(
            "INSERT INTO sale_payment (tenant_id, sale_id, method, amount) "
            "SELECT tenant_id, id, 'cash', total FROM sale WHERE id = %s",
            row,
        )
    return int(row[0])


@contextmanager
def others_keep_selling(postgres: PostgresServer) -> Iterator[list[int]]:
    """Sales of all shops but the damaged one, until the block ends; yields the list of their numbers."""
    sold: list[int] = []
    stop = threading.Event()

    def work() -> None:
        with postgres.connect("damaged_live") as live:
            live.execute("UPDATE product_stock SET initial = initial + 100000, quantity = quantity + 100000 "
                         "WHERE tenant_id <> 3")  # fmt: skip
            while not stop.is_set():
                sold.append(sell(live, 4 + len(sold) % 10))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield sold
    finally:
        stop.set()
        thread.join()


def test_a_tenants_deleted_sales_come_back_while_others_keep_selling(shops: Pair, seeded: PostgresServer) -> None:
    live, beside = shops
    before = {table: shop.rows_of(beside, table, 3) for table in SALES}
    live.execute(DELETE_SALES.encode())
    gone = {table: len(rows) - len(shop.rows_of(live, table, 3)) for table, rows in before.items()}
    assert all(gone.values()) and "the stock is the initial stock and all its moves" in violated(live)
    with others_keep_selling(seeded) as sold:
        _wait(lambda: len(sold) >= 20)
        done = put_back(shops, *(f"public.{table}" for table in SALES))
        count = len(sold)
        _wait(lambda: len(sold) >= count + 20)
    for table, rows in before.items():
        assert shop.rows_of(live, table, 3) == rows
        assert done.tables[f"public.{table}"].by_tenant == {"3": (gone[table], 0)}
    found_sales = live.execute("SELECT count(*) FROM sale WHERE id = ANY(%s)", (sold,)).fetchone()
    assert found_sales == (len(sold),)
    assert violated(live) == []
    found = damage.compare(live, beside, Tenants())
    assert not any(t.missing for t in found.tables)
    again = rescue_rows.put_back(live, beside, rescue_choice.plan(beside, found))
    assert again.rows == 0 and again.summary == "put back nothing: all that was chosen is there"


def _wait(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.01)


def test_a_plan_carried_out_twice_puts_nothing_back_the_second_time(shops: Pair) -> None:
    shops[0].execute(DELETE_SALES.encode())
    wanted = plan(shops)
    assert rescue_rows.put_back(*shops, wanted).rows == wanted.rows > 0
    again = rescue_rows.put_back(*shops, wanted)
    assert again.rows == 0 and sum(t.already for t in again.tables.values()) == wanted.rows
    assert equal(shops)


def test_only_the_chosen_tables_and_tenants_are_put_back(shops: Pair) -> None:
    live, _ = shops
    live.execute(
        b"DELETE FROM tenant_setting WHERE tenant_id IN (3, 4); DELETE FROM receipt_mail; DELETE FROM product_price"
    )
    wanted = plan(shops, "public.tenant_setting", tenants=("4",))
    assert [(t.table, t.missing, t.by_tenant) for t in wanted.tables] == [("public.tenant_setting", 3, {"4": (3, 0)})]
    assert "Ferretería Balcarce (4)" in wanted.text
    rescue_rows.put_back(*shops, wanted)
    assert shop.rows(live, "SELECT DISTINCT tenant_id FROM tenant_setting WHERE tenant_id IN (3, 4)") == [(4,)]
    assert shop.rows(live, "SELECT count(*) FROM product_price") == [(0,)]


def test_rows_that_the_chosen_ones_refer_to_come_along_from_any_table(shops: Pair) -> None:
    live, _ = shops
    live.execute(DELETE_SALES.encode())
    wanted = plan(shops, "public.finance_ledger")
    named = {t.table: t for t in wanted.tables}
    assert list(named) == ["public.sale", "public.sale_payment", "public.finance_ledger"]
    assert named["public.sale"].needed == named["public.sale"].missing == named["public.finance_ledger"].missing > 0
    assert rescue_rows.put_back(*shops, wanted).rows == wanted.rows


def test_a_chain_of_references_is_followed_to_its_end(postgres: PostgresServer) -> None:
    script = """CREATE TABLE x (id serial PRIMARY KEY); CREATE TABLE y (id int PRIMARY KEY REFERENCES x);
        CREATE TABLE z (id int PRIMARY KEY REFERENCES y); INSERT INTO x VALUES (7); INSERT INTO y VALUES (7);
        INSERT INTO z VALUES (7)"""
    with pair(
        postgres, script, "DELETE FROM z; DELETE FROM y; DELETE FROM x; SELECT setval('x_id_seq', 7, false)"
    ) as both:
        done = put_back(both, "z")
        assert (list(done.tables), done.rows) == (["public.x", "public.y", "public.z"], 3)
        assert shop.rows(both[0], "SELECT nextval('x_id_seq')") == [(8,)]


def test_changed_rows_are_put_back_only_if_chosen_and_not_touched_since(shops: Pair) -> None:
    live, beside = shops
    live.execute("SET session_replication_role = replica")
    live.execute("UPDATE product SET price = 0 WHERE tenant_id = 2")
    assert plan(shops).rows == 0
    wanted = plan(shops, changed=True)
    assert wanted.rows == 60
    live.execute("UPDATE product SET price = 7 WHERE id = 61")
    done = rescue_rows.put_back(*shops, wanted)
    assert (done.rows, done.tables["public.product"].kept, done.tables["public.product"].examples) == (59, 1, ("(61)",))
    assert "(61)" in done.summary
    assert shop.rows(live, "SELECT price FROM product WHERE id = 61") == [(7,)]
    prices = "SELECT id, price, updated_at FROM product WHERE id <> 61 ORDER BY 1"
    assert shop.rows(live, prices) == shop.rows(beside, prices)


def test_a_key_that_another_row_took_is_told_and_not_overwritten(shops: Pair) -> None:
    live, _ = shops
    live.execute("DELETE FROM tenant_setting WHERE tenant_id = 3")
    wanted = plan(shops)
    live.execute("INSERT INTO tenant_setting VALUES (3, 'currency', 'USD')")
    done = rescue_rows.put_back(*shops, wanted)
    assert (done.rows, done.tables["public.tenant_setting"].examples) == (2, ("(3,currency)",))
    assert shop.rows(live, "SELECT value FROM tenant_setting WHERE (tenant_id, key) = (3, 'currency')") == [("USD",)]


def test_rows_are_never_put_back_under_a_parent_whose_key_another_took(shops: Pair) -> None:
    live, _ = shops
    live.execute(DELETE_SALES.encode())
    wanted = plan(shops)
    number = shop.rows(shops[1], "SELECT sale_id FROM sale_line WHERE tenant_id = 3 LIMIT 1")[0][0]
    live.execute("INSERT INTO sale (id, tenant_id) VALUES (%s, 5)", (number,))
    with pytest.raises(DatabaseRefused, match="keys are taken"):
        rescue_rows.put_back(*shops, wanted)
    assert shop.rows(live, "SELECT count(*) FROM sale WHERE tenant_id = 3") == [(0,)]


def test_a_unique_value_that_is_taken_keeps_its_row_out(postgres: PostgresServer) -> None:
    script = "CREATE TABLE t (id int PRIMARY KEY, mail text UNIQUE); INSERT INTO t VALUES (1, 'a'), (2, 'b')"
    with pair(postgres, script, "DELETE FROM t; INSERT INTO t VALUES (3, 'b')") as both:
        done = put_back(both)
        assert (done.rows, done.tables["public.t"].examples) == (1, ("(2)",))
        assert shop.rows(both[0], "SELECT * FROM t ORDER BY 1") == [(1, "a"), (3, "b")]


def test_a_parent_that_neither_side_has_refuses_the_rescue(postgres: PostgresServer) -> None:
    script = "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE c (id int PRIMARY KEY, p int REFERENCES p); "
    fill = "INSERT INTO p VALUES (1), (2); INSERT INTO c VALUES (1, 1), (2, 2)"
    with pair(postgres, script + fill, "DELETE FROM c") as both:
        wanted = plan(both)
        both[0].execute("DELETE FROM p WHERE id = 2")  # right after the assessment
        with pytest.raises(DatabaseRefused, match=r"1 rows of public\.c refer to rows of public\.p"):
            rescue_rows.put_back(*both, wanted)
        assert shop.rows(both[0], "SELECT count(*) FROM c") == [(0,)]


def test_a_verdict_against_the_rows_undoes_everything(shops: Pair) -> None:
    live, _ = shops
    live.execute(DELETE_SALES.encode())
    wanted = plan(shops)

    def verify(connection: Connection[Any]) -> None:
        assert shop.rows(connection, "SELECT count(*) FROM sale WHERE tenant_id = 3") != [(0,)]
        raise DatabaseRefused("an invariant does not hold")

    with pytest.raises(DatabaseRefused, match="invariant"):
        rescue_rows.put_back(*shops, wanted, verify)
    assert shop.rows(live, "SELECT count(*) FROM sale WHERE tenant_id = 3") == [(0,)]
    assert rescue_rows.put_back(*shops, wanted).rows == wanted.rows


def test_what_came_back_is_counted_alike_by_a_try_that_found_it_done(shops: Pair) -> None:
    live, beside = shops
    live.execute(DELETE_SALES.encode())
    wanted = plan(shops)
    done = rescue_rows.put_back(*shops, wanted)
    assert rescue_rows.noted(beside) == done and wanted.came_back(done).tables == wanted.tables
    assert wanted.came_back(done).summary.startswith("is back: ")
    again = rescue_rows.put_back(*shops, wanted)  # the first was killed before anybody could note it
    assert again.rows == 0 and wanted.came_back(again) == wanted.came_back(done)


def test_a_row_that_a_taken_value_keeps_out_did_not_come_back(postgres: PostgresServer) -> None:
    script = "CREATE TABLE t (id int PRIMARY KEY, mail text UNIQUE); INSERT INTO t VALUES (1, 'a'), (2, 'b')"
    with pair(postgres, script, "DELETE FROM t; INSERT INTO t VALUES (9, 'a')") as both:
        wanted = plan(both)
        assert wanted.rows == 2
        assert wanted.came_back(rescue_rows.put_back(*both, wanted)).rows == 1


def test_a_choice_that_a_later_one_replaced_is_refused(shops: Pair) -> None:
    live, beside = shops
    live.execute("SET session_replication_role = replica")
    live.execute("DELETE FROM sale_payment WHERE tenant_id IN (1, 3)")
    found = damage.compare(*shops, Tenants())
    first, _ = (rescue_choice.plan(beside, found, (), (tenant,)) for tenant in "13")
    with pytest.raises(DatabaseRefused, match="no longer what was approved"):
        rescue_rows.put_back(*shops, first)
    assert shop.rows(live, "SELECT count(*) FROM sale_payment WHERE tenant_id IN (1, 3)") == [(0,)]


def test_what_was_written_down_outlives_a_crash_of_the_server(shops: Pair) -> None:
    plan(shops)
    query = "SELECT relname FROM pg_class WHERE relnamespace = 'guardia'::regnamespace AND relpersistence = 'u'"
    scratch = {name for (name,) in shop.rows(shops[1], query)}
    assert scratch == {"live_rows", "live_columns"}, "these are filled and read in one go"


def test_rows_are_not_hung_on_what_another_tenant_has_under_their_numbers_now(shops: Pair) -> None:
    live, _ = shops
    first = shop.rows(live, "SELECT min(id) FROM sale WHERE tenant_id = 3")[0][0]
    live.execute("SET session_replication_role = replica")
    live.execute(DELETE_SALES.encode())
    live.execute("INSERT INTO sale (id, tenant_id, total) VALUES (%s, 4, 0)", (first,))
    found = {table.table: table for table in damage.compare(*shops, Tenants()).tables}["public.sale"]
    assert found.by_tenant["4"] == (0, 0, 1) and found.by_tenant["3"][1:] == (0, 0) and not found.changed
    with pytest.raises(DatabaseRefused, match=r"belong to rows of public\.sale whose keys are taken by others"):
        put_back(shops)


def test_a_sequence_that_was_reset_is_raised_and_one_that_went_on_is_left(shops: Pair) -> None:
    live, _ = shops
    live.execute("TRUNCATE supplier, category RESTART IDENTITY CASCADE")
    live.execute("SELECT nextval('category_id_seq'), setval('category_id_seq', 5000)")
    done = put_back(shops)
    assert "public.supplier_id_seq" in done.sequences and "public.category_id_seq" not in done.sequences
    assert shop.rows(live, "SELECT nextval('supplier_id_seq'), nextval('category_id_seq')") == [(101, 5001)]
    assert equal(shops) and violated(live) == []


def test_a_column_that_live_demands_and_the_backup_lacks_refuses_the_rescue(postgres: PostgresServer) -> None:
    script = "CREATE TABLE t (id int PRIMARY KEY, gone int); INSERT INTO t VALUES (1, 1), (2, 2)"
    later = "DELETE FROM t; ALTER TABLE t ADD extra int NOT NULL"
    with pair(postgres, script, later) as both, pytest.raises(DatabaseRefused, match="extra"):
        put_back(both)
    with pair(postgres, script, "DELETE FROM t; ALTER TABLE t ADD extra int NOT NULL DEFAULT 7, DROP gone") as both:
        assert put_back(both).rows == 2
        assert shop.rows(both[0], "SELECT * FROM t ORDER BY 1") == [(1, 7), (2, 7)]


def test_a_dropped_table_is_left_to_the_whole_restore(postgres: PostgresServer) -> None:
    script = "CREATE TABLE a AS SELECT 1 AS id; CREATE TABLE b AS SELECT 1 AS id"
    with pair(postgres, script, "DROP TABLE a; DELETE FROM b") as both:
        with pytest.raises(DatabaseRefused, match="whole backup"):
            plan(both, "public.a")
        wanted = plan(both)
        assert [t.table for t in wanted.tables] == ["public.b"] and "public.a: dropped" in wanted.text
        assert rescue_rows.put_back(*both, wanted).rows == 1


def test_a_choice_that_has_no_damage_is_refused_with_what_has(shops: Pair) -> None:
    shops[0].execute("DELETE FROM tenant_setting WHERE tenant_id = 3")
    with pytest.raises(ConfigError, match=r"public\.sale .*public\.tenant_setting"):
        plan(shops, "public.sale")
    with pytest.raises(ConfigError, match="tenant 99"):
        plan(shops, tenants=("99",))


def test_a_tables_schema_may_be_left_out_unless_two_are_meant(postgres: PostgresServer) -> None:
    script = "CREATE SCHEMA o; CREATE TABLE o.t AS SELECT 1; CREATE TABLE o.u AS SELECT 1; CREATE TABLE t AS SELECT 1"
    with pair(postgres, script, "DELETE FROM t; DELETE FROM o.t; DELETE FROM o.u") as both:
        assert [t.table for t in plan(both, "u").tables] == ["o.u"]
        with pytest.raises(ConfigError, match=r"t may be o\.t or public\.t"):
            plan(both, "t")


def test_an_assessment_that_was_replaced_is_not_acted_on(shops: Pair) -> None:
    shops[0].execute("DELETE FROM tenant_setting WHERE tenant_id = 3")
    wanted = plan(shops)
    damage.compare(*shops, Tenants())
    with pytest.raises(DatabaseRefused, match="Assess the damage again"):
        rescue_rows.put_back(*shops, wanted)


def test_no_lock_keeps_others_from_writing_during_a_rescue(shops: Pair, seeded: PostgresServer) -> None:
    live, beside = shops
    live.execute(DELETE_SALES.encode())
    wanted = plan(shops)
    live.execute("UPDATE product_stock SET initial = initial + 100, quantity = quantity + 100")

    def verify(_: Connection[Any]) -> None:
        with seeded.connect("damaged_live", options="-c lock_timeout=1000") as other:
            sell(other, 4)
            sell(other, 3)
            locks = shop.rows(
                other,
                "SELECT DISTINCT mode FROM pg_locks JOIN pg_class c ON c.oid = relation "
                "WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'",
            )
            assert {mode for (mode,) in locks} <= {"AccessShareLock", "RowShareLock", "RowExclusiveLock"}

    assert rescue_rows.put_back(live, beside, wanted, verify).rows == wanted.rows


def test_a_row_locked_by_another_ends_the_rescue_in_a_clear_error(
    shops: Pair, seeded: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rescue_rows, "_BEGIN", rescue_rows._BEGIN.replace("30s", "200ms"))
    live, beside = shops
    live.execute("UPDATE supplier SET name = 'x' WHERE id = 1")
    wanted = plan(shops, changed=True)
    with seeded.connect("damaged_live") as other, other.transaction():
        other.execute("SELECT FROM supplier WHERE id = 1 FOR UPDATE")
        with pytest.raises(DatabaseRefused, match="lock timeout"):
            rescue_rows.put_back(live, beside, wanted)


EXOTIC = {
    "self reference": (
        "CREATE TABLE t (id int PRIMARY KEY, up int REFERENCES t); INSERT INTO t VALUES (1, NULL), (2, 1), (3, 2)",
        "DELETE FROM t",
    ),
    "circle": (
        "CREATE TABLE a (id int PRIMARY KEY, b int); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a);"
        "ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b DEFERRABLE INITIALLY DEFERRED;"
        "INSERT INTO a VALUES (1, NULL); INSERT INTO b VALUES (1, 1); UPDATE a SET b = 1",
        "UPDATE a SET b = NULL; DELETE FROM b; DELETE FROM a",
    ),
    "composite key and reference": (
        "CREATE TABLE p (x int, y text, PRIMARY KEY (y, x)); CREATE TABLE c (id uuid PRIMARY KEY, py text, px int,"
        "FOREIGN KEY (px, py) REFERENCES p (x, y)); INSERT INTO p VALUES (1, 'ñ, \"''\\'), (2, '');"
        "INSERT INTO c VALUES (gen_random_uuid(), 'ñ, \"''\\', 1), (gen_random_uuid(), '', NULL)",
        "DELETE FROM c; DELETE FROM p",
    ),
    "generated and identity": (
        "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int,"
        "b int GENERATED ALWAYS AS (a * 2) STORED);"
        "INSERT INTO t (a) VALUES (1), (2), (3)",
        "DELETE FROM t WHERE a > 1; UPDATE t SET a = 5",
    ),
    "json, arrays and bytes": (
        "CREATE TYPE mood AS ENUM ('ok', 'bad');"
        "CREATE TABLE t (m mood PRIMARY KEY, j json, a mood[], b bytea, f float8);"
        "INSERT INTO t VALUES ('ok', '{\"a\" : 1}', '{ok,NULL}', '\\x00ff0a', 0.1), ('bad', NULL, '{}', '', 'NaN')",
        "DELETE FROM t WHERE m = 'bad'; UPDATE t SET j = '{}', a = NULL, b = NULL, f = 1",
    ),
    "quoted names": (
        'CREATE SCHEMA "Odd ""{one}"; CREATE TABLE "Odd ""{one}"."T%s" ("Id" int PRIMARY KEY, "a {} b" int);'
        'INSERT INTO "Odd ""{one}"."T%s" VALUES (1, 1), (2, 2)',
        'DELETE FROM "Odd ""{one}"."T%s" WHERE "Id" = 1; UPDATE "Odd ""{one}"."T%s" SET "a {} b" = 9',
    ),
    "partitions": (
        "CREATE TABLE t (id int, at int, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);"
        "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10);"
        "CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (10) TO (20); INSERT INTO t VALUES (1, 1), (2, 11);"
        "CREATE TABLE c (id int PRIMARY KEY, ti int, ta int, FOREIGN KEY (ti, ta) REFERENCES t);"
        "INSERT INTO c VALUES (1, 2, 11)",
        "DELETE FROM c; DELETE FROM t",
    ),
    "no key": (
        "CREATE TABLE log (word text, n int);"
        "INSERT INTO log VALUES ('a', 1), ('a', 1), ('a', 1), ('b', 2), (NULL, NULL)",
        "DELETE FROM log WHERE ctid IN (SELECT ctid FROM log WHERE n = 1 LIMIT 2); DELETE FROM log WHERE n IS NULL",
    ),
    "citext and hstore": (
        "CREATE SCHEMA x; CREATE EXTENSION citext SCHEMA x; CREATE EXTENSION hstore SCHEMA x;"
        "CREATE TABLE p (id x.citext PRIMARY KEY); CREATE TABLE t (id x.citext PRIMARY KEY REFERENCES p, h x.hstore);"
        "INSERT INTO p VALUES ('A'), ('b'); INSERT INTO t VALUES ('a', 'x=>1'), ('B', NULL)",
        "DELETE FROM t WHERE h IS NULL; DELETE FROM p WHERE id::text = 'b'; UPDATE t SET h = ''",
    ),
    "deferrable key": (
        "CREATE TABLE t (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, u int UNIQUE DEFERRABLE);"
        "INSERT INTO t VALUES (1, 1), (2, 2)",
        "DELETE FROM t WHERE id = 1; UPDATE t SET u = 3",
    ),
    "collation without case": (
        "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);"
        "CREATE TABLE t (id text COLLATE ci PRIMARY KEY, v int); INSERT INTO t VALUES ('Ab', 1), ('c', 2)",
        "UPDATE t SET v = 3 WHERE id = 'aB'; DELETE FROM t WHERE id = 'c'",
    ),
    "domain and composite type": (
        "CREATE TYPE money2 AS (amount numeric(12,2), unit text); CREATE DOMAIN positive AS int CHECK (VALUE > 0);"
        "CREATE TABLE t (id positive PRIMARY KEY, m money2); INSERT INTO t VALUES (1, (1.50, 'a,b')), (2, NULL)",
        "DELETE FROM t WHERE id = 1; UPDATE t SET m = (0, '')",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("script", "later"), EXOTIC.values(), ids=EXOTIC)
def test_exotic_tables_come_back_exactly(postgres: PostgresServer, script: str, later: str) -> None:
    with pair(postgres, script, later) as both:
        assert not equal(both)
        done = put_back(both, changed=True)
        assert done.rows and not any(t.kept for t in done.tables.values())
        assert equal(both)


FAMILY = """
CREATE TABLE owner (id int PRIMARY KEY, friend int REFERENCES owner, name text UNIQUE);
CREATE TABLE thing (id int, part int, owner int REFERENCES owner, twice int GENERATED ALWAYS AS (part * 2) STORED,
                    value json, PRIMARY KEY (part, id));
CREATE TABLE note (thing int, part int, words text, FOREIGN KEY (part, thing) REFERENCES thing (part, id));
INSERT INTO owner SELECT i, nullif(i / 2, 0), 'owner ' || i FROM generate_series(1, 40) i;
INSERT INTO thing (id, part, owner, value)
SELECT i % 20, i / 20, 1 + i % 40, json_build_object('v', i) FROM generate_series(0, 99) i;
INSERT INTO note SELECT id, part, 'note ' || id % 3 FROM thing, generate_series(1, 2);
"""
ORPHANS = """
SELECT (SELECT count(*) FROM thing t WHERE owner IS NOT NULL AND NOT EXISTS (SELECT FROM owner WHERE id = t.owner)),
    (SELECT count(*) FROM owner o WHERE friend IS NOT NULL AND NOT EXISTS (SELECT FROM owner WHERE id = o.friend))"""
TABLES = {"owner": "friend", "thing": "owner", "note": "words"}


@pytest.mark.parametrize("seed", range(12))
def test_whatever_was_deleted_and_overwritten_comes_back_and_what_is_new_stays(
    postgres: PostgresServer, seed: int
) -> None:
    chance = random.Random(seed)
    damages = [f"SELECT setseed({chance.random()}); SET session_replication_role = replica"]
    for table, column in TABLES.items():
        share = chance.choice([0, 0.1, 0.6, 1])
        damages.append(" ".join(("DELETE FROM", table, f"WHERE random() < {share}")))
        damages.append(" ".join(("UPDATE", table, f"SET {column} = NULL WHERE random() < 0.3")))
    damages += ["INSERT INTO owner VALUES (100, NULL, 'new')", "INSERT INTO thing VALUES (100, 100, 100)"]
    damages += ["INSERT INTO note VALUES (100, 100, 'new')", "RESET session_replication_role"]
    with pair(postgres, FAMILY, ";".join(damages)) as (live, beside):
        put_back((live, beside), changed=True)
        left = {table.table: table for table in damage.compare(live, beside, None).tables}
        assert not any(table.missing or table.changed for table in left.values())
        # A note has no key: where its words were overwritten, the old row is back and the other is still there.
        assert (left["public.owner"].new, left["public.thing"].new) == (1, 1)
        assert shop.rows(live, ORPHANS) == [(0, 0)]


def test_a_deferrable_constraint_that_the_rows_would_break_refuses_them(postgres: PostgresServer) -> None:
    script = "CREATE TABLE t (id int PRIMARY KEY, u int UNIQUE DEFERRABLE); INSERT INTO t VALUES (1, 1)"
    with pair(postgres, script, "UPDATE t SET id = 2") as both, pytest.raises(DatabaseRefused, match="t_u_key"):
        put_back(both)


def test_changed_values_that_live_rows_refer_to_are_not_pulled_away(postgres: PostgresServer) -> None:
    script = """CREATE TABLE p (id int PRIMARY KEY, code text UNIQUE); INSERT INTO p VALUES (1, 'a');
        CREATE TABLE c (code text REFERENCES p (code))"""
    with pair(postgres, script, "UPDATE p SET code = 'b'") as both:
        both[0].execute("INSERT INTO c VALUES ('b')")
        with pytest.raises(DatabaseRefused, match="as they are now"):
            put_back(both, changed=True)


def test_a_trigger_that_fires_always_and_alters_rows_refuses_the_rescue(postgres: PostgresServer) -> None:
    script = """CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1);
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.v := 99; RETURN NEW; END';
        CREATE TRIGGER f BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f(); ALTER TABLE t ENABLE ALWAYS TRIGGER f"""
    with pair(postgres, script, "DELETE FROM t") as both:
        with pytest.raises(DatabaseRefused, match="did not come out as in the backup"):
            put_back(both)
        assert shop.rows(both[0], "SELECT count(*) FROM t") == [(0,)]


def test_the_statements_for_people_name_tables_counts_and_tenants(shops: Pair) -> None:
    shops[0].execute("DELETE FROM tenant_setting WHERE tenant_id = 3")
    lines = [statement.line for statement in plan(shops).statements]
    assert lines[2] == (
        "damaged_live=# INSERT INTO public.tenant_setting SELECT 3 missing rows of damaged_beside "
        "(Ferretería Olavarria (3)) ON CONFLICT DO NOTHING"
    )


def test_a_connection_lost_on_the_way_leaves_nothing_behind(shops: Pair, seeded: PostgresServer) -> None:
    live, _ = shops
    live.execute(DELETE_SALES.encode())
    wanted = plan(shops)

    def verify(connection: Connection[Any]) -> None:
        with seeded.connect() as other:
            other.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
        connection.execute("SELECT 1")

    with pytest.raises(Exception, match="terminat") as raised:
        rescue_rows.put_back(*shops, wanted, verify)
    assert not isinstance(raised.value, psycopg.Error)
    with seeded.connect("damaged_live") as again:
        assert shop.rows(again, "SELECT count(*) FROM sale WHERE tenant_id = 3") == [(0,)]
        assert rescue_rows.put_back(again, shops[1], wanted).rows == wanted.rows
