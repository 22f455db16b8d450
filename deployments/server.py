"""The embedded Prefect server: one process with a SQLite database under Guardia's folder."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from blocks.errors import ConfigError
from deployments.home import home, point_at_server, write_down

START_TIMEOUT = 180  # seconds; the first start creates the database


@contextmanager
def running(host: str, port: int) -> Iterator[str]:
    """Run the server until the block ends, with this process and those it starts pointed at it; yields its API's URL.

    Raises ConfigError if the port is taken or the server does not start; its log is in GUARDIA_HOME/server.log.
    """
    _free(host, port)
    url = f"http://{host}:{port}/api"
    point_at_server(url)  # before the server starts: its database belongs into Guardia's folder too
    log = home() / "server.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", host, "--port", str(port)],
            env=_environment(url), stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        _wait(process, url, str(log))
        write_down(url)
        yield url
    finally:
        _stop(process)


def _environment(url: str) -> dict[str, str]:
    return {
        **os.environ,
        "PREFECT_UI_API_URL": url,
        "PREFECT_SERVER_UI_API_URL": url,
        "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "0.5",  # a resumed run reads its own timeline
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    }


def _free(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"Port {port} on {host} cannot be used: {error.strerror}.",
                "Is Guardia up already (`guardia status`)? Otherwise choose another with --port.",
            ) from None


def _wait(process: subprocess.Popen[bytes], url: str, log: str) -> None:
    started = time.monotonic()
    while time.monotonic() - started < START_TIMEOUT:
        if process.poll() is not None:
            raise ConfigError(f"The Prefect server ended with status {process.returncode}.", f"Its log is {log}.")
        try:
            if not httpx.get(f"{url}/health", timeout=5).is_server_error:
                return  # 401 counts: a server with PREFECT_SERVER_API_AUTH_STRING answers nobody else
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise ConfigError(f"The Prefect server did not answer within {START_TIMEOUT} s.", f"Its log is {log}.")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and what it started: it has a process group of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an impatient second Ctrl-C must not leave it behind
    for sign, patience in ((signal.SIGINT, 10), (signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        if process.poll() is not None:
            return
        os.killpg(process.pid, sign)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
