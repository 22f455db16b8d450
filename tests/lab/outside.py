"""The site as its visitors see it: through the published port, with the certificate verified."""

import json
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

HOST = "ferreteria.test"


@dataclass(frozen=True)
class Seen:
    """An answer from outside: its status and text, or `status` None and in `text` what went wrong."""

    status: int | None
    text: str

    @property
    def healthy(self) -> bool:
        """Whether this is the shop's 200 with "status": "healthy"."""
        try:
            return self.status == 200 and json.loads(self.text)["status"] == "healthy"
        except (ValueError, KeyError, TypeError):
            return False


def see(port: int, ca_file: Path, path: str = "/health", timeout: float = 8) -> Seen:
    """GET `path` of the site published at 127.0.0.1:`port`; at most `timeout` seconds a network step."""
    trusted = ssl.create_default_context(cafile=str(ca_file))
    try:
        with httpx.Client(verify=trusted, trust_env=False, timeout=timeout) as client:
            answer = client.get(
                f"https://127.0.0.1:{port}{path}", headers={"Host": HOST}, extensions={"sni_hostname": HOST}
            )
    except httpx.TransportError as error:
        return Seen(None, f"{type(error).__name__}: {error}")
    return Seen(answer.status_code, answer.text)


def healthy_in_a_row(port: int, ca_file: Path, seconds: float, times: int = 3) -> Seen:
    """Look until the site was healthy `times` times in a row or `seconds` are over; return the last look."""
    deadline = time.monotonic() + seconds
    row = 0
    while True:
        seen = see(port, ca_file, timeout=5)
        row = row + 1 if seen.healthy else 0
        if row == times or time.monotonic() > deadline:
            return seen if row == times or not seen.healthy else Seen(None, "healthy, but not in a row")
        time.sleep(0.1 if seen.healthy else 0.25)
