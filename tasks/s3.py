"""Speak to an S3 bucket, Amazon's or a compatible one.

An upload is whole or does not exist: it is completed only when what it is read from has ended well, and aborted on
anything else. No more than three parts are in memory.
"""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from blocks.backup_store import BackupStore
from blocks.errors import BadBackup, GuardiaError, StoreRefused, StoreUnreachable
from tasks.s3_client import ATTEMPTS, client, errors, named
from tasks.streams import Read, fill

SMALL = 64 << 20  # bytes that an object read into memory may have
CHUNK = 1 << 20  # bytes of a download that are handed on at a time
MOST_PARTS = 10_000  # that S3 allows
_IN_FLIGHT = 2  # parts of an upload on the way while the next one is read


@dataclass(frozen=True)
class Uploaded:
    """What is in the bucket now: bytes, and their SHA-256."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Object:
    """One object: its key, bytes, and when it was written."""

    key: str
    size: int
    modified: datetime


def upload(store: BackupStore, key: str, read: Read) -> Uploaded:
    """Store what is read until its true end, under object lock if the store has it.

    Raises StoreUnreachable or StoreRefused, or what `read` raised; then nothing is stored.
    """
    size = store.part_size << 20
    digest, total = hashlib.sha256(), 0

    def part() -> bytes:
        nonlocal total
        data = fill(read, size)
        digest.update(data)
        total += len(data)
        return data

    first = [part()]
    if len(first[0]) < size:
        put(store, key, first[0], locked=True)
    else:  # no name here keeps the first part in memory while the others go
        _multipart(store, key, lambda: first.pop() if first else part(), lambda: total)
    return Uploaded(total, digest.hexdigest())


def put(store: BackupStore, key: str, data: bytes, *, locked: bool = False) -> None:
    """Store a small object, replacing one that is there; `locked`: under object lock if the store has it."""
    lock = _lock(store) if locked else {}
    with errors(store, key):
        client(store).put_object(Bucket=store.bucket, Key=key, Body=data, **_md5(store, data), **lock)
    _expect(store, key, len(data))


def get(store: BackupStore, key: str, limit: int = SMALL) -> bytes:
    """A small object. Raises BadBackup if it is not there or is larger than `limit` bytes."""
    data = bytearray()
    for chunk in stream(store, key):
        data += chunk
        if len(data) > limit:
            raise BadBackup(f"{named(store, key)} has more than {limit} bytes.", "It is not what Guardia wrote there.")
    return bytes(data)


def stream(store: BackupStore, key: str) -> Iterator[bytes]:
    """An object's bytes, in pieces; a download that breaks goes on where it broke.

    Raises BadBackup if it is not there or was replaced meanwhile.
    """
    done, tag, broken = 0, "", 0
    while True:
        wanted = {"Range": f"bytes={done}-", "IfMatch": tag} if done else {}
        with errors(store, key):
            answer = client(store).get_object(Bucket=store.bucket, Key=key, **wanted)
        tag = answer["ETag"]
        pieces = answer["Body"].iter_chunks(CHUNK)
        while True:
            try:
                with errors(store, key):
                    piece = next(pieces, b"")
            except StoreUnreachable:
                broken += 1
                if broken >= ATTEMPTS or not done:
                    raise
                break
            if not piece:
                return
            done += len(piece)
            yield piece


def keys(store: BackupStore, prefix: str) -> list[Object]:
    """All objects whose key begins with the prefix."""
    with errors(store, prefix):
        pages = client(store).get_paginator("list_objects_v2").paginate(Bucket=store.bucket, Prefix=prefix)
        return [Object(o["Key"], o["Size"], o["LastModified"]) for page in pages for o in page.get("Contents", [])]


def delete(store: BackupStore, keys: Iterable[str]) -> None:
    """Delete objects, in this order; one that is not there is no error. In a versioned bucket they are hidden."""
    for key in keys:
        with errors(store, key):
            client(store).delete_object(Bucket=store.bucket, Key=key)


def locked(store: BackupStore, key: str) -> bool:
    """Whether object lock forbids to delete it, now."""
    with errors(store, key):
        until = client(store).head_object(Bucket=store.bucket, Key=key).get("ObjectLockRetainUntilDate")
    return until is not None and until > datetime.now(UTC)


def abandon(
    store: BackupStore, prefix: str, older_than: timedelta, which: Callable[[str], bool] = lambda _key: True
) -> int:
    """Abort unfinished uploads that killed workers left, which cost like objects; returns how many.

    `which` says of a key whether its upload is one of them.
    """
    with errors(store, prefix):
        pages = client(store).get_paginator("list_multipart_uploads").paginate(Bucket=store.bucket, Prefix=prefix)
        found = [upload for page in pages for upload in page.get("Uploads", []) if which(upload["Key"])]
        old = [upload for upload in found if datetime.now(UTC) - upload["Initiated"] >= older_than]
        for left in old:
            client(store).abort_multipart_upload(Bucket=store.bucket, Key=left["Key"], UploadId=left["UploadId"])
    return len(old)


def check(store: BackupStore) -> str:
    """See that the bucket can be listed and written to, without leaving anything; returns what was seen.

    Only where backups go: the credentials may have no rights elsewhere. Raises StoreRefused with the cure,
    StoreUnreachable.
    """
    prefix = f"{store.prefix}/" if store.prefix else ""
    probe = {"Bucket": store.bucket, "Key": f"{prefix}guardia-check"}
    with errors(store, prefix):
        client(store).list_objects_v2(Bucket=store.bucket, Prefix=prefix, MaxKeys=1)
        begun = client(store).create_multipart_upload(**probe)
        client(store).abort_multipart_upload(**probe, UploadId=begun["UploadId"])
        if store.object_lock:
            client(store).get_object_lock_configuration(Bucket=store.bucket)
    return f"{named(store)} can be listed and written to" + (", and locks objects" if store.object_lock else "")


# --- an upload ------------------------------------------------------------------------------------------------


def _multipart(store: BackupStore, key: str, part: Callable[[], bytes], total: Callable[[], int]) -> None:
    place = {"Bucket": store.bucket, "Key": key}
    with errors(store, key):
        place["UploadId"] = client(store).create_multipart_upload(**place, **_lock(store))["UploadId"]
    with ThreadPoolExecutor(_IN_FLIGHT) as pool:
        try:
            parts = _parts(store, place, pool, part)
            tag = _complete(store, place, parts)
        except BaseException:  # an interrupt too: an unfinished upload costs, and is invisible
            pool.shutdown(cancel_futures=True)  # a part that arrives after the abort would be left over
            with suppress(GuardiaError), errors(store, key):
                client(store).abort_multipart_upload(**place)
            raise
    _expect(store, key, total(), tag)


def _parts(
    store: BackupStore, place: dict[str, str], pool: ThreadPoolExecutor, part: Callable[[], bytes]
) -> list[dict[str, Any]]:
    """Send part after part; wait for the oldest when enough are on the way."""
    waiting: deque[Future[dict[str, Any]]] = deque()
    sent: list[dict[str, Any]] = []
    number = 0
    while data := part():
        number += 1
        if number > MOST_PARTS:
            raise StoreRefused(f"{place['Key']} needs more than {MOST_PARTS} parts.", "Raise part_size in [backups].")
        waiting.append(pool.submit(_send, store, place, number, data))
        if len(waiting) >= _IN_FLIGHT:
            sent.append(waiting.popleft().result())
    return sent + [one.result() for one in waiting]


def _send(store: BackupStore, place: dict[str, str], number: int, data: bytes) -> dict[str, Any]:
    with errors(store, place["Key"]):
        answer = client(store).upload_part(**place, PartNumber=number, Body=data, **_md5(store, data))
    return {"PartNumber": number, "ETag": answer["ETag"]}


def _complete(store: BackupStore, place: dict[str, str], parts: list[dict[str, Any]]) -> str:
    """Make it one object; returns its ETag.

    Where the answer to a completion was lost, the client's retry finds no such upload: then the object itself tells.
    """
    from botocore.exceptions import ClientError

    with errors(store, place["Key"]):
        try:
            done = client(store).complete_multipart_upload(**place, MultipartUpload={"Parts": parts})
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchUpload":
                raise
            tags = b"".join(bytes.fromhex(one["ETag"].strip('"')) for one in parts)
            return f'"{hashlib.md5(tags, usedforsecurity=False).hexdigest()}-{len(parts)}"'
    return str(done["ETag"])


def _expect(store: BackupStore, key: str, size: int, tag: str = "") -> None:
    """See that the bucket now has what was sent."""
    try:
        with errors(store, key):
            found = client(store).head_object(Bucket=store.bucket, Key=key)
    except BadBackup:
        found = {"ContentLength": "no", "ETag": ""}
    if found["ContentLength"] != size or (tag and found["ETag"] != tag):
        raise StoreUnreachable(
            f"{named(store, key)} has {found['ContentLength']} bytes where {size} were sent.",
            "The service broke an upload that it confirmed; it is tried again.",
        )


def _md5(store: BackupStore, data: bytes) -> dict[str, str]:
    """What lets the service see that the data arrived whole, where the client sends no newer checksum by itself."""
    if store.checksums == "when_supported":
        return {}
    return {"ContentMD5": base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()}


def _lock(store: BackupStore) -> dict[str, Any]:
    if not store.object_lock:
        return {}
    until = datetime.now(UTC) + timedelta(days=store.object_lock)
    return {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": until}
