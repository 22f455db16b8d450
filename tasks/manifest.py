"""What a backup must contain, and in what a database differs from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from tasks import cluster

T = TypeVar("T")

FORMAT = 1  # of the manifest file; a newer one is refused


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Table(_Part):
    """A table's content. `content` is the decimal sum of the 64-bit hashes of its rows; `key` its primary key."""

    rows: int
    content: str
    key: tuple[str, ...] = ()


class LargeObjects(_Part):
    """How many there are, and the sum of the hashes of their pages."""

    count: int = 0
    content: str = "0"


class Contents(_Part):
    """What is in a database, as far as a restored one must be the same.

    Names are qualified and quoted as PostgreSQL writes them, e.g. `public.sale`. `objects` maps each constraint,
    index, column list, view, function, trigger, type, policy, e.g. `index public.sale_by_time`, to the MD5 of its
    definition. `sequences` maps to the number given out last, negated where it counts down (None: never used, or it
    begins again at its end). `roles` own something or were granted it.
    """

    server_version: int  # e.g. 150018, as server_version_num says
    encoding: str
    collate: str
    ctype: str
    provider: str = "c"  # as in cluster.Locale
    locale: str = ""
    rules: str = ""
    tables: dict[str, Table]
    sequences: dict[str, int | None]
    objects: dict[str, str]
    extensions: dict[str, str]
    roles: tuple[str, ...]
    large_objects: LargeObjects = LargeObjects()


class Archive(_Part):
    """The archive in the bucket: of what it is made, and the SHA-256 of it before and after encryption.

    `compression` is what the stream went through after pg_dump; `none` where pg_dump itself compressed.
    """

    key: str
    compression: Literal["zstd", "none"]
    sha256: str
    bytes: int
    stored_sha256: str
    stored_bytes: int


class Manifest(_Part):
    """The commit mark of a backup: one without it does not exist. `snapshot_at` is the moment of its data.

    A `safety` backup holds the live data from right before a restore, damage and all: it is never offered first.
    """

    format: int = FORMAT
    kind: Literal["daily", "safety"] = "daily"
    site: str
    name: str
    database: str
    snapshot_at: datetime
    seconds: float
    database_bytes: int
    contents: Contents
    archive: Archive
    globals_sql: str  # roles and their memberships without passwords, as pg_dumpall --roles-only writes them
    encrypted: bool = False


def differences(expected: Contents, found: Contents) -> list[str]:
    """What is not as it must be, a sentence each; none if the database found is exactly the one expected.

    A sequence may be ahead: it is in no snapshot. Versions of the server are not compared.
    """
    return [
        *(
            f"The {name} is {now}, {before} expected."
            for name in cluster.Locale._fields
            if (now := getattr(found, name)) != (before := getattr(expected, name))
        ),
        *_compared("table ", expected.tables, found.tables, _table_differs),
        *_compared("sequence ", expected.sequences, found.sequences, _sequence_differs),
        *_compared(
            "", {"large objects": expected.large_objects}, {"large objects": found.large_objects}, _pages_differ
        ),
        *_compared("extension ", expected.extensions, found.extensions, _version_differs),
        *(f"role {name}: missing." for name in expected.roles if name not in found.roles),
        *_compared("", expected.objects, found.objects, _definition_differs),
    ]


# Every new database has it, also one that is restored from a database without it.
_ALWAYS = "rights on schema public"


def _compared(
    what: str, expected: Mapping[str, T], found: Mapping[str, T], differs: Callable[[T, T], str]
) -> list[str]:
    names = dict.fromkeys((*expected, *found))
    return [f"{what}{name}: {words}." for name in names if (words := _words(name, expected, found, differs))]


def _words(name: str, expected: Mapping[str, T], found: Mapping[str, T], differs: Callable[[T, T], str]) -> str:
    if name not in found:
        return "missing"
    if name not in expected:
        return "" if name == _ALWAYS else "not expected"
    return "" if expected[name] == found[name] else differs(expected[name], found[name])


def _table_differs(expected: Table, found: Table) -> str:
    if expected.rows != found.rows:
        return f"{found.rows:,} rows, {expected.rows:,} expected"
    if expected.content != found.content:
        return f"{found.rows:,} rows as expected, but not the same"
    return "another primary key"


def _sequence_differs(expected: int | None, found: int | None) -> str:
    if expected is None or (found is not None and found >= expected):
        return ""
    return f"behind: at {'its start' if found is None else found}, {expected} expected"


def _pages_differ(expected: LargeObjects, found: LargeObjects) -> str:
    if expected.count != found.count:
        return f"{found.count:,}, {expected.count:,} expected"
    return f"{found.count:,} as expected, but not the same"


def _version_differs(expected: str, found: str) -> str:
    return f"version {found}, {expected} expected"


def _definition_differs(_expected: str, _found: str) -> str:
    return "defined otherwise"
