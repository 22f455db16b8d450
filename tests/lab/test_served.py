"""`guardia up` comes and goes without leaving anything behind."""

import socket
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.lab.outside import see
from tests.lab.served import served
from tests.lab.vps import PracticeVps

pytestmark = pytest.mark.lab


def test_guardia_stops_cleanly_and_keeps_its_sites(vps: PracticeVps, tmp_path: Path) -> None:
    for _ in range(2):
        with served(vps, tmp_path) as guardia:
            assert httpx.get(f"{guardia.ui}/").status_code == httpx.codes.OK
            assert guardia.command("status").returncode == 0
            port = int(guardia.ui.rsplit(":", 1)[1])
        with socket.socket() as closed:
            assert closed.connect_ex(("127.0.0.1", port)) != 0, "the server still listens"
        assert "Stopped." in guardia.log()
        assert "Traceback" not in guardia.log()
        left = subprocess.run(["pgrep", "-f", f"prefect.*--port {port}"], capture_output=True, text=True, check=False)
        assert left.stdout == ""
    assert see(vps.https_port, vps.ca_file).healthy


def test_a_command_without_a_server_says_how_to_start_one(vps: PracticeVps, tmp_path: Path) -> None:
    with served(vps, tmp_path) as guardia:
        pass
    done = guardia.command("status")
    assert done.returncode == 1
    assert "Start it with `guardia up`" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_second_guardia_on_the_same_port_is_told_so(vps: PracticeVps, tmp_path: Path) -> None:
    with served(vps, tmp_path) as guardia:
        done = guardia.command("up", "--port", guardia.ui.rsplit(":", 1)[1])
        assert done.returncode == 1
        assert "cannot be used" in done.stderr
        assert guardia.command("status").returncode == 0, "the first one was disturbed"
