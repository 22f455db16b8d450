"""The Docker engine that carries the lab: the user's own if it will do, else a private one."""

import functools
import os
import subprocess
from collections.abc import Callable

from tests.lab import private_engine
from tests.lab.home import LabError, only_one, run, say

DEFAULT = "unix:///var/run/docker.sock"


@functools.cache
def engine(report: Callable[[str], None] = say) -> str:
    """The DOCKER_HOST of an engine that answers.

    The user's (DOCKER_HOST, else the default socket) if it runs Linux containers on this machine; else, as
    root on Debian or Ubuntu, a private one, installed and started here and used again while it lives.

    Raises:
        LabError: no engine and no way to have one; one sentence says what to install.
    """
    users = os.environ.get("DOCKER_HOST") or DEFAULT
    if users.startswith("unix://") and _runs_linux(users):
        return users
    if reason := private_engine.missing():
        raise LabError(f"the practice VPS needs a Docker engine on this machine: {reason}")
    with only_one("engine"):
        if private_engine.install(report) and _runs_linux(users):
            return users  # under systemd the package has started an engine of its own
        return private_engine.start(report)


def stop_engine() -> None:
    """Stop the engine if it is the lab's own, with everything that it mounted; the user's is left alone."""
    engine.cache_clear()
    with only_one("engine"):
        private_engine.stop()


def docker(*argv: str, timeout: float = 120, input: str | None = None, check: bool = True) -> str:
    """Run the docker command line against `engine()` and return what it printed on standard output.

    Raises:
        LabError: it took longer than `timeout` seconds or, if `check`, exited with something but 0.
    """
    # The classic builder is in every engine; BuildKit's client part is not in Debian's.
    env = {"DOCKER_HOST": engine(), "DOCKER_BUILDKIT": "0"}
    if check:
        return run(["docker", *argv], failing=f"docker {argv[0]}", timeout=timeout, env=env, input=input)
    try:
        return subprocess.run(
            ["docker", *argv],
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **env},
            input=input,
        ).stdout
    except subprocess.TimeoutExpired as error:
        raise LabError(f"docker {' '.join(argv)[:120]} took longer than {timeout:.0f} s") from error


def _runs_linux(host: str) -> bool:
    try:
        asked = subprocess.run(
            ["docker", "-H", host, "info", "--format", "{{.OSType}}"],
            check=False,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0 and asked.stdout.strip() == "linux"
