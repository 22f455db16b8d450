"""How fast streams are: `python -m tests.bench.transfer` moves 513 MiB each way and prints MiB/s, beside OpenSSH's own.

A practice VPS is brought up for it and taken down after it.
"""

import os
import subprocess
import time
from collections.abc import Callable

from tasks import ssh
from tasks.command import Command
from tests.lab.ssh import ssh_argv
from tests.lab.test_streams import BIG, PART, host_of, read_all
from tests.lab.vps import PracticeVps, down, up

MEBIBYTES = BIG >> 20
HEAD = ("head", "-c", str(BIG), "/dev/zero")
COUNT = ("wc", "-c")


def main() -> None:
    """Guardia's streams and the `ssh` command, one after the other, on the same machine."""
    name = f"transfer-{os.getpid()}"
    vps = up(name)
    host = host_of(vps)
    try:
        report("read", lambda: read_all(host, Command(HEAD, timeout=300)))
        report("fed", lambda: ssh.feed(host, Command(COUNT, timeout=300), (bytes(PART) for _ in range(BIG // PART))))
        report("read by ssh", lambda: openssh(vps, *HEAD))
        report("fed by ssh", lambda: openssh(vps, *COUNT, source=HEAD))
    finally:
        ssh.close(host)
        down(name)


def openssh(vps: PracticeVps, *command: str, source: tuple[str, ...] = ("true",)) -> None:
    """Run a command on the machine with the output of a program of this one as its input."""
    with subprocess.Popen(source, stdout=subprocess.PIPE) as feeding:
        subprocess.run(ssh_argv(vps, *command), stdin=feeding.stdout, stdout=subprocess.DEVNULL, check=True)


def report(what: str, work: Callable[[], object]) -> None:
    """Print what it took."""
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    print(f"{what}: {MEBIBYTES} MiB in {seconds:.1f} s, {MEBIBYTES / seconds:.0f} MiB/s")


if __name__ == "__main__":
    main()
