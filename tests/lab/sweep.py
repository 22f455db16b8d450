"""End things at a moment of one's choice: a worker's process at a step's end, a connection or the power in mid-stream.

The moments of a run are read from the log of `guardia up`, which has each within milliseconds; the API learns of
them up to seconds later. So a sweep runs a flow once undisturbed, counts its `moments`, and then kills it at each.
"""

import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.lab.home import LabError
from tests.lab.served import Guardia
from tests.lab.vps import PracticeVps

Kind = Literal["step", "command"]
# A step has ended, whatever its outcome; a command on the host or a statement has ended, its step goes on.
PATTERNS: dict[Kind, str] = {
    "step": r"Task run ['\"](.+?)-\w+['\"] - Finished in state",  # " where the name has a '
    "command": r"Task run ['\"].+?-\w+['\"] - command: (.+?) — ",
}


def moments(guardia: Guardia, of: Kind = "step", since: int = 0) -> list[str]:
    """What ended in the runs so far, in order: the names of steps, or commands; `since` a size of the log."""
    return re.findall(PATTERNS[of], _text(guardia, since))


def size(guardia: Guardia) -> int:
    """How long the log is now, to count moments from here."""
    return (guardia.folder / "up.log").stat().st_size


@dataclass
class Killer:
    """Waits for its moment: `at` is what had just ended when it killed, None while it has not."""

    at: str | None = None


@contextmanager
def killed_after(guardia: Guardia, count: int, of: Kind = "step") -> Iterator[Killer]:
    """SIGKILL every flow's process as soon as `count` more steps or commands have ended, once, within the block.

    0 is the moment in which the next flow run begins. Start the run, approve and wait inside the block.
    """
    killer, over, since = Killer(), threading.Event(), size(guardia)

    def wait() -> None:
        while not over.wait(0.005):
            text = _text(guardia, since)
            ended = ["the beginning"] if "Beginning flow run" in text else []
            ended += re.findall(PATTERNS[of], text)
            if len(ended) > count and (pids := flow_processes(guardia)):
                kill(pids)
                killer.at = ended[count]
                return

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    try:
        yield killer
    finally:
        over.set()
        thread.join(5)


def acts_done(guardia: Guardia, run: str) -> Counter[str]:
    """How often each act of a run was done."""
    return Counter(entry["what"] for entry in guardia.timeline(run) if entry["kind"] == "act" and entry["ok"])


def flow_processes(guardia: Guardia, run: str = "") -> list[int]:
    """The processes below this `guardia up` that run flows, or that one flow run."""
    wanted = f"PREFECT__FLOW_RUN_ID={run}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                environment = (folder / "environ").read_bytes()
            except OSError:
                continue  # it has just ended
            if (
                wanted in environment
                and f"GUARDIA_HOME={guardia.environment['GUARDIA_HOME']}\0".encode() in environment
            ):
                found.append(int(folder.name))
    return found


def kill(pids: list[int]) -> None:
    """SIGKILL processes; one that has ended is no error."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def wait_for_process(vps: PracticeVps, program: str, seconds: float = 60) -> None:
    """Wait until a process of that name runs on the machine, in a container or out; LabError if none comes."""
    script = (
        f"for _ in $(seq {int(seconds * 50)}); do pgrep -x {program} > /dev/null && exit 0; sleep 0.02; done; exit 1"
    )
    try:
        vps.shell(script, timeout=seconds * 3)
    except LabError as error:
        raise LabError(f"no {program} ran on {vps.name} within {seconds:.0f} s") from error


def cut_ssh(vps: PracticeVps) -> None:
    """End every SSH connection to the machine at once, as a restarted firewall does; new ones are accepted."""
    vps.shell("pkill -KILL -f '^sshd: root' || true")


@contextmanager
def silent_ssh(vps: PracticeVps) -> Iterator[None]:
    """Drop every packet of SSH until the block ends: connections hang, and nothing says why."""
    rule = "PREROUTING -i eth0 -p tcp --dport 22 -j DROP"
    vps.shell(f"iptables -t raw -I {rule}")
    try:
        yield
    finally:
        vps.shell(f"iptables -t raw -D {rule}")


def _text(guardia: Guardia, since: int) -> str:
    with (guardia.folder / "up.log").open("rb") as log:
        log.seek(since)
        return log.read().decode(errors="replace")
