"""A machine and its neighbours as containers: run them, stop them, speak into them."""

import re
import socket
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from random import choice

from tests.lab.engine import docker
from tests.lab.home import LabError, home, only_one
from tests.lab.images import HERE, built

# All that systemd and an inner Docker need, short of SYS_RESOURCE: some hosts do not have it to give.
POWERS = (
    *("--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE", "--device-cgroup-rule", "a *:* rwm"),
    *("--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"),
    *("--security-opt", "systempaths=unconfined", "--cgroupns", "private"),
)
MEMORY = "1g"
PORTS = range(20000, 32000)  # below the range that the kernel gives to clients


def container(name: str) -> str:
    """The container that is the machine `name`."""
    return f"guardia-{name}"


def neighbours(name: str) -> str:
    """The container with the machine's certificate authority, mail server and stand-in for the internet."""
    return f"guardia-{name}-neighbours"


def format_disk(folder: Path, size: int, report: Callable[[str], None]) -> None:
    """Make `folder`/disk.img, a root disk of `size` bytes with Debian on it; it takes only what is used."""
    with (folder / "disk.img").open("wb") as disk:
        disk.truncate(size)
    docker("run", "--rm", *POWERS, "-v", f"{folder}:/lab", "--entrypoint", "/lab-bin/format", built("machine", report))


def start(name: str, folder: Path, ports: Mapping[str, int], report: Callable[[str], None]) -> None:
    """Start the machine that lives in `folder` and its neighbours, with `ports` published on 127.0.0.1."""
    for part in ("tmp", "new", "cur"):
        (folder / "mail" / part).mkdir(parents=True, exist_ok=True)
    network = container(name)
    docker("network", "create", network)
    docker(
        *("run", "--detach", "--name", neighbours(name), "--network", network, "--restart", "unless-stopped"),
        *("--network-alias", "ca.ferreteria.test", "--network-alias", "smtp.ferreteria.test"),
        *_mail_login(),
        *("-v", f"{folder / 'mail'}:/mail"),
        *_published({"smtp": 587, "control": 8080}, ports),
        built("neighbours", report),
    )
    docker(
        *("run", "--detach", "--name", container(name), "--hostname", name, "--restart", "unless-stopped"),
        *("--network", network, "--network-alias", "ferreteria.test"),
        *POWERS,
        *("--memory", MEMORY, "--memory-swap", MEMORY, "--tmpfs", "/run", "--tmpfs", "/run/lock"),
        *("-v", f"{folder}:/lab"),
        *_published({"ssh": 22, "http": 80, "https": 443}, ports),
        built("machine", report),
    )


def remove(name: str) -> None:
    """Remove the machine, its neighbours and their network; what is not there is no error."""
    docker("rm", "--force", "--volumes", container(name), neighbours(name), check=False, timeout=60)
    docker("network", "rm", container(name), check=False)


def shut_down(name: str) -> None:
    """Shut the machine down in order, as its power button would, and wait until it is off."""
    docker("stop", "--time", "60", container(name), timeout=90)


def free_ports(wanted: tuple[str, ...]) -> dict[str, int]:
    """A free port on 127.0.0.1 for each name.

    Ports are given out in turn, so that two who ask before the first one listens do not get the same.
    """
    with only_one("ports"):
        note = home() / "port"
        last = int(note.read_text()) if note.exists() else choice(PORTS)
        turn = [*range(last + 1, PORTS.stop), *range(PORTS.start, last + 1)]
        found = list(islice(filter(_is_free, turn), len(wanted)))
        if len(found) < len(wanted):
            raise LabError(f"no free ports from {PORTS.start} on 127.0.0.1: take practice machines down")
        note.write_text(str(found[-1]))
    return dict(zip(wanted, found, strict=True))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _published(inside: Mapping[str, int], ports: Mapping[str, int]) -> list[str]:
    pairs = [("-p", f"127.0.0.1:{ports[name]}:{port}") for name, port in inside.items() if name in ports]
    return [word for pair in pairs for word in pair]


def _mail_login() -> list[str]:
    """The mail server accepts the login that the site's settings hold."""
    settings = (HERE / "site" / "env.prod").read_text()
    found = re.findall(r"^(SMTP_(?:USER|PASSWORD)=.*)$", settings, re.MULTILINE)
    return [word for setting in found for word in ("-e", setting)]
