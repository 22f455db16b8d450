"""How much one reused SSH connection saves: `python -m tests.bench.ssh` prints milliseconds a command."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tasks import ssh
from tasks.command import Command
from tests.ssh_server import SshServer

ROUNDS = 30
NOTHING = Command(("cat", "/dev/null"))


def main() -> None:
    """Run the same command on one connection and on a new one each time."""
    with tempfile.TemporaryDirectory() as folder, SshServer(Path(folder)) as server:
        host = server.host()
        ssh.run(host, NOTHING)
        reused = milliseconds(lambda: ssh.run(host, NOTHING))
        new = milliseconds(lambda: ssh.run(host, NOTHING), lambda: ssh.close(host))
        ssh.close(host)
    print(f"reused {reused:.1f} ms, new {new:.1f} ms a command: {new / reused:.1f} times as long")


def milliseconds(work: Callable[[], object], before: Callable[[], None] = lambda: None) -> float:
    """The median of some rounds; what is done before each does not count."""
    took = []
    for _ in range(ROUNDS):
        before()
        started = time.perf_counter()
        work()
        took.append(time.perf_counter() - started)
    return sorted(took)[ROUNDS // 2] * 1000


if __name__ == "__main__":
    main()
