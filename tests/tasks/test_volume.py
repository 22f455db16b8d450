"""Where the data folder is, whose it must be, and which files are not as they must."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from blocks.errors import ConfigError
from tasks import volume
from tasks.volume import Folder, Wrong
from tests import sample

PASSWD = "root:x:0:0:root:/root:/bin/bash\npostgres:x:999:998::/var/lib/postgresql:/bin/bash\nother:x:70:71::/:\n"
DATA = "/var/lib/postgresql/data"
VOLUME: dict[str, Any] = {"Source": "/var/lib/docker/volumes/pg/_data", "Destination": DATA}
INIT: dict[str, Any] = {"Source": "/root/shop/init", "Destination": "/docker-entrypoint-initdb.d"}


def test_the_folder_is_found_in_the_nearest_mount() -> None:
    around = {"Source": "/srv/pg", "Destination": "/var/lib/postgresql"}
    assert volume.on_host([INIT, VOLUME], DATA) == VOLUME["Source"]
    assert volume.on_host([around, VOLUME], DATA) == VOLUME["Source"]
    assert volume.on_host([around], DATA) == "/srv/pg/data"
    assert volume.on_host([VOLUME], f"{DATA}/pgdata") == f"{VOLUME['Source']}/pgdata"


def test_a_database_without_a_volume_is_refused() -> None:
    for mounts in ([INIT], [], [{"Source": "/x", "Destination": "/var/lib/postgresql/database"}]):
        with pytest.raises(ConfigError, match="is on no volume"):
            volume.on_host(mounts, DATA)


@pytest.mark.parametrize(
    ("user", "owner"),
    [("", (999, 998)), ("0", (999, 998)), ("root", (999, 998)), ("other", (70, 71)), ("1000:1001", (1000, 1001)),
     ("1000", (1000, 1000))],
)  # fmt: skip
def test_the_files_belong_to_the_containers_user_or_to_postgres(user: str, owner: tuple[int, int]) -> None:
    archive = "etc/passwd\0\0ustar\0" + PASSWD + "\0" * 100  # as `docker cp` gives it
    assert volume.owner(user, archive) == owner


def test_a_user_whom_the_image_does_not_know_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no user nobody"):
        volume.owner("nobody", PASSWD)


def wrong(path: Path) -> dict[str, str]:
    """The files that the look finds, and why, by name."""
    out = subprocess.run(volume.wrong_files(str(path), os.getuid()).argv, capture_output=True, text=True, check=True)
    lines = [line.split(" ", 2) for line in out.stdout.splitlines()]
    return {Path(name).name: mode for _, mode, name in lines}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder as PostgreSQL wants it, a tablespace's link with it."""
    folder = tmp_path / "data"
    (folder / "base").mkdir(parents=True)
    for file in ("PG_VERSION", "base/1"):
        (folder / file).write_text("15")
        (folder / file).chmod(0o600)
    (folder / "space").symlink_to("/nowhere")
    folder.chmod(0o700)
    (folder / "base").chmod(0o700)
    return folder


def test_a_folder_as_it_must_be_has_no_wrong_files(data: Path) -> None:
    assert wrong(data) == {}
    data.chmod(0o750)
    assert wrong(data) == {}, "PostgreSQL allows the group to read"


def test_files_that_cannot_be_read_or_entered_are_found_and_put_right(data: Path) -> None:
    (data / "PG_VERSION").chmod(0o000)
    (data / "base").chmod(0o600)
    data.chmod(0o755)
    assert wrong(data) == {"PG_VERSION": "0", "base": "600", "data": "755"}
    subprocess.run(volume.open_up(str(data)).argv, check=True)
    assert wrong(data) == {}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_files_of_somebody_else_are_found_and_given_back(data: Path) -> None:
    shutil.chown(data / "base" / "1", 12345)
    assert list(wrong(data)) == ["1"]
    subprocess.run(volume.give(str(data), "0:0").argv, check=True)
    assert wrong(data) == {}


def test_the_plan_names_files_and_does_nothing_but_give_back_and_restart() -> None:
    folder = Folder(path="/srv/pg data", uid=999, gid=998, container="db")
    plan = volume.give_back.plan(sample.site(env_file=None), Wrong(folder=folder, files=["1000:0 600 x"], count=7))
    assert [command.line for command in plan.commands] == [
        "chown --recursive 999:998 '/srv/pg data'",
        "chmod --recursive u=rwX,go= '/srv/pg data'",
        "docker compose -f /root/ferreteria/docker-compose.prod.yml restart db",
    ]
    assert plan.facts == ("now 1000:0 600 x", "and 6 more")
