"""A Docker engine of the lab's own: installed by apt, with its own socket, data, bridge and log.

It never touches an engine that is already on the machine, and it is stopped by its pid file alone.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.lab import firewall
from tests.lab.home import LabError, home, run

RUN = Path(os.environ.get("GUARDIA_LAB_RUN", "/run/guardia-lab"))
SOCKET = f"unix://{RUN}/docker.sock"
PIDFILE = RUN / "docker.pid"
BRIDGE = "guardia-lab0"
POLICY = RUN / "forward-policy"  # the firewall's, from before the engine came
NETWORK = "10.213."
BRIDGE_ADDRESS = f"{NETWORK}255.1/24"
NETWORKS = f"base={NETWORK}0.0/17,size=24"
PACKAGES = ("docker.io", "iptables", "debootstrap", "iproute2")
PROGRAMS = ("dockerd", "iptables", "debootstrap", "ip")


def missing() -> str:
    """Why this machine cannot have a private engine, as one sentence; empty if it can."""
    if os.geteuid() != 0:
        return "install Docker and let this user use it, or run the lab as root on Debian or Ubuntu"
    if not shutil.which("apt-get") and not all(map(shutil.which, PROGRAMS)):
        return f"install Docker, or the programs {', '.join(PROGRAMS)}: there is no apt-get here to do it"
    return ""


def install(report: Callable[[str], None]) -> bool:
    """Install by apt whatever of the engine's programs is missing; whether anything was."""
    if all(map(shutil.which, PROGRAMS)):
        return False
    report(f"installing {' '.join(PACKAGES)} by apt (about 20 s) ...")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-q"], failing="reading the package lists", env=quiet)
    run(
        ["apt-get", "install", "-qy", "--no-install-recommends", *PACKAGES],
        failing="installing the Docker engine",
        env=quiet,
    )
    return True


def start(report: Callable[[str], None]) -> str:
    """Start the private engine unless it lives already, wait until it answers, return its DOCKER_HOST."""
    if answers():
        return SOCKET
    stop()
    report("starting a private Docker engine (about 8 s) ...")
    RUN.mkdir(parents=True, exist_ok=True)
    POLICY.write_text(firewall.forward_policy())
    _bridge_up()
    log = home() / "engine.log"
    with log.open("ab") as out:
        daemon = subprocess.Popen(_command(), stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    deadline = time.monotonic() + 60
    while not answers():
        if daemon.poll() is not None or time.monotonic() > deadline:
            last = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
            stop()  # its mount and its rules would stay
            raise LabError(f"the private Docker engine did not start; the end of {log}:\n{last}")
        time.sleep(0.2)
    return SOCKET


def answers() -> bool:
    """Whether the private engine answers now."""
    if not PIDFILE.exists():
        return False
    asked = subprocess.run(["docker", "-H", SOCKET, "info"], check=False, capture_output=True, timeout=30)
    return asked.returncode == 0


def stop() -> None:
    """Stop the private engine if it lives, and take away what it left: processes, mounts, firewall rules, bridges."""
    for pid in _pids():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 40
    while any(Path(f"/proc/{pid}").exists() for pid in _pids()) and time.monotonic() < deadline:
        time.sleep(0.2)
    for mount in _mounts():
        subprocess.run(["umount", "-l", mount], check=False, capture_output=True)
    if POLICY.exists():
        firewall.clean(NETWORK, POLICY.read_text())
    shutil.rmtree(RUN, ignore_errors=True)


def _command() -> list[str]:
    return [
        "dockerd",
        *("-H", SOCKET, "--pidfile", str(PIDFILE)),
        *("--data-root", str(home() / "engine"), "--exec-root", str(RUN / "exec")),
        *("--bridge", BRIDGE, "--default-address-pool", NETWORKS),
    ]


def _bridge_up() -> None:
    if subprocess.run(["ip", "link", "show", BRIDGE], check=False, capture_output=True).returncode:
        run(["ip", "link", "add", BRIDGE, "type", "bridge"], failing="making the lab's network bridge")
        run(["ip", "address", "add", BRIDGE_ADDRESS, "dev", BRIDGE], failing="addressing the lab's bridge")
    run(["ip", "link", "set", BRIDGE, "up"], failing="switching the lab's bridge on")


def _pids() -> list[int]:
    """The engine and its containerd, as their pid files say and as /proc confirms."""
    found = []
    for pidfile in (PIDFILE, RUN / "exec/containerd/containerd.pid"):
        with contextlib.suppress(OSError, ValueError):
            pid = int(pidfile.read_text())
            if str(RUN) in Path(f"/proc/{pid}/cmdline").read_text():
                found.append(pid)
    return found


def _mounts() -> list[str]:
    """What the engine mounted and still is, innermost first."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    ours = (f"{RUN}/", f"{home() / 'engine'}/")  # an engine that did not start leaves its data folder mounted on itself
    return [point for point in reversed(points) if f"{point}/".startswith(ours)]
