"""The command line: it explains itself, and an expected error is one sentence and status 1."""

import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from blocks import site_file
from blocks.errors import ConfigError
from blocks.site import Site
from deployments import server
from deployments.cli import app, main
from deployments.home import home, point_at_server, write_down
from tests import sample

COMMANDS = (
    "up", "apply", "respond", "plan", "approve", "backups", "backup", "verify", "restore", "undo-restore", "status",
    "doctor", "commands",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARDIA_HOME", str(tmp_path / "home"))
    for name in ("PREFECT_API_URL", "PREFECT_HOME", "DO_NOT_TRACK", "PREFECT_LOGGING_LEVEL"):
        monkeypatch.setenv(name, "changed by the test")  # so that it is put back
        monkeypatch.delenv(name)


def test_these_are_the_commands() -> None:
    assert {name for name in app if not name.startswith("-")} == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = succeeded([command, "--help"], capsys)
    assert f"Usage: guardia {command}" in shown
    assert str(app[command].help).split(".", maxsplit=1)[0][:40] in " ".join(shown.split())


MEANINGLESS = {
    "restore B --only sale": "Add --rescue",
    "restore B --changed": "Add --rescue",
    "approve R --only sale": "--only goes with --choose rescue",
    "approve R --choose 'whole restore' --only sale": "--only goes with --choose rescue",
    "approve R --backup B": "--backup with --choose",
}


@pytest.mark.parametrize("line", MEANINGLESS)
def test_options_that_would_be_ignored_are_refused(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert MEANINGLESS[line] in failed(shlex.split(line), capsys)


def failed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("guardia: ")
    assert "Traceback" not in said
    return said


def succeeded(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert not ended.value.code
    return capsys.readouterr().out


def test_a_bad_site_file_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "[site].toml").write_text("")
    said = failed(["apply", str(tmp_path / "[site].toml")], capsys)
    assert said.count("\n") == 1
    assert "[site].toml has 5 problems: name: is missing" in said


@pytest.mark.usefixtures("prefect_server")
def test_a_site_that_is_not_registered_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert "There is no site 'nowhere'; registered: " in failed(["commands", "--site", "nowhere"], capsys)


def test_which_site_is_asked_when_there_are_several(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site_file.register(sample.site(name="another"))
    said = failed(["plan", "site-down"], capsys)
    assert "Which site? Say --site NAME; registered: " in said
    assert "another" in said
    assert site.name in said


def test_an_unknown_playbook_is_one_sentence(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert "There is no playbook 'site-up'. Known: site-down, " in failed(
        ["respond", "site-up", "--site", site.name], capsys
    )


def test_what_waits_and_what_is_open_is_shown(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert site.name in succeeded(["status"], capsys)
    assert succeeded(["approve"], capsys) == "Nothing waits for an approval.\n"


def test_the_commands_of_a_site_are_printed(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert "* systemctl reboot\n" in succeeded(["commands", "--site", site.name], capsys)


def guardia(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "deployments.cli", *arguments]
    return subprocess.run(argv, env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False)


def test_a_server_that_is_away_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/api"
    done = guardia("status", PREFECT_API_URL=url)
    assert done.returncode == 1
    assert done.stderr == (
        "guardia: The Prefect server does not answer. Start it with `guardia up`, or set PREFECT_API_URL.\n"
    )


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert succeeded(["--version"], capsys) == f"{app.version}\n"
    assert app.version != "0.0.0"


def test_a_port_that_is_taken_is_named_with_the_cure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(ConfigError, match=rf"Port {port} on 127\.0\.0\.1 cannot be used: .*--port"),
            server.running("127.0.0.1", port),
        ):
            pytest.fail("it started")


def test_other_commands_find_the_server_that_was_started_last(monkeypatch: pytest.MonkeyPatch) -> None:
    point_at_server()
    assert os.environ["PREFECT_API_URL"] == "http://127.0.0.1:4200/api"
    monkeypatch.delenv("PREFECT_API_URL")
    write_down("http://127.0.0.1:5000/api")
    point_at_server()
    assert os.environ["PREFECT_API_URL"] == "http://127.0.0.1:5000/api"
    assert os.environ["PREFECT_HOME"] == str(home() / "prefect")


def test_a_server_that_the_environment_names_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect.test/api")
    write_down("http://127.0.0.1:5000/api")
    point_at_server()
    assert os.environ["PREFECT_API_URL"] == "http://prefect.test/api"
