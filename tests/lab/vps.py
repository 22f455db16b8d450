"""Practice machines: bring one up, find it, look into it, cut its power, take it down."""

import json
import re
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.lab import machine
from tests.lab.audit import Audit
from tests.lab.engine import docker
from tests.lab.golden import golden
from tests.lab.home import LabError, home, only_one, run
from tests.lab.outside import healthy_in_a_row

PORTS = ("ssh", "https", "http", "smtp", "control")


@dataclass(frozen=True)
class PracticeVps:
    """A running machine: where it is reached from outside, and a side channel that is not SSH."""

    name: str
    ssh_port: int
    https_port: int
    http_port: int
    smtp_port: int
    control_port: int
    key_file: Path
    host_key: str
    ca_file: Path
    mail: Path

    @property
    def site_url(self) -> str:
        """The site; whoever calls resolves ferreteria.test to 127.0.0.1."""
        return f"https://ferreteria.test:{self.https_port}"

    def exec(self, *argv: str, timeout: float = 60, check: bool = True, input: str | None = None) -> str:
        """Run `argv` as root on the machine, by the lab's own way in: it works when SSH does not.

        Raises:
            LabError: it took longer than `timeout` seconds or, if `check`, exited with something but 0.
        """
        stdin = () if input is None else ("-i",)
        return docker("exec", *stdin, machine.container(self.name), *argv, timeout=timeout, check=check, input=input)

    def shell(self, script: str, timeout: float = 60, check: bool = True) -> str:
        """Run a bash script on the machine."""
        return self.exec("bash", "-c", script, timeout=timeout, check=check)

    def boot_id(self) -> str:
        """The kernel's boot id as the machine sees it: another one after every boot."""
        return self.exec("cat", "/proc/sys/kernel/random/boot_id").strip()

    def audit(self) -> Audit:
        """A mark; its `changes()` says later what changed on the machine."""
        return Audit.mark(self.shell)

    def power_cut(self) -> None:
        """Kill the whole machine at once and switch it on again; nothing is flushed, nothing says goodbye."""
        docker("kill", machine.container(self.name))
        docker("start", machine.container(self.name))


def up(name: str = "practice", sales: int = 100_000, report: Callable[[str], None] = print) -> PracticeVps:
    """Bring up a machine with a healthy site: about 10 s from a golden disk, minutes where there is none.

    Raises:
        LabError: the name is bad or taken, the engine is missing, or a step failed; says which and the cure.
    """
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", name):
        raise LabError(f"{name!r} is no name for a machine: use a-z, 0-9 and -, starting with a letter")
    if name in names():
        raise LabError(
            f"there is a machine {name!r} already: `python -m tests.lab down --name {name}` or use another name"
        )
    source = golden(sales, report)
    began = time.monotonic()
    folder = _claim(name)
    try:
        report(f"starting {name} ...")
        copy = ["cp", "--sparse=always", "--reflink=auto", str(source.disk), str(folder / "disk.img")]
        run(copy, failing="copying the golden disk")
        ports = machine.free_ports(PORTS)
        vps = PracticeVps(
            name=name,
            **{f"{port}_port": number for port, number in ports.items()},
            key_file=_key(),
            host_key=_first_boot(folder / "first-boot"),
            ca_file=folder / "ca.pem",
            mail=folder / "mail",
        )
        vps.ca_file.write_text(source.root.read_text())
        machine.start(name, folder, ports, report)
        wait_healthy(vps)
        _know_the_authority(vps)
    except BaseException:
        down(name)
        raise
    (folder / "vps.json").write_text(json.dumps(asdict(vps), default=str, indent=1))
    report(f"{name} is up and healthy after {time.monotonic() - began:.0f} s")
    return vps


def find(name: str = "practice") -> PracticeVps:
    """The machine `name`; LabError if it is not up."""
    record = _folder(name) / "vps.json"
    running = record.exists() and docker("ps", "-q", "--filter", f"name=^{machine.container(name)}$")
    if not running:
        raise LabError(f"there is no practice machine {name!r}: run `python -m tests.lab up --name {name}`")
    facts: dict[str, Any] = json.loads(record.read_text())
    facts |= {key: Path(facts[key]) for key in ("key_file", "ca_file", "mail")}
    return PracticeVps(**facts)


def down(name: str) -> None:
    """Take the machine down with its neighbours, disk and mail; one that is not there is no error."""
    machine.remove(name)
    shutil.rmtree(_folder(name), ignore_errors=True)


def names() -> list[str]:
    """The machines that are up."""
    return sorted(record.parent.name for record in (home() / "vps").glob("*/vps.json"))


def wait_healthy(vps: PracticeVps, seconds: float = 60) -> None:
    """Wait until the site is healthy from outside several times in a row; LabError after `seconds`."""
    seen = healthy_in_a_row(vps.https_port, vps.ca_file, seconds)
    if not seen.healthy:
        raise LabError(f"the site on {vps.name} is not healthy after {seconds:.0f} s: {seen.status} {seen.text}")


def _folder(name: str) -> Path:
    return home() / "vps" / name


def _claim(name: str) -> Path:
    """A new folder for the machine; making it is atomic, so two that want one name cannot both have it."""
    folder = _folder(name)
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise LabError(f"{name} is being brought up, or was cut short: wait, or take it down first") from error
    return folder


def _key() -> Path:
    """The lab's own SSH key, made once."""
    key = home() / "id_ed25519"
    with only_one("key"):
        if not key.exists():
            _keygen(key, "guardia-lab")
    return key


def _keygen(file: Path, comment: str) -> None:
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(file)], failing="making an SSH key")


def _first_boot(root: Path) -> str:
    """What makes this machine different from the golden one; returns its public host key."""
    host_key = root / "etc/ssh/ssh_host_ed25519_key"
    host_key.parent.mkdir(parents=True)
    _keygen(host_key, "host")
    (root / "root/.ssh").mkdir(parents=True, mode=0o700)
    shutil.copyfile(_key().with_suffix(".pub"), root / "root/.ssh/authorized_keys")
    (root / "etc/machine-id").write_text(f"{secrets.token_hex(16)}\n")
    kind, key, _ = host_key.with_suffix(".pub").read_text().split()
    return f"{kind} {key}"


def _know_the_authority(vps: PracticeVps) -> None:
    """Introduce the machine to its own certificate authority, which starts without memory at every start.

    certbot's account is registered again with the same key, and the new root joins the one that signed the
    certificate on the golden disk.
    """
    account = "/etc/letsencrypt/accounts/ca.ferreteria.test:14000/dir/*"
    key = vps.shell(f"cat {account}/private_key.json")
    url = docker("exec", "-i", machine.neighbours(vps.name), "python3", "account.py", input=key).strip()
    vps.shell(f"""sed -i 's|"uri": "[^"]*"|"uri": "{url}"|' {account}/regr.json""")
    with vps.ca_file.open("a") as bundle:
        bundle.write(vps.exec("curl", "-sk", "https://ca.ferreteria.test:15000/roots/0"))
