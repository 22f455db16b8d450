"""What a backup must contain: every table's exact rows and content, taken in the dump's own snapshot."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

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
    definition. `sequences` maps to the last value (None: never used). `roles` own something or were granted it.
    """

    server_version: int  # e.g. 150018, as server_version_num says
    encoding: str
    collate: str
    ctype: str
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
    """The commit mark of a backup: one without it does not exist. `snapshot_at` is the moment of its data."""

    format: int = FORMAT
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
