"""Encrypt and sign what leaves for the bucket, so that who can write there can neither read nor forge a backup.

A sealed stream is MAGIC, a salt, and chunks of AES-256-GCM under a key derived for this stream alone (the STREAM
construction). A chunk's nonce holds its place and whether it is the last, and what is authenticated with it names the
backup: a chunk that is changed, moved, repeated, cut off or taken from another backup does not open.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pydantic import SecretStr

from blocks.errors import BadBackup
from tasks.streams import Read, blocks, fill, reading

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC = b"GUARDIA1"
SALT = 16  # bytes
CHUNK = 1 << 20  # bytes of plain text in each chunk but the last
TAG = 16  # bytes that authentication adds to each chunk


def decoded(key: SecretStr) -> bytes:
    """The 32 bytes of an encryption key as the site file gives it, in Base64."""
    return base64.b64decode(key.get_secret_value())


def seal(read: Read, key: bytes, context: bytes) -> Read:
    """Encrypt what is read. The same 32-byte key and context open it again."""

    def pieces() -> Iterator[bytes]:
        salt = os.urandom(SALT)
        yield MAGIC + salt
        cipher = _cipher(key, salt)
        for index, (block, last) in enumerate(blocks(read, CHUNK)):
            yield cipher.encrypt(_nonce(index, last), block, context)

    return reading(pieces())


def unseal(chunks: Iterable[bytes], key: bytes, context: bytes) -> Iterator[bytes]:
    """Decrypt chunks of any size; only what is authentic and in its place comes out.

    Raises BadBackup where it is not, and at a premature end: what came before is authentic, but not the whole.
    """
    from cryptography.exceptions import InvalidTag

    read = reading(chunks)
    head = fill(read, len(MAGIC) + SALT)
    if len(head) < len(MAGIC) + SALT or not head.startswith(MAGIC):
        raise BadBackup("An archive is not encrypted in Guardia's way, or its first bytes are damaged.", _CURE)
    cipher = _cipher(key, head[len(MAGIC) :])
    for index, (block, last) in enumerate(blocks(read, CHUNK + TAG)):
        try:
            plain = cipher.decrypt(_nonce(index, last), block, context) if len(block) >= TAG else None
        except InvalidTag:
            plain = None
        if plain is None:
            raise BadBackup(
                f"An encrypted archive does not open at its chunk {index}: it is damaged, truncated, of another backup "
                "or sealed with another key.",
                _CURE,
            )
        yield plain


def sign(data: bytes, key: bytes, context: bytes) -> str:
    """A signature in hexadecimal that only who has the key can make."""
    secret = _derived(key, b"", b"guardia signature")
    return hmac.new(secret, len(context).to_bytes(8, "big") + context + data, hashlib.sha256).hexdigest()


def check(data: bytes, signature: str, key: bytes, context: bytes) -> bool:
    """Whether the signature is of these data in this context by this key."""
    return hmac.compare_digest(sign(data, key, context).encode(), signature.encode())


_CURE = "Choose another backup; if encryption_key in [backups] was changed, give back the old one."


def _cipher(key: bytes, salt: bytes) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(_derived(key, salt, b"guardia archive"))


def _derived(key: bytes, salt: bytes, purpose: bytes) -> bytes:
    """A key for one purpose, which tells nothing of the one it is derived from or of its siblings (RFC 5869)."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), 32, salt, purpose).derive(key)


def _nonce(index: int, last: bool) -> bytes:
    return index.to_bytes(11, "big") + bytes([last])
