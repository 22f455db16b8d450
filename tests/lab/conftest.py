"""One practice machine for all tests of a process; where there can be none, they skip and say why."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import faults
from tests.lab.engine import engine
from tests.lab.home import LabError
from tests.lab.seaweed import Store, seaweed
from tests.lab.ssh import ssh_argv
from tests.lab.vps import PracticeVps, down, names, up


@pytest.fixture(scope="session")
def lab() -> str:
    """The engine that carries the lab; without one the test skips, but in CI it fails."""
    try:
        return engine()
    except LabError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def machine(lab: str) -> Iterator[PracticeVps]:
    """The process's machine, which nobody else's test uses."""
    for left in names():  # by sessions that were killed
        if (pid := left.removeprefix("test-")).isdigit() and not Path("/proc", pid).exists():
            down(left)
    name = f"test-{os.getpid()}"
    try:
        yield up(name)
    finally:
        down(name)


@pytest.fixture
def vps(machine: PracticeVps) -> Iterator[PracticeVps]:
    """The session's machine, healthy before the test and healed after it."""
    yield machine
    faults.heal(machine)


@pytest.fixture(scope="session")
def s3_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A real S3 service with one bucket; a test uses a prefix of its own in it."""
    with seaweed(tmp_path_factory.mktemp("seaweed")) as store:
        yield store


def ssh(vps: PracticeVps, *command: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
    """Run a command over SSH, as an operator would."""
    argv = ssh_argv(vps, *command)
    return subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL)
