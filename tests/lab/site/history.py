"""The application's git history: three releases, the last of which is the folder `ferreteria/`."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parent / "ferreteria"


@dataclass(frozen=True)
class Release:
    """A tag, what its commit says, when, and how its files differ from the folder: (file, there, then)."""

    tag: str
    subject: str
    date: str
    differs: tuple[tuple[str, str, str], ...] = ()


BASE = "web/shop/templates/base.html"
TERSE_HEADER = (BASE, "<span>stock and sales for hardware shops</span>", "<span>sales</span>")
TERSE_FOOTER = (BASE, "<footer>Ferretería v{{ version }}</footer>", "<footer>v{{ version }}</footer>")

RELEASES = (
    Release(
        "v1.0.0",
        "Open the shop",
        "2025-11-03T10:00:00-03:00",
        (("web/VERSION", "1.2.0", "1.0.0"), TERSE_HEADER, TERSE_FOOTER),
    ),
    Release(
        "v1.1.0",
        "Say in the header what the shop is for",
        "2025-12-09T10:00:00-03:00",
        (("web/VERSION", "1.2.0", "1.1.0"), TERSE_FOOTER),
    ),
    Release("v1.2.0", "Sign every page with the shop's name", "2026-01-12T10:00:00-03:00"),
)


def write_history(target: Path) -> None:
    """Make `target` a checkout of the application: branch main, one commit and tag a release.

    The same folder gives the same commit ids, on any machine.

    Raises:
        FileExistsError: `target` exists and is not an empty folder.
        ValueError: a release differs in a text that the folder no longer has.
        subprocess.CalledProcessError: git failed.
    """
    if target.exists() and any(target.iterdir()):
        raise FileExistsError(f"{target} is not empty: give a new folder for the application's checkout")
    target.mkdir(parents=True, exist_ok=True)
    _git(target, "init", "--quiet", "--initial-branch=main")
    for release in RELEASES:
        shutil.copytree(SOURCE, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", ".*_cache"))
        for file, there, then in release.differs:
            _replace(target / file, there, then)
        _git(target, "add", "--all")
        _git(target, "commit", "--quiet", f"--message={release.subject}", date=release.date)
        _git(target, "tag", release.tag)


def _replace(file: Path, there: str, then: str) -> None:
    text = file.read_text()
    if there not in text:
        raise ValueError(f"{file} does not contain {there!r}: adapt RELEASES in {__file__}")
    file.write_text(text.replace(there, then))


def _git(folder: Path, *argv: str, date: str = "") -> None:
    """Run git as the shop's developer, deaf to the settings of whoever runs it."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    env |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    for role in ("AUTHOR", "COMMITTER"):
        env |= {f"GIT_{role}_NAME": "Shop", f"GIT_{role}_EMAIL": "shop@ferreteria.test", f"GIT_{role}_DATE": date}
    subprocess.run(["git", "-C", str(folder), *argv], check=True, env=env)
