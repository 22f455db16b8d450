"""A manifest is exact: the same after dump and restore, another one after any damage."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from blocks.errors import DatabaseRefused
from tasks import cluster, inventory
from tasks.manifest import Contents, differences
from tests.postgres_server import USER, PostgresServer

EXOTIC = (Path(__file__).parents[1] / "exotic.sql").read_text()
CASHIER = '"Cajera Ñandú"'
SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"


@contextmanager
def snapshot(server: PostgresServer, database: str) -> Iterator[psycopg.Connection[Any]]:
    with server.connect(database) as connection:
        connection.execute(SNAPSHOT)
        yield connection


def taken(server: PostgresServer, database: str) -> Contents:
    with snapshot(server, database) as connection:
        return inventory.take(connection)


def create(server: PostgresServer, database: str, options: str = "") -> None:
    with server.connect() as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')
        connection.execute(f'CREATE DATABASE "{database}" TEMPLATE template0 {options}')


def copied(server: PostgresServer, source: str, target: str, options: str = "") -> None:
    archive = server.folder / f"{target}.dump"
    server.run("pg_dump", "-Fc", "-f", str(archive), "-d", server.dsn(source))
    create(server, target, options)
    server.run("pg_restore", "--exit-on-error", "-d", server.dsn(target), str(archive))


@pytest.fixture(scope="module")
def exotic(postgres: PostgresServer) -> Contents:
    """The exotic database as it is, and a restored one beside it, `restored`."""
    with postgres.connect() as connection:
        connection.execute(f"CREATE ROLE {CASHIER} LOGIN PASSWORD 'x'")
    postgres.create("exotic", EXOTIC)
    contents = taken(postgres, "exotic")
    copied(postgres, "exotic", "restored")
    return contents


def test_a_restored_database_with_one_of_everything_is_exactly_the_same(
    postgres: PostgresServer, exotic: Contents
) -> None:
    assert differences(exotic, taken(postgres, "restored")) == []


OTHERS = "rows as expected, but not the same."
DAMAGES = {
    "DELETE FROM sale WHERE id = 5": "table public.sale: 499 rows, 500 expected.",
    "DELETE FROM move; DELETE FROM tenant": "table public.sale: 0 rows, 500 expected.",
    "INSERT INTO no_key VALUES (1, 'same')": "table public.no_key: 4 rows, 3 expected.",
    "UPDATE sale SET tax = tax + 0.01 WHERE id = 5": f"table public.sale: 500 {OTHERS}",
    "UPDATE no_key SET b = '' WHERE b IS NULL": f"table public.no_key: 3 {OTHERS}",
    "UPDATE every_type SET a_double = 0 WHERE id = 1": f"table public.every_type: 4 {OTHERS}",
    "UPDATE every_type SET a_numeric = 1 WHERE id = 2": f"table public.every_type: 4 {OTHERS}",
    "UPDATE every_type SET a_json = '{\"b\":1}' WHERE id = 1": f"table public.every_type: 4 {OTHERS}",
    "UPDATE every_type SET a_char = 'AB' WHERE id = 3": f"table public.every_type: 4 {OTHERS}",
    "UPDATE every_type SET a_text = a_text || ' ' WHERE id = 3": f"table public.every_type: 4 {OTHERS}",
    "UPDATE every_type SET an_interval = '0.000001 s' WHERE id = 1": f"table public.every_type: 4 {OTHERS}",
    # Two rows of a table swap a value: no count and no plain sum of values would see it.
    "UPDATE tenant SET name = 'Shop ' || 21 - id WHERE id IN (10, 11)": f"table public.tenant: 20 {OTHERS}",
    "UPDATE sale SET net = net": "",
    "TRUNCATE \"🔧\".\".\"": 'table "🔧".".": 0 rows, 2 expected.',
    "DELETE FROM ONLY parent": "table public.parent: 0 rows, 1 expected.",
    "UPDATE move SET tenant_id = 2 WHERE id = 3": "table ",
    "DROP TABLE no_rows": "table public.no_rows: missing.",
    "CREATE TABLE more ()": "table public.more: not expected.",
    "ALTER TABLE move DETACH PARTITION move_rest": "table public.move_rest: defined otherwise.",
    "ALTER SEQUENCE sale_id_seq RESTART": "sequence public.sale_id_seq: behind: at its start, 2500 expected.",
    "ALTER SEQUENCE tenant_id_seq RESTART WITH 19": "sequence public.tenant_id_seq: behind: at 18, 20 expected.",
    "ALTER SEQUENCE down RESTART WITH 100": "sequence public.down: behind: at its start, -98 expected.",
    "ALTER SEQUENCE tenant_id_seq RESTART WITH 99": "",
    "ALTER SEQUENCE tenant_id_seq INCREMENT 2": "sequence public.tenant_id_seq: defined otherwise.",
    "ALTER SEQUENCE tenant_id_seq OWNED BY NONE": "sequence public.tenant_id_seq: defined otherwise.",
    'DROP SEQUENCE "Más cosas".never_used': 'sequence "Más cosas".never_used: missing.',
    "SELECT lo_put(90003, 59999, 'x')": "large objects: 3 as expected, but not the same.",
    "SELECT lo_put(90002, 0, '\\x00')": "large objects: 3 as expected, but not the same.",
    "SELECT lo_unlink(90002)": "large objects: 2, 3 expected.",
    "GRANT SELECT ON LARGE OBJECT 90002 TO PUBLIC": "rights on large object 90002: defined otherwise.",
    "ALTER TABLE sale ALTER note SET DEFAULT 'other'": "table column public.sale.note: defined otherwise.",
    "ALTER TABLE sale ALTER note DROP DEFAULT": "table column public.sale.note: defined otherwise.",
    "ALTER TABLE sale ALTER tax DROP NOT NULL": "table column public.sale.tax: defined otherwise.",
    "ALTER TABLE sale ALTER total DROP EXPRESSION": "table column public.sale.total: defined otherwise.",
    "ALTER TABLE by_default ALTER id DROP IDENTITY": "table column public.by_default.id: defined otherwise.",
    "ALTER TABLE no_rows ALTER t TYPE varchar": "table column public.no_rows.t: defined otherwise.",
    'ALTER TABLE no_rows ALTER t TYPE text COLLATE "C"': "table column public.no_rows.t: defined otherwise.",
    "ALTER TABLE no_rows RENAME t TO u": "table column public.no_rows.t: missing.",
    "ALTER TABLE no_rows ADD more integer": "table column public.no_rows.more: not expected.",
    "DROP INDEX sale_by_time": "index public.sale_by_time: missing.",
    "DROP INDEX totals_key": "index public.totals_key: missing.",
    'DROP INDEX "open sales"; CREATE INDEX "open sales" ON sale (lower(status)) '
    "WHERE status IN ('open', 'void') AND note IS NOT NULL": 'index public."open sales": defined otherwise.',
    "ALTER TABLE sale DROP CONSTRAINT sale_status_check": "table constraint sale_status_check on public.sale: missing.",
    "ALTER TABLE sale DROP CONSTRAINT sale_tenant_id_fkey": "table constraint sale_tenant_id_fkey on public.sale",
    "ALTER TABLE egg ALTER CONSTRAINT egg_hen_fkey NOT DEFERRABLE": "table constraint egg_hen_fkey on public.egg: def",
    "ALTER TABLE booking DROP CONSTRAINT booking_room_during_excl": "table constraint booking_room_during_excl on",
    "ALTER TABLE no_rows DROP CONSTRAINT no_rows_pkey": "table public.no_rows: another primary key.",
    "ALTER DOMAIN price DROP CONSTRAINT price_check": "domain constraint price_check on public.price: missing.",
    "ALTER DOMAIN price SET DEFAULT 1": "type public.price: defined otherwise.",
    "ALTER TYPE mood ADD VALUE 'new'": "type public.mood: defined otherwise.",
    "ALTER TYPE mood RENAME VALUE 'HAPPY' TO 'happy'": "type public.mood: defined otherwise.",
    'ALTER TYPE "Más cosas"."Address" ADD ATTRIBUTE zip text': 'composite type column "Más cosas"."Address".zip: not',
    "CREATE OR REPLACE VIEW active AS SELECT * FROM tenant WHERE NOT active": "view public.active: defined otherwise.",
    "DROP VIEW active": "view public.active: missing.",
    "DROP MATERIALIZED VIEW totals": "materialized view public.totals: missing.",
    "REFRESH MATERIALIZED VIEW not_yet": "materialized view public.not_yet: defined otherwise.",
    "DROP TRIGGER stamp ON sale": "trigger stamp on public.sale: missing.",
    "ALTER TABLE sale DISABLE TRIGGER stamp": "trigger stamp on public.sale: defined otherwise.",
    "ALTER TABLE tenant ENABLE TRIGGER never": "trigger never on public.tenant: defined otherwise.",
    "ALTER TABLE move_2023 ENABLE TRIGGER moved": "trigger moved on public.move_2023: defined otherwise.",
    "CREATE OR REPLACE FUNCTION twice(n text) RETURNS text LANGUAGE sql STRICT AS 'SELECT n'":
    "function public.twice(pg_catalog.text): def",
    "CREATE OR REPLACE FUNCTION twice(n integer, times integer DEFAULT 3) RETURNS integer IMMUTABLE "
    "BEGIN ATOMIC SELECT n * times; END": "function public.twice(integer,integer): defined otherwise.",
    "DROP PROCEDURE nothing": "procedure public.nothing(): missing.",
    "DROP AGGREGATE product(numeric)": "aggregate public.product(numeric): missing.",
    "DROP RULE no_delete ON open_sale": "rule no_delete on public.open_sale: missing.",
    "DROP EVENT TRIGGER on_ddl": "event trigger on_ddl: missing.",
    "DROP STATISTICS sale_stats": "statistics object public.sale_stats: missing.",
    "DROP POLICY mine ON sale": "policy mine on public.sale: missing.",
    "ALTER POLICY mine ON sale TO PUBLIC": "policy mine on public.sale: defined otherwise.",
    "ALTER TABLE sale DISABLE ROW LEVEL SECURITY": "table public.sale: defined otherwise.",
    f"REVOKE INSERT ON sale FROM {CASHIER}": "rights on table public.sale: defined otherwise.",
    "REVOKE UPDATE (note) ON sale FROM PUBLIC": "rights on table column public.sale.note: missing.",
    "GRANT EXECUTE ON FUNCTION twice(text) TO PUBLIC":
    "rights on function public.twice(pg_catalog.text): defined otherwise.",
    "ALTER TABLE no_rows OWNER TO CURRENT_USER": "rights on table public.no_rows: defined otherwise.",
    "GRANT CREATE ON SCHEMA public TO PUBLIC": "rights on schema public: defined otherwise.",
    f"DROP OWNED BY {CASHIER}": "role Cajera Ñandú: missing.",
    "COMMENT ON TABLE sale IS 'other'": "comment on table public.sale: defined otherwise.",
    "DROP EXTENSION pg_trgm CASCADE": "extension pg_trgm: missing.",
    "UPDATE pg_extension SET extversion = '0' WHERE extname = 'citext'": "extension citext: version 0, 1.6 expected.",
    "DROP SERVER elsewhere CASCADE": "server elsewhere: missing.",
    "DROP PUBLICATION shop": "publication shop: missing.",
    "DROP TEXT SEARCH CONFIGURATION simple_copy": "text search configuration public.simple_copy: missing.",
    "DROP OPERATOR === (integer, integer)": "operator public.===(integer,integer): missing.",
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_and_told(postgres: PostgresServer, exotic: Contents, damage: str) -> None:
    with postgres.connect("restored") as connection:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        connection.execute(damage)
        told = differences(exotic, inventory.take(connection))
        connection.execute("ROLLBACK")
    sentence = DAMAGES[damage]
    assert (sentence and any(line.startswith(sentence) for line in told)) or told == [], told
    assert bool(told) == bool(sentence)


def test_a_copy_of_a_copy_is_the_same_as_both(postgres: PostgresServer, exotic: Contents) -> None:
    copied(postgres, "restored", "again")
    assert differences(exotic, taken(postgres, "again")) == []
    assert differences(taken(postgres, "restored"), taken(postgres, "again")) == []


def test_what_the_database_has_set_does_not_change_its_manifest(postgres: PostgresServer, exotic: Contents) -> None:
    settings = {
        "TimeZone": "Asia/Kathmandu", "DateStyle": "German", "IntervalStyle": "iso_8601", "bytea_output": "escape",
        "extra_float_digits": "-10", "search_path": "public", "quote_all_identifiers": "on", "statement_timeout": "1",
        "xmlbinary": "hex", "client_encoding": "LATIN1",
    }  # fmt: skip
    with postgres.connect() as connection:
        for name, value in settings.items():
            connection.execute(f"ALTER DATABASE restored SET {name} = '{value}'")
    with postgres.connect("restored", options="-c statement_timeout=0") as connection:
        connection.execute(SNAPSHOT)
        found = inventory.take(connection)
    with postgres.connect() as connection:
        connection.execute("ALTER DATABASE restored RESET ALL")
    assert differences(exotic, found) == []
    assert found == exotic


def test_two_connections_in_one_snapshot_find_what_one_does(postgres: PostgresServer, exotic: Contents) -> None:
    with snapshot(postgres, "exotic") as first, postgres.connect("exotic") as second:
        (name,) = inventory._one(first, "SELECT pg_export_snapshot()")
        second.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        second.execute(f"SET TRANSACTION SNAPSHOT '{name}'")
        with postgres.connect("exotic") as other:
            other.execute("INSERT INTO no_key VALUES (99)")
        both = inventory.take(first, second)
    with postgres.connect("exotic") as other:
        other.execute("DELETE FROM no_key WHERE a = 99")
    assert both == exotic


def test_a_held_table_can_be_written_to_but_not_emptied(postgres: PostgresServer) -> None:
    postgres.create("held", "CREATE TABLE a (id serial PRIMARY KEY); INSERT INTO a SELECT FROM generate_series(1, 3)")
    with snapshot(postgres, "held") as connection:
        held = inventory.hold(connection)
        with postgres.connect("held") as other:
            other.execute("SET lock_timeout = '100ms'")
            other.execute("INSERT INTO a DEFAULT VALUES")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                other.execute("TRUNCATE a")
        found = inventory.take(connection, held=held)
    assert found.tables["public.a"].rows == 3
    assert found.sequences == held == {"public.a_id_seq": 3}


def test_a_dump_of_the_same_snapshot_matches_while_others_write(postgres: PostgresServer) -> None:
    postgres.create("busy", "CREATE TABLE a (id serial PRIMARY KEY, t text); INSERT INTO a (t) VALUES ('x')")
    archive = postgres.folder / "busy.dump"
    with snapshot(postgres, "busy") as connection, postgres.connect("busy") as other:
        (name,) = inventory._one(connection, "SELECT pg_export_snapshot()")
        held = inventory.hold(connection)
        other.execute("INSERT INTO a (t) SELECT 'new' FROM generate_series(1, 100)")
        other.execute("UPDATE a SET t = 'y'")
        postgres.run("pg_dump", "-Fc", f"--snapshot={name}", "-f", str(archive), "-d", postgres.dsn("busy"))
        other.execute("DELETE FROM a")
        expected = inventory.take(connection, held=held)
    create(postgres, "calm")
    postgres.run("pg_restore", "--exit-on-error", "-d", postgres.dsn("calm"), str(archive))
    found = taken(postgres, "calm")
    assert expected.tables["public.a"].rows == 1
    assert found.sequences == {"public.a_id_seq": 101}
    assert differences(expected, found) == []


def test_a_function_that_is_replaced_during_a_dump_is_the_one_that_was_dumped(postgres: PostgresServer) -> None:
    replaced = "CREATE OR REPLACE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT {}'"
    postgres.create("edited", replaced.format(1) + "; CREATE TABLE a (id int PRIMARY KEY)")
    before = taken(postgres, "edited")
    with snapshot(postgres, "edited") as connection, postgres.connect("edited") as other:
        held = inventory.hold(connection)
        hashed = inventory._hashed

        def edit(*words: Any) -> Any:
            other.execute(replaced.format(2).encode())
            return hashed(*words)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(inventory, "_hashed", edit)
            during = inventory.take(connection, held=held)
    assert differences(before, during) == []
    assert differences(before, taken(postgres, "edited")) == ["function public.one(): defined otherwise."]


def test_a_database_that_sorts_by_icu_is_restored_as_one(postgres: PostgresServer) -> None:
    create(postgres, "spanish", "LOCALE_PROVIDER icu ICU_LOCALE 'es'")
    expected = taken(postgres, "spanish")
    assert (expected.provider, expected.locale) == ("i", "es")
    with postgres.connect() as connection:
        connection.execute("DROP DATABASE IF EXISTS sorted")
        cluster.create(connection, "sorted", cluster.locale(connection, "spanish"), USER)
    assert differences(expected, taken(postgres, "sorted")) == []
    create(postgres, "c_sorted")
    assert "The provider is c, i expected." in differences(expected, taken(postgres, "c_sorted"))


def test_text_in_another_encoding_is_compared_exactly(postgres: PostgresServer) -> None:
    latin = "ENCODING 'LATIN1' LOCALE 'C'"
    create(postgres, "latin", latin)
    with postgres.connect("latin") as connection:
        connection.execute('CREATE TABLE "año" ("ñ" text PRIMARY KEY)')
        connection.execute("INSERT INTO \"año\" VALUES ('Ferretería'), ('ü')")
        inventory.refuse_inexact(connection)
    copied(postgres, "latin", "latin2", latin)
    copied(postgres, "latin", "utf8")
    expected = taken(postgres, "latin")
    assert expected.tables['public."año"'].rows == 2
    assert differences(expected, taken(postgres, "latin2")) == []
    assert "The encoding is UTF8, LATIN1 expected." in differences(expected, taken(postgres, "utf8"))


def test_text_of_no_known_encoding_is_refused(postgres: PostgresServer) -> None:
    create(postgres, "bytes", "ENCODING 'SQL_ASCII' LOCALE 'C'")
    with postgres.connect("bytes") as connection, pytest.raises(DatabaseRefused, match="SQL_ASCII"):
        inventory.refuse_inexact(connection)


def test_hidden_rows_and_unreadable_tables_are_refused_by_name(postgres: PostgresServer) -> None:
    script = """
        DROP ROLE IF EXISTS clerk; CREATE ROLE clerk LOGIN PASSWORD 'x';
        CREATE TABLE tidy (a integer); GRANT SELECT ON tidy TO clerk;
        CREATE TABLE hidden (a integer); GRANT SELECT ON hidden TO clerk; ALTER TABLE hidden ENABLE ROW LEVEL SECURITY;
        CREATE TABLE barred (a integer);"""
    postgres.create("rights", script)
    with postgres.connect("rights") as connection:
        inventory.refuse_inexact(connection)  # a superuser sees through
    with postgres.connect("rights", user="clerk", password="x") as connection:
        with pytest.raises(DatabaseRefused, match=r"hides rows of public\.hidden from clerk.*BYPASSRLS"):
            inventory.refuse_inexact(connection)
        with postgres.connect("rights") as owner:
            owner.execute("ALTER ROLE clerk BYPASSRLS")
        with pytest.raises(DatabaseRefused, match=r"clerk may not read public\.barred"):
            inventory.refuse_inexact(connection)
        with postgres.connect("rights") as owner:
            owner.execute("GRANT SELECT ON barred TO clerk")
        inventory.refuse_inexact(connection)
    with postgres.connect("rights") as owner:
        owner.execute("DROP OWNED BY clerk; DROP ROLE clerk")


def test_a_database_without_the_schema_public_is_restored_exactly(postgres: PostgresServer) -> None:
    postgres.create("private", "DROP SCHEMA public; CREATE SCHEMA own; CREATE TABLE own.a ()")
    copied(postgres, "private", "private2")
    assert differences(taken(postgres, "private"), taken(postgres, "private2")) == []


def test_rows_that_an_extension_dumps_are_counted(postgres: PostgresServer) -> None:
    postgres.create("configured", "CREATE EXTENSION hstore; CREATE TABLE setting (name text, mine boolean)")
    with postgres.connect("configured") as connection:
        connection.execute("ALTER EXTENSION hstore ADD TABLE setting")
        connection.execute("INSERT INTO setting VALUES ('brought', false), ('added', true)")
        assert "public.setting" not in taken(postgres, "configured").tables
        connection.execute(
            "UPDATE pg_extension SET extconfig = ARRAY['setting'::regclass::oid], extcondition = ARRAY['WHERE mine'] "
            "WHERE extname = 'hstore'"
        )
    assert taken(postgres, "configured").tables["public.setting"].rows == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("(s = ANY ((ARRAY['a'::varchar, 'b'::character varying])::text[]))", "s = ANY (ARRAY[('a'::text), 'b'])"),
        ("(x)::numeric(12,2) + (y)::timestamp with time zone", "x + y"),
        ('(x)::"Más cosas"."Address"', "x"),
    ],
)
def test_casts_and_parentheses_do_not_count(one: str, other: str) -> None:
    assert inventory.loose(one) == inventory.loose(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("s = 'a (b)'", "s = 'a b'"), ("s = 'x::text'", "s = 'x'"), ('"a b"', '"ab"'), ("'it''s'", "'its'"), ("a", "b")],
)
def test_quoted_text_counts_to_the_letter(one: str, other: str) -> None:
    assert inventory.loose(one) != inventory.loose(other)
