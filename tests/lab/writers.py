"""Clients that sell while a backup, a restore or a swap goes on, and a list of every sale that was acknowledged.

They live in a container of their own beside the shop, so that a stopped web service does not stop them. A sale that
PostgreSQL acknowledged must be in a database afterwards; one whose answer was lost may be.
"""

import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from tests.lab import database, machine
from tests.lab.engine import docker, engine
from tests.lab.home import LabError
from tests.lab.vps import PracticeVps

NAME = "sellers"


@dataclass
class Sales:
    """What the clients saw: acknowledged sales by token, with the machine's clock in seconds; and what failed.

    `failed` counts errors by their name on connections that lived on, such as a read-only database; a connection
    that was lost is only a gap. `over` is when the clients ended; None while they sell or if they were killed.
    """

    sold: dict[str, float] = field(default_factory=dict)
    failed: Counter[str] = field(default_factory=Counter)
    over: float | None = None

    def hear(self, line: str) -> None:
        """Take in what the program `seller.py` said."""
        match line.split():
            case ["sold", token, at]:
                self.sold[token] = float(at)
            case ["failed", _, error]:
                self.failed[error] += 1
            case ["over", at]:
                self.over = float(at)

    def gaps(self) -> dict[str, float]:
        """The longest time in seconds that each client sold nothing, by client, to the end of it all."""
        times: dict[str, list[float]] = {}
        for token, at in self.sold.items():
            times.setdefault(token.rsplit("-", 1)[0], []).append(at)
        end = [self.over] if self.over is not None else []
        longest = {}
        for client, moments in times.items():
            row = sorted([*moments, *end])
            longest[client] = max((later - earlier for earlier, later in pairwise(row)), default=0.0)
        return longest

    def lost(self, vps: PracticeVps, *databases: str) -> list[str]:
        """The acknowledged sales that are in none of these databases."""
        sold = set(self.sold)  # first: who still sells goes on while the databases are read
        there = [set(database.sql(vps, "SELECT recipient FROM receipt_mail", name).splitlines()) for name in databases]
        return sorted(sold.difference(*there))


@contextmanager
def selling(
    vps: PracticeVps, clients: int = 8, run: str = "run", *, pause: float = 0.005, tenants: int = 20
) -> Iterator[Sales]:
    """Let so many clients sell until the block ends; `run` tells one block's sales from another's.

    Each waits for `pause` seconds between two sales: a hundred without one take the whole machine. They sell for the
    first `tenants`.

    More than 40 clients share 40 connections, for the shop's server has 50. A power cut ends them: what they had
    said by then counts. LabError if they sell nothing within 20 s.
    """
    program = Path(__file__).with_name("seller.py").read_text()
    run_it = (
        "docker", "run", "--rm", "--interactive", "--name", NAME, "--network", "ferreteria_default",
        "--env", "PGUSER=ferreteria_user", "--env", "PGDATABASE=ferreteria_db",
        "--env-file", "/root/ferreteria/.env.prod", "ferreteria/web",
        "sh", "-c", 'PGPASSWORD=$POSTGRES_PASSWORD exec python3 -c "$0" "$@"', program, str(clients), run,
        str(pause), str(tenants),
    )  # fmt: skip
    process = subprocess.Popen(
        ["docker", "exec", "-i", machine.container(vps.name), *run_it], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, env={**os.environ, "DOCKER_HOST": engine()},
    )  # fmt: skip
    sales = Sales()
    reader = threading.Thread(target=_listen, args=(process, sales), daemon=True)
    reader.start()
    try:
        _wait_for_the_first(process, sales)
        yield sales
    finally:
        _end(process)
        reader.join(10)
        docker("exec", machine.container(vps.name), "docker", "rm", "--force", NAME, check=False)


def _listen(process: "subprocess.Popen[str]", sales: Sales) -> None:
    assert process.stdout
    for line in process.stdout:
        sales.hear(line)


def _wait_for_the_first(process: "subprocess.Popen[str]", sales: Sales, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not sales.sold:
        if process.poll() is not None or time.monotonic() > deadline:
            raise LabError(f"the sellers sell nothing: exit {process.poll()}, {dict(sales.failed)}")
        time.sleep(0.05)


def _end(process: "subprocess.Popen[str]") -> None:
    assert process.stdin
    try:
        process.stdin.write("\n")
        process.stdin.close()
        process.wait(15)
    except (OSError, subprocess.TimeoutExpired):
        process.kill()
        process.wait()
