"""The site's old backups: gzipped SQL that pg_dump wrote for psql, read with suspicion.

psql runs whatever such a file says, programs of the machine included, so a file passes only as far as it says what
pg_dump says. That is the first of two walls: it is also restored by a role without rights outside its database.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from blocks.errors import BadBackup

CURE = "Choose another backup."
PIECE = 1 << 20  # bytes that are unpacked at once, however well they were packed
LONGEST = 8 << 20  # bytes of one statement, rows apart; views and functions of megabytes exist
COMPLETE = b"-- PostgreSQL database dump complete"
# PostgreSQL's encodings by Python's names of them. In none can a byte of a longer character be taken for a quote or a
# backslash. What SQL_ASCII stands for nobody knows; in a database of today it is UTF-8.
ENCODINGS = {
    **{"UTF8": "utf_8", "SQL_ASCII": "utf_8", "KOI8R": "koi8_r", "KOI8U": "koi8_u"},
    **{"EUC_JP": "euc_jp", "EUC_JIS_2004": "euc_jis_2004", "EUC_KR": "euc_kr", "EUC_CN": "gb2312"},
    **{f"LATIN{n}": f"latin{n}" for n in range(1, 11)},
    **{f"ISO_8859_{n}": f"iso8859_{n}" for n in range(5, 9)},
    **{f"WIN{n}": f"cp{n}" for n in (866, 874, *range(1250, 1259))},
}


@dataclass
class Seen:
    """What a file holds, complete once it was read to the end: rows by table, quoted as pg_dump does."""

    rows: dict[str, int] = field(default_factory=dict)


def gunzip(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Unpack. Raises BadBackup for what is no gzip file, is empty, damaged, cut off, or goes on after its end."""
    unpack, any_ = zlib.decompressobj(wbits=31), False
    for chunk in chunks:
        if unpack.eof and chunk:
            raise BadBackup("The file goes on after the end of its gzip data.", CURE)
        packed = chunk
        while packed:
            try:
                data = unpack.decompress(packed, PIECE)
            except zlib.error as error:
                raise BadBackup(f"The file is no gzip file or is damaged: {error}.", CURE) from error
            if data:
                any_ = True
                yield data
            if unpack.unused_data:
                raise BadBackup("The file goes on after the end of its gzip data.", CURE)
            packed = unpack.unconsumed_tail
    if not unpack.eof:
        raise BadBackup("The file is cut off: its gzip data does not end.", CURE)
    if not any_:
        raise BadBackup("The file is empty: its dump failed.", CURE)


def screen(chunks: Iterable[bytes], seen: Seen) -> Iterator[bytes]:
    """Pass a dump on, each statement only after it was found to be one of pg_dump's, and followed by a pin.

    A pin is of the same line, so that psql and this count the same lines. Raises BadBackup, with the line, for any
    other statement or psql command, and for a dump that does not end.
    """
    reader = _Reader(seen)
    for chunk in chunks:
        if data := reader.read(chunk):
            yield data
    yield reader.read(b"", final=True)


# --- what pg_dump says ----------------------------------------------------------------------------------------

_NAME = rb'(?:"(?:[^"]|"")*+"|[\w\x80-\xff$]++)'
_QUALIFIED = rb"(?:%b\.)?%b" % (_NAME, _NAME)
_COPY = re.compile(rb"COPY (%b) (?:\(%b(?:, %b)*+\))? ?FROM stdin;" % (_QUALIFIED, _NAME, _NAME))
_RESTRICT = re.compile(rb"\\(?:un)?restrict [A-Za-z0-9]+\n")
_LARGE_OBJECT = (
    rb"SELECT pg_catalog\.(?:lo_create\('\d+'\)|lo_open\('\d+', \d+\)|lowrite\(0, '\\x[0-9a-f]*'\)|lo_close\(0\)"
    rb"|lo_unlink\(oid\) FROM pg_catalog\.pg_largeobject_metadata WHERE oid = '\d+');"
)
_KINDS = (
    rb"(?:TABLE|INDEX|VIEW|MATERIALIZED VIEW|SEQUENCE|TYPE|DOMAIN|FUNCTION|PROCEDURE|AGGREGATE|TRIGGER|RULE|POLICY"
    rb"|SCHEMA|EXTENSION|CAST|OPERATOR|COLLATION|CONVERSION|STATISTICS|TEXT SEARCH|PUBLICATION|EVENT TRIGGER|TRANSFORM"
    rb"|LARGE OBJECT|DEFAULT PRIVILEGES)\b"
)
_SET_ENCODING = re.compile(rb"SET client_encoding = '(%b)';" % "|".join(ENCODINGS).encode())
_ALLOWED = re.compile(
    rb"SET (?:(?:statement|lock|idle_in_transaction_session|transaction)_timeout = 0"
    rb"|standard_conforming_strings = on|(?:check_function_bodies|row_security) = (?:off|on|false|true)"
    rb"|xmloption = content|client_min_messages = warning|default_tablespace = ''|default_table_access_method = heap"
    rb"|default_with_oids = false);"
    rb"|SELECT pg_catalog\.set_config\('search_path', '', false\);"
    rb"|SELECT pg_catalog\.setval\('(?:[^']|'')++', -?\d+, (?:true|false)\);"
    rb"|CREATE (?:OR REPLACE |UNLOGGED |UNIQUE |CONSTRAINT |RECURSIVE )*+" + _KINDS +
    rb"|ALTER " + _KINDS +
    rb"|DROP " + _KINDS + rb"[A-Z ]* IF EXISTS "
    rb"|COMMENT ON |GRANT |REVOKE |REFRESH MATERIALIZED VIEW |BEGIN;|COMMIT;|COPY |" + _LARGE_OBJECT +
    rb"|" + _SET_ENCODING.pattern
)  # fmt: skip


class _Reader:
    """What is kept between two chunks of a dump."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen
        self.buffer = b""
        self.start = 0  # everything before was screened
        self.wanted = 0  # bytes without which there is no use in looking again
        self.line = 1  # at start
        self.encoding = "UTF8"  # of the client, as PostgreSQL calls it
        self.table: str | None = None  # whose rows come now
        self.fresh = True  # a row begins at start
        self.complete = False
        self.passed = [self._pin()]

    def read(self, chunk: bytes, *, final: bool = False) -> bytes:
        """What can be passed on of all that was read."""
        if b"\0" in chunk:
            raise self._refused("a NUL byte, which pg_dump never writes")
        self.buffer += chunk
        if len(self.buffer) < self.wanted and not final:
            return b""
        while self._rows() if self.table is not None else self._statement():
            pass
        if final:
            self._end()
        passed, self.passed = b"".join(self.passed), []
        self.buffer, self.start = self.buffer[self.start :], 0
        if len(self.buffer) > LONGEST:
            raise self._refused("a statement longer than any of a dump")
        self.wanted = 0 if self.table is not None else min(2 * len(self.buffer), LONGEST + 1)
        return passed

    def _pin(self) -> bytes:
        """What makes psql find the ends of strings where this does, whatever a function of the dump has set meanwhile.

        psql looks at both settings where a line begins. After a COPY it runs what stands in its line once it has read
        the rows.
        """
        return b" SET standard_conforming_strings = on; SET client_encoding = '%b';" % self.encoding.encode()

    def _rows(self) -> bool:
        """Count rows up to the line `\\.`, which ends them; True if it was there."""
        assert self.table is not None
        if self.fresh and self.buffer.startswith(b"\\.", self.start):
            mark = self.start
        else:
            mark = self.buffer.find(b"\n\\.", self.start) + 1 or -1
        end = mark if mark >= 0 else max(self.start, len(self.buffer) - 2)  # it may begin in the last two bytes
        if end > self.start:
            self.fresh = self.buffer[end - 1 : end] == b"\n"
            self.seen.rows[self.table] += self._passed(end)
        if mark < 0 or len(self.buffer) < mark + 3:
            return False
        if self.buffer[mark + 2 : mark + 3] != b"\n":
            raise self._refused("a line that begins with \\. among the rows")
        self.table = None
        self._passed(mark + 3)
        return True

    def _statement(self) -> bool:
        """Screen the next statement; True if it was whole."""
        found = _next(self.buffer, self.start)
        if found is None:
            return False
        self._comments(found.first)
        said, pin = self.buffer[found.first : found.end], b""
        if self.line == 1:
            raise self._refused("a statement in its first line, where pg_dump has a comment")
        if self.complete and not _RESTRICT.fullmatch(said):
            raise self._refused("something after its end")
        if said[:1] == b"\\":
            if not _RESTRICT.fullmatch(said):
                raise self._refused(f"a psql command: {_short(said)}")
        elif said.startswith(b"COPY "):
            if len(self.buffer) <= found.end:
                return False
            pin, self.table, self.fresh = self._pin(), self._filled(said, found.end), True
            self.seen.rows.setdefault(self.table, 0)
        else:
            self._allow(said, found.outside)
            pin = self._pin()
        self._passed(found.end, pin)
        if self.table is not None:
            self._passed(found.end + 1)
        return True

    def _filled(self, said: bytes, end: int) -> str:
        """Whose rows follow a COPY."""
        copy = _COPY.fullmatch(said)
        if copy is None or self.buffer[end : end + 1] != b"\n":
            raise self._refused(f"a COPY that is none of pg_dump's: {_short(said)}")
        try:
            return copy[1].decode(ENCODINGS[self.encoding])
        except UnicodeDecodeError as error:
            raise self._refused(f"a table whose name is not valid in {self.encoding}: {_short(copy[1])}") from error

    def _allow(self, said: bytes, outside: bytes) -> None:
        if not _ALLOWED.match(said):
            raise self._refused(f"a statement that pg_dump does not write: {_short(said)}")
        if outside:
            raise self._refused(f"a statement that reaches outside the database by {outside.decode().upper()}")
        if encoding := _SET_ENCODING.fullmatch(said):
            self.encoding = encoding[1].decode()

    def _comments(self, end: int) -> None:
        """Pass the comments before a statement on, the mark at the end of a dump among them."""
        self.complete = self.complete or COMPLETE in self.buffer[self.start : end].splitlines()
        self._passed(end)

    def _end(self) -> None:
        if self.table is None and _after_blank(self.buffer, self.start) == len(self.buffer):
            self._comments(len(self.buffer))
        if not self.complete or self.start < len(self.buffer):
            rest = self.buffer.count(b"\n", self.start)
            raise BadBackup(f"The dump is cut off in line {self.line + rest:,}.", CURE)

    def _passed(self, end: int, pin: bytes = b"") -> int:
        """Everything before `end` was screened; the number of lines in it."""
        lines = self.buffer.count(b"\n", self.start, end)
        self.passed += (self.buffer[self.start : end], pin)
        self.line += lines
        self.start = end
        return lines

    def _refused(self, what: str) -> BadBackup:
        return BadBackup(f"The dump holds {what} (line {self.line:,}).", CURE)


# --- as psql reads --------------------------------------------------------------------------------------------

_LETTER = rb"[A-Za-z_\x80-\xff]"
_WORD = rb"%b[\w$\x80-\xff]*+" % _LETTER
# Files of the server, other servers: what an expression must not call.
_OUTSIDE = rb"PG_READ_\w+|PG_LS_\w+|PG_STAT_FILE|PG_FILE_\w+|LO_IMPORT|LO_EXPORT|DBLINK\w*"
_NOTED = rb"(?i:BEGIN|CASE|END|%b)(?![\w$\x80-\xff])" % _OUTSIDE
_TAG = rb"\$(?:%b[\w\x80-\xff]*)?\$" % _LETTER
# Neither letter nor $ may follow a number at once: versions of psql differ in what that is. An exponent may come.
_NUMBER = rb"(?:\$\d++|\d++(?:\.\d*+)?+(?:[eE][+-]?\d++)?+)(?!(?![eE][+-]?\Z)[$A-Za-z_\x80-\xff])"
# psql takes `:name` for a variable of its own, and none of those that it sets has a small letter.
_COLON = rb":(?:[:=]|[a-z\d_\x80-\xff]++(?![A-Z$'\"])|(?![\w\x80-\xff]))"
# What leaves nothing open behind it: skipped in one go, since there may be megabytes of it.
_PLAIN = (
    rb"[ \t\n,.=<>*+%&|@#?!~^`\[\]{}]|-(?!-)|/(?!\*)|--[^\n\r]*+|'[^']*+'|\"[^\"]*+\""
    rb"|(?!" + _NOTED + rb")" + _WORD + rb"(?!')|" + _NUMBER + rb"|" + _COLON + rb"|(?!" + _TAG + rb")\$(?!\d)"
)  # fmt: skip
_TOKEN = re.compile(
    rb"(?P<plain>(?:" + _PLAIN + rb"|\((?:" + _PLAIN + rb")*+\))++)"
    rb"|(?P<quote>[eEbBxX]?'|\"|" + _TAG + rb")|(?P<word>" + _NOTED + rb")|[();\\]"
)  # fmt: skip
_ESCAPED = re.compile(rb"(?:[^'\\]|\\.|'')*+'", re.DOTALL)
_BLANK = re.compile(rb"(?:[ \t\n]|--[^\n\r]*+)*+")
_FUNCTION = re.compile(rb"CREATE (?:OR REPLACE )?(?:FUNCTION|PROCEDURE)(?![\w$\x80-\xff])")


class _Found(NamedTuple):
    """Where a statement or psql command begins and ends, and the first word in it that reaches outside, or nothing."""

    first: int
    end: int
    outside: bytes


def _next(text: bytes, start: int) -> _Found | None:
    """The next statement or psql command; None if its end is still to come.

    Follows psql's own lexer, so that both see the same statements, and refuses what its versions read differently. Of
    what it has read it keeps nothing but where it is.
    """
    first = position = _after_blank(text, start)
    function, parentheses, blocks, outside = _FUNCTION.match(text, first) is not None, 0, 0, b""
    while token := _TOKEN.match(text, position):
        said, kind, begin, position = token[0], token.lastgroup, token.start(), token.end()
        if kind == "quote":
            position = _after_quote(text, position, said)
            if position < 0:
                return None
        elif kind == "word":
            word = said.upper()
            if word not in (b"BEGIN", b"CASE", b"END"):
                outside = outside or word
            elif function and not parentheses:
                blocks = _depth(word, blocks)
        elif said == b"\\":
            if first < begin:
                raise BadBackup("The dump holds a psql command within a statement.", CURE)
            end = text.find(b"\n", begin) + 1
            return _Found(begin, end, b"") if end else None
        elif said in (b"(", b")"):
            parentheses = max(0, parentheses + (1 if said == b"(" else -1))
        elif said == b";" and not parentheses and not blocks:
            return _Found(first, position, outside)
    if position < len(text):
        raise BadBackup(f"The dump holds what pg_dump never writes: {_short(text[position:])}", CURE)
    return None


def _after_blank(text: bytes, position: int) -> int:
    """Where the blanks and comments end that may begin at a position."""
    blank = _BLANK.match(text, position)
    return blank.end() if blank else position


def _after_quote(text: bytes, position: int, opened: bytes) -> int:
    """Where what was opened is closed; -1 if it is not. A doubled quote closes and opens again."""
    if opened not in (b"e'", b"E'"):
        closing = b"'" if opened.endswith(b"'") else opened
        end = text.find(closing, position)
        return -1 if end < 0 else end + len(closing)
    closed = _ESCAPED.match(text, position)
    if closed is None:
        return -1
    if text.startswith(b"'", _after_blank(text, closed.end())):
        raise BadBackup("The dump holds a string in two parts, which pg_dump never writes.", CURE)
    return closed.end()


def _depth(word: bytes, depth: int) -> int:
    """How many BEGIN and CASE are open in the body of a function, where a semicolon does not end the statement."""
    if word == b"BEGIN" or (word == b"CASE" and depth):
        return depth + 1
    return max(0, depth - 1) if word == b"END" else depth


def _short(said: bytes) -> str:
    return " ".join(said[:60].decode(errors="replace").split())
