"""The client of an S3 bucket, and what its errors mean."""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from blocks.backup_store import BackupStore
from blocks.errors import BadBackup, StoreError, StoreRefused, StoreUnreachable

ATTEMPTS = 5  # for each request
_CREDENTIALS = "Check access_key_id and secret_access_key in [backups]."
_CURES = {
    "NoSuchBucket": "Create the bucket, or put bucket and endpoint in [backups] right.",
    "InvalidAccessKeyId": _CREDENTIALS,
    "SignatureDoesNotMatch": _CREDENTIALS,
    "AuthorizationHeaderMalformed": "Check region in [backups].",
    "PermanentRedirect": "Check region and endpoint in [backups].",
    "ObjectLockConfigurationNotFoundError": "Make a bucket with object lock, or remove object_lock from [backups].",
    "RequestTimeTooSkewed": "Put the clock of the machine that Guardia runs on right; see timedatectl.",
}
_PASSING = {"SlowDown", "RequestTimeout", "BadDigest", "XAmzContentSHA256Mismatch", "NoSuchUpload", "OperationAborted"}

_clients: dict[tuple[str, ...], Any] = {}


def client(store: BackupStore) -> Any:
    """The client of a store, one for each process."""
    import boto3
    from botocore.config import Config

    secret = store.secret_access_key.get_secret_value()
    known = (store.model_dump_json(exclude={"retention"}), secret)
    if known not in _clients:
        session = boto3.session.Session(store.access_key_id, secret, region_name=store.region)
        _clients[known] = session.client(
            "s3",
            endpoint_url=str(store.endpoint) if store.endpoint else None,
            verify=_authorities(store.ca_certificates),
            config=Config(
                connect_timeout=5, read_timeout=30, retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
                s3={"addressing_style": store.addressing}, request_checksum_calculation=store.checksums,
                response_checksum_validation=store.checksums, tcp_keepalive=True,
            ),
        )  # fmt: skip
    return _clients[known]


@contextmanager
def errors(store: BackupStore, key: str) -> Iterator[None]:
    """Say what the client's errors mean, and what cures them."""
    from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError, SSLError

    place = named(store, key)
    try:
        yield
    except ClientError as error:
        raise _answered(store, place, error.response) from error
    except SSLError as error:
        cure = "Check endpoint, and ca_certificates if it has an authority of its own."
        raise StoreRefused(f"{place}: its certificate is not trusted: {error}", cure) from error
    except ParamValidationError as error:
        raise StoreRefused(f"{place}: {error}", "Check [backups] in the site file.") from error
    except (BotoCoreError, OSError) as error:
        cure = "Check endpoint in [backups], and the network where Guardia runs."
        raise StoreUnreachable(f"{place} does not answer, or its answer broke off: {error}", cure) from error


def _answered(store: BackupStore, place: str, response: Any) -> StoreError | BadBackup:
    code, said = str(response["Error"].get("Code", "")), str(response["Error"].get("Message", ""))
    meta = response.get("ResponseMetadata", {})
    status = int(meta.get("HTTPStatusCode", 0))
    words = f"{place} answered {status} {code}: {said}"
    if status >= 500 or status == 429 or code in _PASSING:
        return StoreUnreachable(words, "It may pass; see the service's own status.")
    if code in {"NoSuchKey", "404"}:
        return BadBackup(f"{place} is not there.", "Choose another backup.")
    if code == "InvalidObjectState":
        return BadBackup(f"{place} was moved to an archive class.", "Restore it there, and exempt it from that rule.")
    if code in {"PreconditionFailed", "412", "InvalidRange", "416"}:
        return BadBackup(f"{place} was replaced while it was read.", "Choose another backup.")
    if code == "RequestTimeTooSkewed":
        theirs = meta.get("HTTPHeaders", {}).get("date", "another time")
        words += f" Here it is {datetime.now(UTC):%a, %d %b %Y %H:%M:%S GMT}; there, {theirs}."
    rights = f"Give {store.access_key_id} the right to list, read, write and delete in the bucket."
    return StoreRefused(words, _CURES.get(code, rights if status in {401, 403} else "Check [backups]."))


def named(store: BackupStore, key: str = "") -> str:
    """The bucket, and an object in it, for people."""
    where = str(store.endpoint).rstrip("/") if store.endpoint else f"Amazon S3 ({store.region})"
    return f"The bucket {store.bucket} at {where}" + (f": {key}" if key else "")


def _authorities(extra: str | None) -> str | None:
    """A file with the usual certificate authorities and these, which is what the client can be given."""
    if extra is None:
        return None
    import certifi

    with tempfile.NamedTemporaryFile("w", suffix=".pem", delete=False) as file:
        file.write(Path(certifi.where()).read_text() + extra)
    atexit.register(Path(file.name).unlink, missing_ok=True)
    return file.name
