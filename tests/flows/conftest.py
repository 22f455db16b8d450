"""A registered site with a real page outside and a real mail server, for the whole folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks import site_file
from blocks.site import Site
from deployments import limits
from tests import sample
from tests.mail_server import MailServer
from tests.web_server import WebServer


@pytest.fixture(scope="package")
def page() -> Iterator[WebServer]:
    with WebServer() as server:
        yield server


@pytest.fixture(scope="package")
def post() -> Iterator[MailServer]:
    with MailServer() as server:
        yield server


@pytest.fixture(scope="package")
def site(prefect_server: None, page: WebServer, post: MailServer) -> Site:
    made = sample.site(url=page.url, mailbox=post.settings, healthy_in_a_row=1, recovery_timeout=5)
    site_file.register(made)
    limits.ensure([made.name])
    return made


@pytest.fixture(autouse=True)
def _as_new(page: WebServer, post: MailServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page.page, page.health, page.sick_until = 200, 200, None
    page.requests.clear()
    post.messages.clear()
    monkeypatch.setenv("GUARDIA_INCIDENTS", str(tmp_path / "incidents"))
