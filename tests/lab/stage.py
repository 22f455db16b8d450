"""The demo's stage: a practice VPS and Guardia for it. What is started here is stopped when the demo ends."""

import fcntl
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from deployments.home import PORT, point_at_server
from tests.lab import private_engine
from tests.lab.engine import stop_engine
from tests.lab.home import LabError, home
from tests.lab.served import Guardia, served
from tests.lab.vps import PracticeVps, down, names, up

NAME = "demo"
RECORDS = Path(__file__).parents[2] / "incidents"


@contextmanager
def stage(sales: int, report: Callable[[str], None]) -> Iterator[tuple[PracticeVps, Guardia]]:
    """A healthy VPS and a running `guardia up`, which this process's `deployments` then talk to.

    Raises LabError if another demo runs, or if either cannot be brought up.
    """
    with ExitStack() as stack:
        _only_demo(stack)
        stack.callback(_stop_engine, started_here=not private_engine.answers())
        down(NAME)  # what a killed demo left
        stack.callback(down, NAME)
        vps = up(NAME, sales, report)
        report("starting `guardia up` (15 to 30 s) ...")
        folder = home() / NAME
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        guardia = stack.enter_context(served(vps, folder, PORT if _free(PORT) else None, RECORDS))
        stack.callback(report, "stopping Guardia and the practice VPS (some seconds) ...")
        os.environ["GUARDIA_HOME"] = guardia.environment["GUARDIA_HOME"]
        point_at_server(guardia.api)
        yield vps, guardia


def _only_demo(stack: ExitStack) -> None:
    """Hold the demo's lock: two demos would share a machine."""
    try:
        fcntl.flock(stack.enter_context((home() / f"{NAME}.lock").open("w")), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise LabError("a demo is running on this machine already: end that one with Ctrl-C first") from None


def _free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _stop_engine(*, started_here: bool) -> None:
    if started_here and not names():
        stop_engine()
