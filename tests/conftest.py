"""What the unit tests share: one Prefect server for a whole process of the session, and real servers to speak to."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.lab.counted import pytest_sessionfinish, pytest_terminal_summary, pytest_testnodedown  # noqa: F401
from tests.mail_server import MailServer
from tests.postgres_server import PostgresServer
from tests.ssh_server import SshServer
from tests.web_server import WebServer

settings.register_profile("guardia", deadline=None)  # the machine may be busy
settings.load_profile("guardia")


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A Prefect server with a database of its own; only tests that ask for it pay for its start."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    # A test reads the timeline that it has just written.
    os.environ["PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL"] = "0.2"
    without = temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})  # its thread takes 1 s to end with a run
    with prefect_test_harness(server_startup_timeout=120), without:
        yield


@pytest.fixture
def ssh_server(tmp_path: Path) -> Iterator[SshServer]:
    """An SSH server for one test, which may break it."""
    with SshServer(tmp_path) as server:
        yield server


@pytest.fixture
def web() -> Iterator[WebServer]:
    """The site as seen from outside."""
    with WebServer() as server:
        yield server


@pytest.fixture
def mail() -> Iterator[MailServer]:
    """The mail server of the on-call, which asks for a password."""
    with MailServer() as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server; each test makes databases of its own in it. Fails in CI where there is none, else skips.

    Not in pytest's own folder: another session of pytest closes that to all but root, and the server is another user.
    """
    folder = Path(tempfile.mkdtemp(prefix="guardia-postgres-"))
    try:
        server = PostgresServer(folder)
    except FileNotFoundError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    try:
        with server:
            yield server
    finally:
        shutil.rmtree(folder)
