"""The machine that a site runs on, reached over SSH with a pinned host key."""

import base64
import re
from typing import Annotated

from prefect.blocks.core import Block
from pydantic import AfterValidator, ConfigDict, Field, SecretStr

_HOST_KEY = re.compile(r"^(ssh-ed25519|ecdsa-sha2-nistp(256|384|521)|ssh-rsa) [A-Za-z0-9+/]+={0,2}$")


def _host_key(value: str) -> str:
    """Accept what `ssh-keyscan` or /etc/ssh/ssh_host_ed25519_key.pub print, less names and comments."""
    words = value.split()
    start = next((n for n, word in enumerate(words) if word.startswith(("ssh-", "ecdsa-"))), 0)
    key = " ".join(words[start : start + 2])
    if not _HOST_KEY.match(key) or not _is_base64(key.split()[1]):
        raise ValueError(
            "is not an SSH host key. Copy the line that `cat /etc/ssh/ssh_host_ed25519_key.pub` prints on the "
            "VPS's own console (or `ssh-keyscan -t ed25519 HOST`, compared with it), e.g. 'ssh-ed25519 AAAA…'"
        )
    return key


def _is_base64(text: str) -> bool:
    try:
        return bool(base64.b64decode(text, validate=True))
    except ValueError:
        return False


def _private_key(value: SecretStr) -> SecretStr:
    if "PRIVATE KEY" not in value.get_secret_value():
        raise ValueError(
            "is not a private key. Give the whole text of e.g. ~/.ssh/id_ed25519, from '-----BEGIN' to 'END…-----'"
        )
    return value


class Host(Block):
    """A VPS as an on-call person reaches it: `ssh USER@ADDRESS`."""

    model_config = ConfigDict(hide_input_in_errors=True)
    _block_type_name = "Guardia Host"
    _block_type_slug = "guardia-host"
    _description = "The machine that a site runs on, reached over SSH with a pinned host key."

    address: str = Field(
        pattern=r"^[A-Za-z0-9]([A-Za-z0-9.:_-]*[A-Za-z0-9])?$",
        description="Host name or IP address of the VPS, e.g. tandil.site.",
    )
    port: int = Field(default=22, ge=1, le=65535, description="SSH port.")
    user: str = Field(
        default="root",
        pattern=r"^[a-z_][a-z0-9_-]{0,31}$",
        description="SSH user; it must be allowed to run docker and systemctl.",
    )
    private_key: Annotated[SecretStr, AfterValidator(_private_key)] = Field(
        description="The whole text of the private key (OpenSSH or PEM format, without a passphrase)."
    )
    host_key: Annotated[str, AfterValidator(_host_key)] = Field(
        description="The VPS's public host key. An unknown or changed key is refused."
    )
    connect_timeout: float = Field(default=10, gt=0, le=120, description="Seconds to wait for a connection.")
