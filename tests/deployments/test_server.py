"""The embedded server is Guardia's own: nothing of it lies where another Prefect on the machine would find it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.machine import free_ports

START = 120  # seconds; a busy machine takes its time to create the database


@pytest.fixture
def user(tmp_path: Path) -> Iterator[Path]:
    """The home folder of a user who runs `guardia up`, which is ready."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "GUARDIA_"))}
    environment |= {"HOME": str(tmp_path), "GUARDIA_HOME": str(tmp_path / "guardia")}
    argv = [str(Path(sys.executable).parent / "guardia"), "up", "--port", str(free_ports(("api",))["api"])]
    log = tmp_path / "up.log"
    with log.open("wb") as out:
        process = subprocess.Popen(argv, env=environment, cwd=tmp_path, stdout=out, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + START
        while "Ready." not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield tmp_path
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def test_the_database_lies_in_guardias_folder_and_nowhere_else(user: Path) -> None:
    assert (user / "guardia" / "prefect" / "prefect.db").is_file()
    assert not (user / ".prefect").exists()
