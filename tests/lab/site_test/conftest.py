"""The site's database and shop, from its own images, as two containers on a network of their own."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.lab import images
from tests.lab.engine import docker, engine
from tests.lab.home import LabError, only_one, say
from tests.lab.site.history import SOURCE

SITE = SOURCE.parent
DATABASE = "ferreteria_db"
FOLDERS = {
    "ferreteria/base": SITE / "images/base",
    "ferreteria/postgres:15": SITE / "images/postgres",
    "ferreteria/web": SOURCE / "web",
}
# The shop is asked from inside its own container, so that no port is needed.
ASK = """
import json, sys, urllib.error, urllib.request
try:
    answer = urllib.request.urlopen("http://127.0.0.1:5000" + sys.argv[1], sys.argv[2].encode() or None, timeout=9)
except urllib.error.HTTPError as error:
    answer = error
print(json.dumps([answer.status, answer.url, answer.read().decode()]))
"""


@dataclass(frozen=True)
class Answer:
    status: int
    url: str
    text: str


@dataclass(frozen=True)
class Stack:
    """Names of the two containers."""

    db: str
    web: str

    def sql(self, script: str, *options: str, database: str = DATABASE) -> str:
        """What psql prints, values only."""
        psql = ("psql", "-U", "ferreteria_user", "-d", database, "-v", "ON_ERROR_STOP=1", "-qAt", *options)
        return docker("exec", "-i", self.db, *psql, input=script).strip()

    def ask(self, path: str, form: str = "") -> Answer:
        """GET the path, or POST the form to it; redirects are followed."""
        return Answer(*json.loads(docker("exec", self.web, "python3", "-c", ASK, path, form)))

    def log(self) -> str:
        """What the shop has logged, which is on its standard error."""
        engines = {**os.environ, "DOCKER_HOST": engine()}
        return subprocess.run(
            ["docker", "logs", self.web], capture_output=True, text=True, check=True, env=engines
        ).stderr


@pytest.fixture(scope="package")
def stack() -> Iterator[Stack]:
    """A running shop with 2000 sales; skips with the reason where no engine can be had, but fails in CI."""
    try:
        engine()
    except LabError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    with only_one("images"):
        images.base(say)
        for tag, folder in FOLDERS.items():
            images.build(tag, folder, say)
    name = f"site-test-{os.getpid()}"
    docker("network", "create", name)
    try:
        yield _started(name)
    finally:
        docker("rm", "--force", "--volumes", f"{name}-web", f"{name}-db", check=False)
        docker("network", "rm", name, check=False)


def _started(name: str) -> Stack:
    stack = Stack(db=f"{name}-db", web=f"{name}-web")
    run = ("run", "--detach", "--network", name, "--env-file", str(SITE / "env.prod"))
    schema = f"{SOURCE / 'db/init'}:/docker-entrypoint-initdb.d:ro"
    docker(
        *run, "--name", stack.db, "--network-alias", "db", "--volume", schema, "ferreteria/postgres:15", "-c", "jit=off"
    )
    wait_until(lambda: bool(docker("exec", stack.db, "pg_isready", "-h", "127.0.0.1", check=False).count("accepting")))
    stack.sql((SITE / "seed.sql").read_text(), "-v", "sales=2000")
    docker(*run, "--name", stack.web, "--dns-option", "timeout:1", "ferreteria/web")
    wait_until(lambda: stack.ask("/health").status == 200)
    return stack


def wait_until(holds: Callable[[], bool], seconds: float = 20) -> None:
    """Return as soon as it holds; fail after that many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if holds():
                return
        except LabError:
            pass  # Nothing listens yet.
        time.sleep(0.2)
    raise AssertionError(f"did not come true within {seconds:.0f} s")
