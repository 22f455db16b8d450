"""Copies on the VPS: which files are ours, when one gets its name, and which go."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.site import Site
from tasks import copies, ssh
from tests import stored
from tests.ssh_server import SshServer

NEW, DAILY, SAFETY = "2026-11-24T030000Z", "2026-11-23T030000Z", "2026-11-23T110000Z-safety"


@pytest.fixture
def site(ssh_server: SshServer, folder: Path) -> Iterator[Site]:
    for program in ("find", "mv", "rm"):
        ssh_server.stub(program, f'exec {shutil.which(program)} "$@"')
    made = stored.site(copies=1, folder=str(folder)).model_copy(update={"host": ssh_server.host()})
    yield made
    ssh.close(made.host)


def test_a_copy_gets_its_name_once_it_is_committed_and_older_ones_of_its_kind_go(site: Site, folder: Path) -> None:
    ours = [f"{NEW}.dump.zst.part", f"{DAILY}.dump.zst", f"{SAFETY}.dump.zst", "2026-11-22T030000Z.dump.part"]
    others = ["NewZ.dump.part", "beforeZonas.dump", "2026-11-01T030000Z.dump.old", "notes Z.dump"]
    for name in ours + others:
        (folder / name).write_text(name)
    gone = copies.prune.fn(site, NEW).text
    assert sorted(gone.split()) == ["2026-11-22T030000Z.dump.part", f"{DAILY}.dump.zst"]
    left = {file.name for file in folder.iterdir()}
    assert left == {f"{NEW}.dump.zst", f"{SAFETY}.dump.zst", *others}
    assert (folder / f"{NEW}.dump.zst").read_text() == f"{NEW}.dump.zst.part"


def test_a_part_that_a_backup_of_the_other_kind_is_writing_stays(site: Site, folder: Path) -> None:
    for name in (f"{NEW}.dump.zst.part", f"{SAFETY}.dump.zst.part"):
        (folder / name).touch()
    assert copies.prune.fn(site, NEW).text.split() == []
    assert {file.name for file in folder.iterdir()} == {f"{NEW}.dump.zst", f"{SAFETY}.dump.zst.part"}


def test_a_folder_that_is_not_there_holds_no_copies(site: Site, folder: Path) -> None:
    assert site.backups is not None
    gone = site.backups.model_copy(update={"folder": str(folder / "gone")})
    assert not copies.prune.fn(site.model_copy(update={"backups": gone}), NEW).changed
