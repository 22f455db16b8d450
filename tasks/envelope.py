"""A file of one line in the bucket: what it says, the SHA-256 of that and, where there is a key, a signature.

Where there is a key, a file without a signature is refused, as anybody who can write to the bucket can leave it out.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from blocks.errors import BadBackup
from blocks.site import Site
from tasks import bucket, sealed
from tasks.manifest import FORMAT

ANOTHER = "Choose another backup."

M = TypeVar("M", bound=BaseModel)


def wrap(site: Site, name: str, what: str, content: BaseModel) -> bytes:
    """The file of the backup `name` that is its `what`: manifest or proof."""
    raw = content.model_dump(mode="json")
    data = canonical(raw)
    key = bucket.store(site).encryption_key
    signature = sealed.sign(data, sealed.decoded(key), bucket.context(site, name, what)) if key else None
    return canonical({what: raw, "sha256": hashlib.sha256(data).hexdigest(), "signature": signature})


def unwrap(site: Site, name: str, what: str, file: bytes, model: type[M]) -> M:
    """What such a file holds. Raises BadBackup unless it is, to the byte, what Guardia wrote for this backup."""
    place, secret = f"The {what} of {name}", bucket.store(site).encryption_key
    try:
        envelope = json.loads(file)
        raw, signature = envelope[what], envelope["signature"]
        data = canonical(raw)
        whole = canonical({what: raw, "sha256": hashlib.sha256(data).hexdigest(), "signature": signature}) == file
    except (ValueError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise BadBackup(f"{place} is damaged: it does not have the SHA-256 that it names.", ANOTHER)
    if secret and signature is None:
        raise BadBackup(
            f"{place} is not signed: it is forged, or was made before encryption_key was set.",
            "Make a new backup. If you know this one to be yours, take encryption_key out of [backups] to use it.",
        )
    if secret and not sealed.check(data, str(signature), sealed.decoded(secret), bucket.context(site, name, what)):
        raise BadBackup(
            f"{place} has a wrong signature: it is forged, or was made with another encryption_key.",
            "Give the key that it was made with as encryption_key in [backups], or choose another backup.",
        )
    if what == "manifest" and isinstance(raw, dict) and raw.get("format") != FORMAT:
        raise BadBackup(f"{place} has format {raw.get('format')}; known is {FORMAT}.", "Update Guardia.")
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise BadBackup(f"{place} is not one: {error.errors()[0]['msg']}.", ANOTHER) from None


def digest(content: BaseModel) -> str:
    """The SHA-256 that a content is known by: a proof knows its manifest so."""
    return hashlib.sha256(canonical(content.model_dump(mode="json"))).hexdigest()


def canonical(raw: Any) -> bytes:
    """The one way to write it in JSON."""
    return json.dumps(raw, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
