"""The copies of backups on the VPS, beside those in the bucket: kept as a dump passes, the newest few of a kind."""

from __future__ import annotations

import re

from blocks.errors import CommandFailed
from blocks.site import Site
from tasks import bucket, ssh
from tasks.command import Command
from tasks.docker import QUICK
from tasks.steps import Result, chore

LONGEST = 6 * 3600  # seconds that a dump may take, and its copy with it
COPY = re.compile(rf"{bucket.NAME}\.dump(\.zst)?(\.part)?")  # nothing else in the folder is ours


def folder(site: Site) -> str:
    """Where copies are kept on the VPS."""
    return (site.backups and site.backups.folder) or f"/var/backups/{site.name}/daily"


def make_folder(folder: str) -> Command:
    """The folder for copies, which root alone may read."""
    return Command(("install", "-d", "-m", "700", folder), changes=True, timeout=QUICK)


def keep(path: str) -> Command:
    """Write what passes by to a file too."""
    return Command(("tee", path), changes=True, timeout=LONGEST)


def finish(path: str) -> Command:
    """Give a whole copy its name."""
    return Command(("mv", "--no-target-directory", f"{path}.part", path), changes=True, timeout=QUICK)


def remove(*paths: str) -> Command:
    """Remove copies; one that is not there is no error."""
    return Command(("rm", "-f", "--", *paths), changes=True, timeout=60)


def list_files(folder: str) -> Command:
    """The copies in the folder, and what cut short ones left."""
    words = ("-maxdepth", "1", "-type", "f", "-name", "*Z*.dump*", "-printf", r"%f\n")
    return Command(("find", folder, *words), timeout=QUICK)


@chore("Keep the newest copies on the VPS", by=("site", "name"))
def prune(site: Site, name: str) -> Result:
    """After the backup `name`, remove all but the newest copies, and what cut short ones left; its text is their names.

    Its own copy gets its name here: only now that it is committed is it one. Each kind keeps as many, and a copy that
    a backup of the other kind is writing stays.
    """
    store = bucket.store(site)
    try:
        listed = ssh.run(site.host, list_files(folder(site))).stdout.split("\n")
    except CommandFailed:
        return Result(words="there are none", changed=False)  # there is no folder yet: no copy was ever kept
    files = sorted((file for file in listed if COPY.fullmatch(file)), reverse=True)
    for part in [file for file in files if file.startswith(f"{name}.dump") and file.endswith(".part")]:
        ssh.run(site.host, finish(f"{folder(site)}/{part.removesuffix('.part')}"))
        files = [part.removesuffix(".part") if file == part else file for file in files]
    same = [file for file in files if ("-safety." in file) == name.endswith("-safety")]
    whole = [file for file in same if not file.endswith(".part")]
    gone = whole[store.copies :] + [file for file in same if file.endswith(".part")]
    if gone:
        ssh.run(site.host, remove(*(f"{folder(site)}/{file}" for file in gone)))
    return Result(words=f"removed {len(gone)}", text="\n".join(gone), changed=bool(gone))
