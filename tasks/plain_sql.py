"""The site's old backups: gzipped SQL that pg_dump wrote for psql, read with suspicion.

psql runs whatever such a file says, programs of the machine included, so a file passes only as far as it says what
pg_dump says. That is the first of two walls: it is also restored by a role without rights outside its database.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from blocks.errors import BadBackup

CURE = "Choose another backup."
PIECE = 1 << 20  # bytes that are unpacked at once, however well they were packed
LONGEST = 256 << 20  # bytes of one statement; a longer one is no dump's
COMPLETE = b"-- PostgreSQL database dump complete"


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
    """Pass a dump on unchanged, each statement only after it was found to be one of pg_dump's.

    Raises BadBackup, with the line, for any other statement or psql command, and for a dump that does not end.
    """
    reader = _Reader(seen)
    for chunk in chunks:
        if data := reader.read(chunk):
            yield data
    yield reader.read(b"", final=True)


# --- what pg_dump says ----------------------------------------------------------------------------------------

_NAME = rb'(?:"(?:[^"]|"")*"|[\w\x80-\xff$]+)'
_QUALIFIED = rb"(?:%b\.)?%b" % (_NAME, _NAME)
_COPY = re.compile(rb"COPY (%b) (?:\(%b(?:, %b)*\))? ?FROM stdin;" % (_QUALIFIED, _NAME, _NAME))
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
# Encodings in which no byte of a longer character can be taken for a quote or a backslash.
_ENCODING = rb"'(?:UTF8|SQL_ASCII|(?:LATIN|WIN|ISO_8859_|EUC_)\w+|KOI8[RU])'"
_ALLOWED = re.compile(
    rb"SET (?:(?:statement|lock|idle_in_transaction_session|transaction)_timeout = 0|client_encoding = " + _ENCODING +
    rb"|standard_conforming_strings = on|(?:check_function_bodies|row_security) = (?:off|on|false|true)"
    rb"|xmloption = content|client_min_messages = warning|default_tablespace = ''|default_table_access_method = heap"
    rb"|default_with_oids = false);"
    rb"|SELECT pg_catalog\.set_config\('search_path', '', false\);"
    rb"|SELECT pg_catalog\.setval\('(?:[^']|'')+', -?\d+, (?:true|false)\);"
    rb"|CREATE (?:OR REPLACE |UNLOGGED |UNIQUE |CONSTRAINT |RECURSIVE )*" + _KINDS +
    rb"|ALTER " + _KINDS +
    rb"|DROP " + _KINDS + rb"[A-Z ]* IF EXISTS "
    rb"|COMMENT ON |GRANT |REVOKE |REFRESH MATERIALIZED VIEW |BEGIN;|COMMIT;|COPY |" + _LARGE_OBJECT
)  # fmt: skip
# What an expression in them must not call: files of the server, other servers.
_OUTSIDE = re.compile(rb"PG_READ_\w+|PG_LS_\w+|PG_STAT_FILE|PG_FILE_\w+|LO_IMPORT|LO_EXPORT|DBLINK\w*")

_TOKEN = re.compile(
    rb"(?P<quote>[eE]'|'|\"|\$(?:[A-Za-z_\x80-\xff][\w\x80-\xff]*)?\$)|(?P<word>[A-Za-z_\x80-\xff][\w$\x80-\xff]*)"
    rb"|\$?\d+|--|/\*|[();\\]|[^\s]"
)
_ESCAPED = re.compile(rb"\\.|''|'", re.DOTALL)
_BLOCK_MARK = re.compile(rb"/\*|\*/")


class _Reader:
    """What is kept between two chunks of a dump."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen
        self.buffer = b""
        self.start = 0  # everything before was screened
        self.wanted = 0  # bytes without which there is no use in looking again
        self.line = 1  # at start
        self.table: str | None = None  # whose rows come now
        self.fresh = True  # a row begins at start
        self.complete = False

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
        passed, self.buffer, self.start = self.buffer[: self.start], self.buffer[self.start :], 0
        self.wanted = 0 if self.table is not None else 2 * len(self.buffer)
        if len(self.buffer) > LONGEST:
            raise self._refused("a statement longer than any of a dump")
        return passed

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
        first, end, words = found
        self._comments(first)
        if self.complete and not _RESTRICT.fullmatch(self.buffer[first:end]):
            raise self._refused("something after its end")
        said = self.buffer[first:end]
        if said[:1] == b"\\":
            if not _RESTRICT.fullmatch(said):
                raise self._refused(f"a psql command: {_short(said)}")
        elif said.startswith(b"COPY "):
            if len(self.buffer) <= end:
                return False
            copy = _COPY.fullmatch(said)
            if copy is None or self.buffer[end : end + 1] != b"\n":
                raise self._refused(f"a COPY that is none of pg_dump's: {_short(said)}")
            self.table, self.fresh = copy[1].decode(), True
            self.seen.rows.setdefault(self.table, 0)
            end += 1
        else:
            self._allow(said, words)
        self._passed(end)
        return True

    def _allow(self, said: bytes, words: list[bytes]) -> None:
        if not _ALLOWED.match(said):
            raise self._refused(f"a statement that pg_dump does not write: {_short(said)}")
        outside = [word for word in words if _OUTSIDE.fullmatch(word)]
        if outside:
            raise self._refused(f"a statement that reaches outside the database by {outside[0].decode()}")

    def _comments(self, end: int) -> None:
        """Pass the comments before a statement on, the mark at the end of a dump among them."""
        self.complete = self.complete or COMPLETE in self.buffer[self.start : end].splitlines()
        self._passed(end)

    def _end(self) -> None:
        rest = self.buffer[self.start :]
        if self.table is None and (_next(rest + b"\n;", 0) or (0,))[0] == len(rest) + 1:
            self._comments(len(self.buffer))
        if not self.complete or self.start < len(self.buffer):
            raise BadBackup(f"The dump is cut off in line {self.line + rest.count(10):,}.", CURE)

    def _passed(self, end: int) -> int:
        """Everything before `end` was screened; the number of lines in it."""
        lines = self.buffer.count(b"\n", self.start, end)
        self.line += lines
        self.start = end
        return lines

    def _refused(self, what: str) -> BadBackup:
        return BadBackup(f"The dump holds {what} (line {self.line:,}).", CURE)


# --- as psql reads --------------------------------------------------------------------------------------------


def _next(text: bytes, start: int) -> tuple[int, int, list[bytes]] | None:
    """Where the next statement or psql command begins and ends, and its words in capitals; None if it has no end.

    Follows psql's own lexer, so that both see the same statements.
    """
    position, first, parentheses, blocks, escape_end = start, -1, 0, 0, -1
    words: list[bytes] = []
    while token := _TOKEN.search(text, position):
        said, begin, position = token[0], token.start(), token.end()
        if said in (b"--", b"/*"):
            position = _after_comment(text, position, nested=said == b"/*")
            if position < 0:
                return None
            if escape_end >= 0 and not text[escape_end:begin].strip():
                escape_end = position
            continue
        first = begin if first < 0 else first
        if token.lastgroup == "word":
            words.append(said.upper())
            blocks = blocks if parentheses else _depth(words, blocks)
        elif token.lastgroup == "quote":
            if said == b"'" and escape_end >= 0 and not text[escape_end:begin].strip():
                raise BadBackup("The dump holds a string in two parts, which pg_dump never writes.", CURE)
            position = _after_quote(text, position, said)
            if position < 0:
                return None
            escape_end = position if said in (b"e'", b"E'") else -1
        elif said == b"\\":
            if first < begin:
                raise BadBackup("The dump holds a psql command within a statement.", CURE)
            end = text.find(b"\n", begin) + 1
            return (begin, end, []) if end else None
        elif said in (b"(", b")"):
            parentheses = max(0, parentheses + (1 if said == b"(" else -1))
        elif said == b";" and not parentheses and not blocks:
            return first, position, words
    return None


def _after_comment(text: bytes, position: int, *, nested: bool) -> int:
    """Where a comment ends, the position being in it; -1 if it does not."""
    if not nested:
        return text.find(b"\n", position)
    depth = 1
    while depth:
        mark = _BLOCK_MARK.search(text, position)
        if mark is None:
            return -1
        depth += 1 if mark[0] == b"/*" else -1
        position = mark.end()
    return position


def _after_quote(text: bytes, position: int, opened: bytes) -> int:
    """Where what was opened is closed; -1 if it is not. A doubled quote closes and opens again."""
    if opened in (b"e'", b"E'"):
        return next((part.end() for part in _ESCAPED.finditer(text, position) if part[0] == b"'"), -1)
    end = text.find(opened, position)
    return -1 if end < 0 else end + len(opened)


def _depth(words: list[bytes], depth: int) -> int:
    """How many BEGIN and CASE are open in the body of a function, where a semicolon does not end the statement."""
    kind = words[3:4] if words[1:3] == [b"OR", b"REPLACE"] else words[1:2]
    if words[0] != b"CREATE" or kind not in ([b"FUNCTION"], [b"PROCEDURE"]):
        return 0
    if words[-1] == b"BEGIN" or (words[-1] == b"CASE" and depth):
        return depth + 1
    return max(0, depth - 1) if words[-1] == b"END" else depth


def _short(said: bytes) -> str:
    return " ".join(said[:60].decode(errors="replace").split())
