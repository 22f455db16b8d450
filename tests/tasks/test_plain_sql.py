"""The site's old dumps pass unchanged; what else psql would run does not."""

import gzip
import re
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.errors import BadBackup
from tasks import plain_sql
from tasks.plain_sql import Seen, gunzip, screen
from tests.postgres_server import PostgresServer
from tests.tasks.test_inventory import EXOTIC, taken

HEAD = b"--\n-- PostgreSQL database dump\n--\n\n\\restrict aB3\n\nSET standard_conforming_strings = on;\n"
TAIL = b"--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict aB3\n\n"
TRAPS = rb"""
CREATE FUNCTION public.f() RETURNS text
    LANGUAGE plpgsql
    AS $_$ BEGIN RETURN '\! ls; $$ '; END $_$;
CREATE FUNCTION public.g(n integer) RETURNS integer
    LANGUAGE sql
    BEGIN ATOMIC
 SELECT CASE WHEN (n > 0) THEN 1 ELSE 2 END;
 SELECT 3;
END;
CREATE RULE r AS
    ON INSERT TO public.a DO ALSO ( DELETE FROM public.b; DELETE FROM public.c; );
COMMENT ON TABLE public.a IS 'it''s ; "x" -- \! ';
COMMENT ON TABLE public.a IS E'it\'s \\';
-- it's a comment; $$
CREATE VIEW public.v AS
 SELECT 1.5, 1e5, .5e-3, (ARRAY[1, 2])[1:2], (ARRAY[id])[id:id], B'101', 'a'::text, (a.j ->> 'k'::text), $1, a.-b
   FROM public.a;
CREATE TABLE public."odd;""\!" (a$b$c integer DEFAULT 1);
COPY public.a (id, "t;x") FROM stdin;
1	\\.
2	\\! ls
\N	it's $$
\.

COPY public."odd;""\!" (a$b$c) FROM stdin;
\.

COPY public.nothing  FROM stdin;


\.

SELECT pg_catalog.setval('public.a_id_seq', 2, true);
"""
DUMP = HEAD + TRAPS + TAIL
ROWS = {"public.a": 3, 'public."odd;""\\!"': 0, "public.nothing": 2}


PIN = rb" SET standard_conforming_strings = on; SET client_encoding = '%b';"


def screened(*chunks: bytes) -> tuple[bytes, dict[str, int]]:
    """What passes without its pins, and the rows."""
    seen = Seen()
    return re.sub(PIN % rb"\w+", b"", b"".join(screen(chunks, seen))), seen.rows


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(places)]


@given(st.lists(st.integers(min_value=0, max_value=len(DUMP))))
def test_a_dump_passes_unchanged_however_it_is_cut(cuts: list[int]) -> None:
    assert screened(*pieces(DUMP, cuts)) == (DUMP, ROWS)


def test_a_dump_passes_byte_by_byte() -> None:
    assert screened(*(DUMP[i : i + 1] for i in range(len(DUMP)))) == (DUMP, ROWS)


@given(st.integers(min_value=0, max_value=DUMP.index(b"dump complete") + len("dump complet")), st.lists(st.integers(0)))
def test_a_truncated_dump_is_refused_wherever_it_ends(end: int, cuts: list[int]) -> None:
    with pytest.raises(BadBackup, match="cut off in line"):
        screened(*pieces(DUMP[:end], cuts))


def test_every_statement_is_followed_by_a_pin_in_its_own_line() -> None:
    first = b"SET client_encoding = 'LATIN1';\nSET row_security = off;COMMIT;\n"
    rest = b"COPY public.a (id) FROM stdin;\n1\n2\n\\.\n"
    utf8, latin1 = PIN % b"UTF8", PIN % b"LATIN1"
    pinned = utf8 + b"--\n" + first.replace(b";", b";" + latin1) + rest.replace(b"stdin;", b"stdin;" + latin1) + TAIL
    assert b"".join(screen([b"--\n" + first + rest + TAIL], Seen())) == pinned


REFUSED = {
    rb"\! touch /tmp/owned": "psql command",
    rb"\connect other": "psql command",
    rb"\c other": "psql command",
    rb"\i /etc/passwd": "psql command",
    rb"\restrict aB3 \! ls": "psql command",
    rb"SELECT 1 \! ls": "psql command within a statement",
    rb"CREATE TABLE a () \gexec": "psql command within a statement",
    b"\\\\! ls": "psql command",
    b"COPY public.a (id) FROM PROGRAM 'ls';": "COPY that is none",
    b"COPY public.a (id) FROM '/etc/passwd';": "COPY that is none",
    b"COPY public.a (id) TO PROGRAM 'cat';": "COPY that is none",
    b"COPY (SELECT 1) TO '/tmp/x';": "COPY that is none",
    b"COPY public.a (%b-) FROM stdin;" % (b"a" * 5000): "COPY that is none",
    b"copy public.a from program 'ls';": "does not write",
    b"COPY public.a (id) FROM stdin; SELECT 1;\n\\.": "COPY that is none",
    b"COPY public.a (id) FROM stdin;\n1\n\\.\r\n\\! ls\n\\.": "begins with",
    b"COPY public.a (id) FROM stdin;\n1\n\\.x\n\\.": "begins with",
    b"SELECT pg_read_file('/etc/passwd');": "does not write",
    b"CREATE TABLE a (b text DEFAULT pg_read_file('/etc/passwd'));": "reaches outside the database by PG_READ_FILE",
    b"CREATE VIEW a AS SELECT * FROM public.dblink('host=x', 'SELECT 1') AS t(a int);": "reaches outside",
    b"CREATE VIEW a AS SELECT pg_catalog.lo_import('/etc/passwd');": "reaches outside",
    b"SELECT pg_catalog.setval('a', 1, true), pg_ls_dir('/');": "does not write",
    b"SELECT pg_catalog.set_config('session_replication_role', 'replica', false);": "does not write",
    b"ALTER SYSTEM SET archive_command = 'x';": "does not write",
    b"ALTER ROLE x SUPERUSER;": "does not write",
    b"CREATE ROLE x SUPERUSER;": "does not write",
    b"CREATE USER x;": "does not write",
    b"CREATE DATABASE x;": "does not write",
    b"DROP DATABASE IF EXISTS ferreteria_db;": "does not write",
    b"ALTER DATABASE ferreteria_db SET search_path = evil;": "does not write",
    b"CREATE TABLESPACE x LOCATION '/tmp';": "does not write",
    b"CREATE SERVER x FOREIGN DATA WRAPPER y;": "does not write",
    b"CREATE SUBSCRIPTION x CONNECTION 'host=y' PUBLICATION z;": "does not write",
    b"CREATE LANGUAGE plpython3u;": "does not write",
    b"DROP TABLE public.sale;": "does not write",
    b"DELETE FROM public.sale;": "does not write",
    b"TRUNCATE public.sale;": "does not write",
    b"INSERT INTO public.a VALUES (1);": "does not write",
    b"DO $$ BEGIN END $$;": "does not write",
    b"LOAD 'x';": "does not write",
    b"SET ROLE postgres;": "does not write",
    b"SET SESSION AUTHORIZATION postgres;": "does not write",
    b"SET client_encoding = 'SJIS';": "does not write",
    b"SET standard_conforming_strings = off;": "does not write",
    b"ROLLBACK;": "does not write",
    b"-- x\n-- y\n  DELETE FROM a;": "does not write: DELETE FROM a",
    # What hides in a string for one reader and stands outside of it for another.
    b"COMMENT ON TABLE a IS 'x\\'; DELETE FROM a; --';": "does not write: DELETE",
    b"COMMENT ON TABLE a IS E'x'\n'\\'; DELETE FROM a; --';": "string in two parts",
    b"COMMENT ON TABLE a IS E'x' -- y\n'\\'; DELETE FROM a; --';": "string in two parts",
    b"CREATE TABLE a$b$ (); DELETE FROM a; CREATE TABLE c$b$ ();": "does not write: DELETE",
    b"CREATE TABLE begin (); DELETE FROM a; CREATE TABLE b ();": "does not write: DELETE",
    b"CREATE TABLE a ()); DELETE FROM a;": "does not write: DELETE",
    b"CREATE FUNCTION$a BEGIN; DELETE FROM a; END;": "does not write: DELETE",
    b"CREATE FUNCTION\xc3\xb1 BEGIN; DELETE FROM a; END;": "does not write: DELETE",
    b"COMMENT ON TABLE a IS 'x\0';": "NUL byte",
    # What versions of psql read differently, or differently from what it looks like.
    b"CREATE VIEW a AS SELECT 1e'\\'';": "never writes: 1e",
    b"CREATE VIEW a AS SELECT 1.e'\\'';": "never writes: 1.e",
    b"CREATE VIEW a AS SELECT .5E'\\'';": "never writes: 5E",
    b"CREATE VIEW a AS SELECT 1e5e'\\'';": "never writes: 1e5e",
    b"CREATE VIEW a AS SELECT 1ae'\\'';": "never writes: 1ae",
    b"CREATE VIEW a AS SELECT 1_0e'\\'';": "never writes: 1_0e",
    b"CREATE VIEW a AS SELECT $1e'\\'';": r"never writes: \$1e",
    b"CREATE VIEW a AS SELECT $1e5$b$'$b$;": r"never writes: \$1e5",
    b"CREATE VIEW a AS SELECT 1e5$b$'$b$;": r"never writes: 1e5\$b",
    b"CREATE VIEW a AS SELECT 1$b$'$b$;": r"never writes: 1\$b",
    b"CREATE VIEW a AS SELECT :e'\\'';": "never writes: :e",
    b"CREATE VIEW a AS SELECT :::e'\\'';": "never writes: :e",
    b"CREATE VIEW a AS SELECT :a$b$ ' $b$\n\\! ls\n';": "never writes: :a",
    b"CREATE VIEW a AS SELECT :PROMPT1;": "never writes: :PROMPT1",
    b"CREATE VIEW a AS SELECT n'x';": "never writes: n'",
    b"-- x\r\\! ls": r"never writes: \\! ls",
    b"COMMENT ON TABLE a IS E'x'\v'\\'; --';": "never writes: '",
    b"COMMENT ON TABLE a IS E'x' /* y\n */ '\\'; --';": r"never writes: /\*",
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_pg_dump_does_not_write_is_refused(said: bytes) -> None:
    with pytest.raises(BadBackup, match=REFUSED[said]):
        screened(HEAD + said + b"\n" + TAIL)
    with pytest.raises(BadBackup, match=REFUSED[said]):
        screened(*((HEAD + said + b"\n" + TAIL)[i : i + 1] for i in range(len(HEAD + said + TAIL) + 1)))


def test_the_refused_statement_is_named_with_its_line() -> None:
    with pytest.raises(BadBackup, match=r"does not write: DROP ROLE x; \(line 11\)"):
        screened(HEAD + b"COPY public.a (id) FROM stdin;\n1\n\\.\nDROP ROLE x;\n" + TAIL)


def test_a_statement_in_the_first_line_is_refused_since_psql_read_it_before_any_pin() -> None:
    with pytest.raises(BadBackup, match="in its first line"):
        screened(b"SET row_security = off;\n" + HEAD + TAIL)


@pytest.mark.parametrize(
    ("encoding", "name"),
    [("LATIN1", "año"), ("UTF8", "año"), ("SQL_ASCII", "año"), ("WIN1252", "a€"), ("EUC_CN", "店")],
)
def test_a_tables_name_is_read_in_the_dumps_own_encoding(encoding: str, name: str) -> None:
    codec = plain_sql.ENCODINGS[encoding]
    copy = f"SET client_encoding = '{encoding}';\nCOPY public.\"{name}\" (a) FROM stdin;\n1\n\\.\n".encode(codec)
    assert screened(HEAD + copy + TAIL) == (HEAD + copy + TAIL, {f'public."{name}"': 1})


@pytest.mark.parametrize(("encoding", "name"), [("UTF8", b"a\xf1o"), ("WIN1252", b"a\x81"), ("EUC_KR", b"\xff\xff")])
def test_a_tables_name_that_is_not_of_the_dumps_encoding_is_refused(encoding: str, name: bytes) -> None:
    said = b"SET client_encoding = '%b';\nCOPY public.\"%b\" (a) FROM stdin;\n" % (encoding.encode(), name)
    with pytest.raises(BadBackup, match=rf"name is not valid in {encoding}.*\(line 9\)"):
        screened(HEAD + said + b"1\n\\.\n" + TAIL)


def test_every_encoding_is_one_that_python_reads() -> None:
    assert all(b"'\\".decode(codec) == "'\\" for codec in plain_sql.ENCODINGS.values())


def test_nothing_is_passed_on_from_a_refused_statement() -> None:
    passed = []
    with pytest.raises(BadBackup):
        for data in screen([HEAD, b"\nDELETE FROM a;\n", TAIL], Seen()):
            passed.append(data)
    assert b"DELETE" not in b"".join(passed)


def test_a_dump_that_goes_on_after_its_end_is_refused() -> None:
    with pytest.raises(BadBackup, match="something after its end"):
        screened(DUMP + DUMP)


def test_a_string_that_says_the_dump_is_complete_does_not_complete_it() -> None:
    mark = b"COMMENT ON TABLE a IS '\n-- PostgreSQL database dump complete\n';\n"
    with pytest.raises(BadBackup, match="cut off"):
        screened(HEAD + mark)


@pytest.mark.parametrize("options", [(), ("--no-owner", "--no-acl", "--clean", "--if-exists")])
def test_a_dump_of_one_of_everything_passes_and_its_rows_are_counted(
    postgres: PostgresServer, options: tuple[str, ...]
) -> None:
    postgres.create("plain", EXOTIC.replace('"Cajera Ñandú"', "CURRENT_USER"))
    with postgres.connect("plain") as connection:
        connection.execute("DROP FOREIGN DATA WRAPPER nowhere CASCADE")  # another server: refused
    dump = postgres.run("pg_dump", *options, "-d", postgres.dsn("plain"), stdout=-1).stdout
    passed, rows = screened(*(dump[i : i + 1000] for i in range(0, len(dump), 1000)))
    assert passed == dump
    assert rows == {name: table.rows for name, table in taken(postgres, "plain").tables.items()}


@pytest.mark.parametrize("filling", [b"a ", b"1, ", b"(a) + ", b"'x' ", b"end ", b"e'x' || "])
def test_of_a_long_statement_little_more_than_itself_is_kept(filling: bytes) -> None:
    size = 1 << 18
    said = HEAD + b"CREATE VIEW a AS SELECT " + filling * (size // len(filling)) + b";\n" + TAIL
    chunks = [said[i : i + (1 << 16)] for i in range(0, len(said), 1 << 16)]
    tracemalloc.start()
    try:
        for _ in screen(chunks, Seen()):
            pass
        assert tracemalloc.get_traced_memory()[1] < 5 * size
    finally:
        tracemalloc.stop()


def test_a_statement_of_megabytes_passes_and_a_longer_one_is_refused() -> None:
    def comment(size: int) -> list[bytes]:
        said = HEAD + b"COMMENT ON TABLE a IS '" + b"x" * size + b"';\n" + TAIL
        return [said[i : i + (1 << 20)] for i in range(0, len(said), 1 << 20)]

    screened(*comment(plain_sql.LONGEST // 2))
    with pytest.raises(BadBackup, match="longer than any of a dump"):
        screened(*comment(plain_sql.LONGEST + (2 << 20)))


def test_rows_may_be_longer_than_any_statement() -> None:
    rows = b"x" * (1 << 20)
    chunks = [HEAD + b"COPY public.a (id) FROM stdin;\n", *([rows] * (plain_sql.LONGEST // len(rows) + 2))]
    assert screened(*chunks, b"\n\\.\n" + TAIL)[1] == {"public.a": 1}


def test_a_gzip_file_unpacks_however_it_is_cut() -> None:
    data = DUMP * 1000
    packed = gzip.compress(data)
    for size in (1, 7, 1 << 20):
        assert b"".join(gunzip(packed[i : i + size] for i in range(0, len(packed), size))) == data


def test_much_from_little_is_unpacked_in_small_pieces() -> None:
    assert max(map(len, gunzip([gzip.compress(bytes(50 << 20))]))) <= 1 << 20


PACKED, EMPTY = gzip.compress(DUMP, mtime=0), gzip.compress(b"", mtime=0)  # the same in each process of a session


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "cut off"),
        (EMPTY, "empty"),
        (PACKED[:-1], "cut off"),
        (PACKED[:50], "cut off"),
        (DUMP, "no gzip file"),
        (PACKED + b"x", "goes on after"),
        (PACKED + PACKED, "goes on after"),
        (PACKED[:-8] + bytes(8), "damaged"),
        (PACKED[:100] + b"\xff\xff" + PACKED[102:], "damaged|cut off"),
    ],
)
def test_a_damaged_gzip_file_is_refused(data: bytes, said: str) -> None:
    for chunks in ([data], [data[i : i + 1] for i in range(len(data))]):
        with pytest.raises(BadBackup, match=said):
            list(gunzip(chunks))
