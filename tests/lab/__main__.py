"""The practice VPS from a terminal: python -m tests.lab COMMAND."""

import os
import re
import sys
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from tests.lab import faults as catalogue
from tests.lab.engine import stop_engine
from tests.lab.golden import BYTES_A_SALE
from tests.lab.home import LabError, say
from tests.lab.outside import see
from tests.lab.ssh import ssh_argv
from tests.lab.vps import PracticeVps, down, find, names, up

HELP = """Practice machines that you can break.

A practice machine is a Debian VPS in a container, with the shop that the guide was written for: systemd, sshd,
Docker, a small disk, and neighbours for certificates and mail. Everything listens on 127.0.0.1 alone.

    python -m tests.lab up       # seconds; at first, minutes
    python -m tests.lab faults
    python -m tests.lab break web-stopped
    python -m tests.lab status
    python -m tests.lab heal
    python -m tests.lab ssh
    python -m tests.lab down
"""
app = App(name="python -m tests.lab", help=HELP, version_flags=[])
Name = Annotated[str, Parameter("--name", help="Which machine.")]


@app.command(name="up")
def bring_up(
    *,
    name: Name = "practice",
    sales: Annotated[int, Parameter(help="How many sales the shop has; 100,000 are about 100 MB.")] = 100_000,
    size: Annotated[str, Parameter(help="Rather than --sales: how large the database is, such as 2GB.")] = "",
) -> None:
    """Bring a machine up with a healthy site."""
    _show(up(name, _sales(size) if size else sales, report=say))


@app.command(name="break")
def break_(fault: str, /, *, name: Name = "practice") -> None:
    """Break something; faults add up."""
    vps = find(name)
    catalogue.inject(vps, fault)
    _show(vps)


@app.command
def heal(fault: str | None = None, /, *, name: Name = "practice") -> None:
    """Heal one fault, or everything that was broken, until the site is healthy."""
    vps = find(name)
    catalogue.heal(vps, fault)
    _show(vps)


@app.command
def ssh(*command: Annotated[str, Parameter(allow_leading_hyphen=True)], name: Name = "practice") -> None:
    """Open a shell on the machine as root, or run a command there: ssh -- df -h."""
    argv = ssh_argv(find(name), *command)
    os.execvp(argv[0], argv)  # noqa: S606


@app.command
def status() -> None:
    """Say which machines are up, and how their sites look from outside."""
    if not names():
        say("no practice machine is up: python -m tests.lab up")
    for name in names():
        _show(find(name))


@app.command
def faults() -> None:
    """Say what can be broken, and what one then sees from outside."""
    table = Table("fault", "what breaks", "from outside")
    for fault in catalogue.FAULTS.values():
        table.add_row(fault.name, fault.what_breaks, fault.symptom)
    Console().print(table)


@app.command(name="down")
def take_down(*, name: Name = "practice", every: Annotated[bool, Parameter("--all", negative="")] = False) -> None:
    """Take a machine down for good; with --all every one, and the lab's own Docker engine as well.

    Parameters
    ----------
    every
        All machines and the engine; what was built stays in the cache.
    """
    for each in names() if every else [name]:
        was_up = each in names()
        down(each)
        say(f"{each} is down" if was_up else f"there was no machine {each}; nothing of it is left")
    if every:
        stop_engine()


def _show(vps: PracticeVps) -> None:
    seen = see(vps.https_port, vps.ca_file)
    broken = ", ".join(catalogue.injected(vps)) or "nothing"
    print(f"{vps.name}: {'healthy' if seen.healthy else f'{seen.status} {seen.text[:100]!r}'}; broken: {broken}")
    print(f"  ssh   python -m tests.lab ssh --name {vps.name}      (127.0.0.1:{vps.ssh_port}, key {vps.key_file})")
    resolve = f"--resolve ferreteria.test:{vps.https_port}:127.0.0.1"
    print(f"  site  curl --cacert {vps.ca_file} {resolve} {vps.site_url}/health")
    print(f"  mail  127.0.0.1:{vps.smtp_port}, delivered to {vps.mail}")


def _sales(size: str) -> int:
    match = re.fullmatch(r"([0-9.]+) ?(MB|GB)", size, re.IGNORECASE)
    if not match:
        raise LabError(f"--size {size}: say a number with MB or GB, such as 2GB")
    return int(float(match[1]) * {"MB": 1e6, "GB": 1e9}[match[2].upper()] / BYTES_A_SALE)


if __name__ == "__main__":
    try:
        app()
    except LabError as error:
        sys.exit(f"error: {error}")
