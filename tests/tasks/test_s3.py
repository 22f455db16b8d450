"""An upload is whole or does not exist, and every refusal names its cure."""

import hashlib
import io
import os
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from moto import mock_aws

from blocks.backup_store import BackupStore
from blocks.errors import BadBackup, GuardiaError, HostUnreachable, StoreRefused, StoreUnreachable
from tasks import s3, s3_client
from tests.stored import site

PART = 5 << 20


def block(**changes: Any) -> BackupStore:
    found = site(**changes).backups
    assert found is not None
    return found


@pytest.fixture(params=["when_required", "when_supported"])
def store(request: pytest.FixtureRequest) -> Iterator[BackupStore]:
    """An empty bucket, with each way of checksums."""
    with mock_aws():
        made = block(checksums=request.param)
        s3_client.client(made).create_bucket(Bucket=made.bucket)
        yield made


def unfinished(store: BackupStore) -> list[str]:
    answer = s3_client.client(store).list_multipart_uploads(Bucket=store.bucket)
    return [upload["Key"] for upload in answer.get("Uploads", [])]


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 2 * PART, 3 * PART + 7])
def test_what_is_uploaded_is_there_to_the_byte(store: BackupStore, size: int) -> None:
    data = os.urandom(size)
    done = s3.upload(store, "x/archive", io.BytesIO(data).read)
    assert done == s3.Uploaded(size, hashlib.sha256(data).hexdigest())
    assert b"".join(s3.stream(store, "x/archive")) == data
    assert [(found.key, found.size) for found in s3.keys(store, "x/")] == [("x/archive", size)]


def test_a_read_that_gives_little_at_a_time_is_no_end(store: BackupStore) -> None:
    data = io.BytesIO(os.urandom(PART + 100))
    assert s3.upload(store, "x", lambda size: data.read(min(size, 77_777))).bytes == PART + 100


ENDS = [HostUnreachable, KeyboardInterrupt, SystemExit]


@pytest.mark.parametrize("good", [0, 1, 3], ids="after {} parts".format)
@pytest.mark.parametrize("error", ENDS)
def test_what_ends_with_an_error_stores_nothing(store: BackupStore, good: int, error: type[BaseException]) -> None:
    parts = iter([bytes(PART)] * good)

    def read(size: int) -> bytes:
        data = next(parts, None)
        if data is None:
            raise error("cut")
        return data

    with pytest.raises(error):
        s3.upload(store, "x", read)
    assert s3.keys(store, "") == [] and unfinished(store) == []


def test_no_more_than_three_parts_are_in_memory(store: BackupStore, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, sent, most, read_parts = threading.Lock(), 0, 0, 0
    send = s3._send

    def counted(*words: Any) -> Any:
        nonlocal sent
        answer = send(*words)
        with lock:
            sent += 1
        return answer

    def read(size: int) -> bytes:
        nonlocal most, read_parts
        if read_parts == 10:
            return b""
        read_parts += 1
        most = max(most, read_parts - sent)
        return bytes(size)

    monkeypatch.setattr(s3, "_send", counted)
    s3.upload(store, "x", read)
    assert most <= 3 and s3.keys(store, "")[0].size == 10 * PART


def test_a_completion_whose_answer_was_lost_counts_by_what_is_there(
    store: BackupStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = s3_client.client(store)
    complete = client.complete_multipart_upload

    def twice(**words: Any) -> Any:
        complete(**words)
        return client.abort_multipart_upload(Bucket=store.bucket, Key="x", UploadId="gone")

    monkeypatch.setattr(client, "complete_multipart_upload", twice)
    data = os.urandom(PART + 1)
    assert s3.upload(store, "x", io.BytesIO(data).read).bytes == PART + 1


def test_an_upload_that_vanished_instead_of_being_completed_is_an_error(
    store: BackupStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = s3_client.client(store)
    vanish = {"Bucket": store.bucket, "Key": "x", "UploadId": "gone"}
    monkeypatch.setattr(client, "complete_multipart_upload", lambda **_: client.abort_multipart_upload(**vanish))
    with pytest.raises(StoreUnreachable, match="has no bytes where"):
        s3.upload(store, "x", io.BytesIO(bytes(PART)).read)


def test_what_is_too_large_to_be_a_manifest_is_not_read_into_memory(store: BackupStore) -> None:
    s3.put(store, "x", bytes(3 << 20))
    assert len(s3.get(store, "x")) == 3 << 20
    with pytest.raises(BadBackup, match="more than 1000 bytes"):
        s3.get(store, "x", limit=1000)


def test_uploads_that_killed_workers_left_are_abandoned_in_their_own_folder_alone(store: BackupStore) -> None:
    for key in ("tandil/a", "other/a"):
        s3_client.client(store).create_multipart_upload(Bucket=store.bucket, Key=key)
    assert s3.abandon(store, "tandil/", timedelta(0)) == 1
    assert unfinished(store) == ["other/a"]


def test_the_check_leaves_nothing(store: BackupStore) -> None:
    assert "can be listed and written to" in s3.check(store)
    assert s3.keys(store, "") == [] and unfinished(store) == []


def test_the_check_writes_only_where_backups_go() -> None:
    asked: list[str] = []
    with mock_aws():
        made = block(prefix="shops/here")
        client = s3_client.client(made)
        client.create_bucket(Bucket=made.bucket)
        begins = "provide-client-params.s3.CreateMultipartUpload"
        client.meta.events.register(begins, lambda params, **_: asked.append(params["Key"]))
        s3.check(made)
    assert asked == ["shops/here/guardia-check"]


def test_deleting_what_is_not_there_is_no_error_and_leaves_the_rest(store: BackupStore) -> None:
    s3.put(store, "kept", b"data")
    s3.delete(store, ["nothing"])
    assert s3.get(store, "kept") == b"data"


def test_a_lost_object_is_a_bad_backup(store: BackupStore) -> None:
    with pytest.raises(BadBackup, match="x/manifest is not there"):
        s3.get(store, "x/manifest")


# --- a bad day ------------------------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry without the waits between the attempts."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.01)


@pytest.fixture
def nowhere() -> str:
    """An address where nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_no_answer_can_be_tried_again(nowhere: str, impatient: None) -> None:
    with pytest.raises(StoreUnreachable, match="Check endpoint") as caught:
        s3.keys(block(endpoint=nowhere), "")
    assert not caught.value.permanent


def test_a_certificate_that_is_not_trusted_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def answer() -> None:
            while True:
                try:
                    one, _ = listener.accept()
                except OSError:
                    return
                one.sendall(b"\x15\x03\x03\x00\x02\x02\x28")  # a TLS alert: handshake failure
                one.close()

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(StoreRefused, match="ca_certificates"):
            s3.keys(block(endpoint=f"https://127.0.0.1:{port}"), "")
        listener.shutdown(socket.SHUT_RDWR)


ANSWERS: list[tuple[int, str, type[GuardiaError], str]] = [
    (403, "AccessDenied", StoreRefused, "Give a the right to list, read, write and delete"),
    (403, "SignatureDoesNotMatch", StoreRefused, "secret_access_key"),
    (403, "InvalidAccessKeyId", StoreRefused, "access_key_id"),
    (403, "RequestTimeTooSkewed", StoreRefused, "there, Tue, 24 Nov 2026 03:00:00 GMT. Put the clock"),
    (404, "NoSuchBucket", StoreRefused, "Create the bucket"),
    (400, "AuthorizationHeaderMalformed", StoreRefused, "region"),
    (400, "Whatever", StoreRefused, r"Check \[backups\]"),
    (404, "NoSuchKey", BadBackup, "is not there"),
    (403, "InvalidObjectState", BadBackup, "archive class"),
    (500, "InternalError", StoreUnreachable, "may pass"),
    (503, "SlowDown", StoreUnreachable, "may pass"),
    (429, "TooManyRequests", StoreUnreachable, "may pass"),
    (400, "BadDigest", StoreUnreachable, "may pass"),
    (400, "RequestTimeout", StoreUnreachable, "may pass"),
]


@pytest.mark.parametrize(("status", "code", "error", "cure"), ANSWERS)
def test_each_answer_names_its_cure(status: int, code: str, error: type[GuardiaError], cure: str) -> None:
    from botocore.exceptions import ClientError

    meta = {"HTTPStatusCode": status, "HTTPHeaders": {"date": "Tue, 24 Nov 2026 03:00:00 GMT"}}
    answer: Any = {"Error": {"Code": code, "Message": "said"}, "ResponseMetadata": meta}
    with pytest.raises(error, match=cure) as caught, s3_client.errors(block(endpoint="http://s3.test"), "x/archive"):
        raise ClientError(answer, "PutObject")
    assert "The bucket guardia at http://s3.test: x/archive" in str(caught.value)


def test_no_secret_is_in_an_error(nowhere: str, impatient: None) -> None:
    with pytest.raises(StoreUnreachable) as caught:
        s3.keys(block(endpoint=nowhere, secret_access_key="hunter2"), "")
    assert "hunter2" not in repr(caught.value) + str(caught.value.__cause__)
