"""The golden disk: a machine with the site installed, seeded, certified and shut down in order.

Built once for each recipe and number of sales, then only copied.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.lab import machine
from tests.lab.engine import docker, engine
from tests.lab.home import LabError, home, only_one
from tests.lab.images import HERE, base, build, recipe
from tests.lab.site.history import write_history

SITE = HERE / "site"
IMAGES = {"ferreteria/base": "base", "ferreteria/nginx": "nginx", "ferreteria/certbot": "certbot"}
IMAGES |= {"ferreteria/postgres:15": "postgres"}
COMPOSE_CLI = "docker compose -f /root/ferreteria/docker-compose.prod.yml"
GIB = 1 << 30
BYTES_A_SALE = 1_000  # measured; the disk also holds dumps and a restored second copy


@dataclass(frozen=True)
class Golden:
    """A disk to copy, and the root certificate that signed what is on it."""

    disk: Path
    root: Path


def golden(sales: int, report: Callable[[str], None]) -> Golden:
    """The golden disk whose shop has `sales` sales; built when there is none for today's recipe (minutes)."""
    source = [HERE / "machine", HERE / "neighbours", SITE / "ferreteria", SITE / "images"]
    files = [SITE / name for name in ("seed.sql", "env.prod", "cron", "history.py")]
    folder = home() / "golden" / f"{recipe(*source, *files, Path(__file__))}-{sales}"
    with only_one("golden"):
        if not folder.exists():
            report(f"building the golden disk with {sales:,} sales (once; about 2 minutes) ...")
            began = time.monotonic()
            _build(folder, sales, report)
            report(f"built the golden disk in {time.monotonic() - began:.0f} s")
            _forget_old()
    os.utime(folder)
    return Golden(folder / "disk.img", folder / "root.pem")


def disk_size(sales: int) -> int:
    """Bytes of the machine's disk: 4 GiB, more when the database is large."""
    return 4 * GIB + 3 * max(0, sales * BYTES_A_SALE - GIB // 4)


def _build(folder: Path, sales: int, report: Callable[[str], None]) -> None:
    with only_one("images"):
        base(report)
        for tag, name in IMAGES.items():
            build(tag, SITE / "images" / name, report)
    work = folder.with_suffix(".part")
    name = f"golden-{folder.name}"
    machine.remove(name)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        machine.format_disk(work, disk_size(sales), report)
        _put_files(work / "first-boot")
        machine.start(name, work, {}, report)
        _install(name, sales, report)
        root = docker("exec", machine.container(name), "curl", "-sk", "https://ca.ferreteria.test:15000/roots/0")
        (work / "root.pem").write_text(root)
        machine.shut_down(name)
    finally:
        machine.remove(name)
    work.rename(folder)


def _forget_old() -> None:
    """Remove golden disks that nobody used for a week: each change of the recipe leaves one of 1.6 GB."""
    for folder in (home() / "golden").iterdir():
        if time.time() - folder.stat().st_mtime > 7 * 24 * 3600:
            shutil.rmtree(folder, ignore_errors=True)


def _put_files(root: Path) -> None:
    """What the machine copies to its disk at its first boot."""
    write_history(root / "root" / "ferreteria")
    for source, target in (("env.prod", "root/ferreteria/.env.prod"), ("cron", "etc/cron.d/ferreteria")):
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(SITE / source, root / target)
    (root / "root/ferreteria/.env.prod").chmod(0o600)
    settings = root / "etc/letsencrypt/cli.ini"
    settings.parent.mkdir(parents=True)
    settings.write_text("server = https://ca.ferreteria.test:14000/dir\nno-verify-ssl = true\n")


def _install(name: str, sales: int, report: Callable[[str], None]) -> None:
    # nginx may not listen yet when the authority knocks; the script may be run again.
    certify = "/root/ferreteria/infra/scripts/first_certificate.sh owner@ferreteria.test"
    steps = (
        ("building the site's web image offline", f"{COMPOSE_CLI} build -q web"),
        ("getting the site's certificate", f"{certify} || {{ sleep 2; {certify}; }}"),
        ("starting the site", f"{COMPOSE_CLI} up -d --wait"),
    )
    _wait_for_docker(name)
    report("loading the site's images into the machine ...")
    _load_images(name)
    for title, command in steps:
        report(f"{title} ...")
        _shell(name, command)
    report(f"seeding {sales:,} sales ...")
    seed = f"{COMPOSE_CLI} exec -T db psql -q -U ferreteria_user -d ferreteria_db -v sales={sales} -f -"
    _shell(name, seed, timeout=1800, input=(SITE / "seed.sql").read_text())
    # The copies then start with an empty journal, and holes where files were.
    _shell(name, "journalctl -q --rotate && journalctl -q --vacuum-time=1s; rm -f /var/log/apt/*; fstrim /")


def _shell(name: str, command: str, timeout: float = 300, input: str | None = None) -> None:
    docker("exec", "-i", machine.container(name), "bash", "-c", command, timeout=timeout, input=input)


def _wait_for_docker(name: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if "Server Version" in docker("exec", machine.container(name), "docker", "info", check=False):
            return
        time.sleep(0.3)
    raise LabError(f"the machine's own Docker did not start; `docker logs {machine.container(name)}` says why")


def _load_images(name: str) -> None:
    """Stream the images from the outer engine into the machine's."""
    env = {**os.environ, "DOCKER_HOST": engine()}
    with subprocess.Popen(["docker", "save", *IMAGES], stdout=subprocess.PIPE, env=env) as saved:
        load = ["docker", "exec", "-i", machine.container(name), "docker", "load", "-q"]
        loaded = subprocess.run(load, stdin=saved.stdout, env=env, check=False, capture_output=True, text=True)
    if saved.returncode or loaded.returncode:
        raise LabError(f"loading the site's images into the machine: {loaded.stderr.strip()}")
