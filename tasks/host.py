"""Look at the machine itself, and reboot it. Serves the guide's "SSH to VPS", "Check disk space", "Last resort"."""

import re
import time
from contextlib import suppress

from pydantic import BaseModel

from blocks.errors import CommandError, CommandFailed, HostError, HostLost, HostUnreachable
from blocks.site import Site
from tasks import compose, docker, ssh, timeline
from tasks.command import Command, Plan
from tasks.steps import act, look

# --- commands -------------------------------------------------------------------------------------------------


def read_boot_id() -> Command:
    """A word that is new after every boot."""
    return Command(("cat", "/proc/sys/kernel/random/boot_id"), timeout=15)


def uptime() -> Command:
    """How long it is up, and its load."""
    return Command(("uptime",), timeout=15)


def disk_space() -> Command:
    """Blocks in use of every real file system, in KiB."""
    return Command(("df", "-P", "-k", *_REAL), timeout=15)


def disk_inodes() -> Command:
    """Inodes in use of every real file system: a disk can be full of empty files."""
    return Command(("df", "-P", "-i", *_REAL), timeout=15)


def memory() -> Command:
    """Memory in bytes."""
    return Command(("free", "-b"), timeout=15)


def reboot_now() -> Command:
    """Reboot, cleanly."""
    return Command(("systemctl", "reboot"), changes=True, timeout=30)


def user_id() -> Command:
    """0 for root, who may reboot."""
    return Command(("id", "-u"), timeout=15)


def systemctl_version() -> Command:
    """Whether there is a systemd to reboot with."""
    return Command(("systemctl", "--version"), timeout=15)


_REAL = tuple(word for kind in ("tmpfs", "devtmpfs", "overlay", "squashfs", "efivarfs") for word in ("-x", kind))

# --- looks ----------------------------------------------------------------------------------------------------


class Reached(BaseModel):
    """The machine answered over SSH."""

    boot_id: str
    uptime: str

    @property
    def summary(self) -> str:
        """One line for the timeline."""
        return f"reached; {self.uptime}"


class BootId(BaseModel):
    """Which boot of the machine this is."""

    boot_id: str

    @property
    def summary(self) -> str:
        """One line for the timeline."""
        return self.boot_id


class Resources(BaseModel):
    """Percent in use of the fullest file system (blocks or inodes) and of memory, and the limits of the site.

    `unknown` says why neither could be read: that must not keep the playbook from its last resort.
    """

    disk: int = 0
    fullest: str = "/"
    memory: int = 0
    disk_limit: int
    memory_limit: int
    text: str = ""
    unknown: str = ""

    @property
    def short(self) -> bool:
        """Whether the machine is out of either."""
        return self.disk >= self.disk_limit or self.memory >= self.memory_limit

    @property
    def ok(self) -> bool:
        """Whether the timeline shows it as good news."""
        return not self.short and not self.unknown

    @property
    def summary(self) -> str:
        """One line for the timeline."""
        if self.unknown:
            return f"not known: {self.unknown}"
        disk = f"disk {self.disk} % ({self.fullest}, short from {self.disk_limit} %)"
        return f"{disk}, memory {self.memory} % (short from {self.memory_limit} %)"


@look("Reach the VPS over SSH")
def reach(site: Site) -> Reached:
    """Raises HostUnreachable or HostRefused with the cure. (Complete Site Down, step 2.)"""
    return Reached(boot_id=_boot_id(site), uptime=ssh.run(site.host, uptime()).stdout.strip())


@look("Note the boot id before anything reboots", kept=True)
def boot_id_before(site: Site) -> BootId:
    """The boot id as it was when this run first looked: a run that is resumed knows whether its reboot happened."""
    return BootId(boot_id=_boot_id(site))


@look("Check disk space and memory")
def resources(site: Site) -> Resources:
    """Whether the machine is out of disk or memory. (Complete Site Down, step 6.)"""
    limits = {"disk_limit": site.disk_limit, "memory_limit": site.memory_limit}
    try:
        space, inodes = ssh.run(site.host, disk_space()).stdout, ssh.run(site.host, disk_inodes()).stdout
        free = ssh.run(site.host, memory()).stdout
        used = parse_free(free)
    except CommandError as error:
        return Resources(unknown=error.what, **limits)
    used_up = parse_df(space) + parse_df(inodes)
    disk, fullest = max(used_up, key=lambda row: (row[0], -len(row[1])), default=(0, "/"))  # "/", not its bind mounts
    return Resources(disk=disk, fullest=fullest, memory=used, text="\n".join((space, inodes, free)), **limits)


def parse_df(text: str) -> list[tuple[int, str]]:
    """(percent in use, mount point) of each line of `df -P`."""
    rows = re.findall(r"\s(\d+)%\s+(/.*)$", text, re.M)
    return [(int(percent), mount) for percent, mount in rows]


def space_at(text: str, place: str) -> tuple[int, int]:
    """(size, free) in bytes of the file system that a folder is on, from `df -P -k`; (0, 0) if it is not listed."""
    rows = re.findall(r"\s(\d+)\s+\d+\s+(\d+)\s+\d+%\s+(/.*)$", text, re.M)
    under = [(mount, total, free) for total, free, mount in rows if f"{place}/".startswith(mount.rstrip("/") + "/")]
    _, total, free = max(under, key=lambda row: len(row[0]), default=("", "0", "0"))
    return int(total) * 1024, int(free) * 1024


def parse_free(text: str) -> int:
    """Percent of memory in use: what `free` does not call available. Raises CommandFailed for another answer."""
    match = re.search(r"^Mem:\s+(\d+)(?:\s+\d+){4}\s+(\d+)", text, re.M)
    if not match or not int(match[1]):
        raise CommandFailed(f"`free -b` answered something unknown: {text[:200]!r}.", "Guardia reads procps' free.")
    return round(100 * (1 - int(match[2]) / int(match[1])))


# --- acts -----------------------------------------------------------------------------------------------------


def _reboot(_: Plan, site: Site, before: BootId) -> str:
    """Reboot unless that has happened since `before`; wait for SSH and Docker; start what did not start by itself."""
    if _boot_id(site) == before.boot_id:
        with suppress(HostUnreachable):  # it may go down before it can say so; the boot id tells
            ssh.run(site.host, reboot_now())
    seconds = _wait_for_boot(site, before.boot_id)
    ssh.run(site.host, compose.start(site))
    return f"rebooted; SSH and Docker back after {seconds:.0f} s"


@act("Reboot the VPS", gate="reboot", do=_reboot, by=("site",))
def reboot(site: Site, before: BootId) -> Plan:
    """The last resort. The boot ids tell whether it happened. (Complete Site Down, step 7.)"""
    return Plan(
        what="Reboot the VPS",
        where=site.host.address,
        commands=(reboot_now(), compose.start(site)),
        cost="Everything on this machine is down for a minute or more. Transactions under way are lost; what was "
        "committed is not.",
        facts=(f"ends the boot {before.boot_id}",),
    )


def _boot_id(site: Site) -> str:
    return ssh.run(site.host, read_boot_id(), quiet=True).stdout.strip()


def _wait_for_boot(site: Site, before: str) -> float:
    """Seconds until the machine answers with another boot id and its docker daemon answers."""
    started = time.monotonic()
    told = started
    while time.monotonic() - started < site.reboot_timeout:
        try:
            if _boot_id(site) != before and ssh.run(site.host, docker.ping(), quiet=True):
                return time.monotonic() - started
        except (HostError, CommandError):
            pass  # it is going down or coming up
        if time.monotonic() - told > 15:
            told = time.monotonic()
            timeline.record("note", f"still waiting for {site.host.address} to come back", seconds=told - started)
        time.sleep(1)
    raise HostLost(
        f"{site.host.address} did not come back within {site.reboot_timeout} s of its reboot.",
        "Open the provider's console: it may hang at boot.",
    )
