"""A site as the unit tests know it. Nothing of it exists; a test puts in the servers that it speaks to."""

from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from blocks.site import Site


@cache
def private_key(whose: str = "client") -> str:
    """An Ed25519 private key in OpenSSH format, a new one for each name."""
    del whose
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


@cache
def host_key() -> str:
    """A public host key, as its file on a VPS holds it."""
    return Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def raw(**changes: Any) -> dict[str, Any]:
    """What a site file says; `changes` replace or add fields, `host__port` those of a part."""
    said: dict[str, Any] = {
        "name": "tandil",
        "url": "https://tandil.site",
        "folder": "/root/ferreteria",
        "host": {"address": "vps.test", "private_key": private_key(), "host_key": host_key()},
        "on_call": {
            "primary": {"name": "Ana", "channels": ["ana@tandil.site"]},
            "secondary": {"name": "Beto", "channels": ["beto@tandil.site"]},
            "stakeholders": [{"name": "Caro", "channels": ["caro@tandil.site"]}],
        },
        "mailbox": {"host": "127.0.0.1", "port": 9, "security": "none", "sender": "guardia@tandil.site"},
    }
    for name, value in changes.items():
        *parts, last = name.split("__")
        place = said
        for part in parts:
            place = place.setdefault(part, {})
        place[last] = value
    return said


def site(**changes: Any) -> Site:
    """The site that such a file describes."""
    return Site.model_validate(raw(**changes))
