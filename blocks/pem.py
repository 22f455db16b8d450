"""Certificates as text, checked when they are configured and not when they are needed."""

import ssl
from typing import Annotated

from pydantic import AfterValidator


def _certificates(value: str) -> str:
    try:
        ssl.create_default_context().load_verify_locations(cadata=value)
    except (ssl.SSLError, ValueError, TypeError):  # TypeError: not ASCII
        raise ValueError("is not PEM text of certificates, '-----BEGIN CERTIFICATE-----' and so on") from None
    return value


Certificates = Annotated[str, AfterValidator(_certificates)]
