"""The lab's own engine leaves the machine as it found it."""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.lab import private_engine

# In a network namespace of its own, so that another engine on this machine is not disturbed.
SCRIPT = """
import subprocess
from tests.lab import private_engine
def seen():
    shown = ["iptables -S", "iptables -t nat -S", "ip -br link"]
    return [subprocess.run(words.split(), capture_output=True, text=True, check=True).stdout for words in shown]
before = seen()
private_engine.start(print)
try:
    subprocess.run(["docker", "-H", private_engine.SOCKET, "network", "create", "left-behind"], check=True)
    during = seen()
finally:
    private_engine.stop()
assert during != before, "the engine made nothing: this test proves nothing"
assert seen() == before, seen()
"""


@pytest.mark.lab
def test_the_private_engine_takes_its_rules_and_bridges_with_it(lab: str, tmp_path: Path) -> None:
    private_engine.install(print)
    argv = ["unshare", "--net", sys.executable, "-c", SCRIPT]
    with TemporaryDirectory(prefix="lab-") as short:  # the engine's sockets are in it: 107 characters at most
        folders = {"GUARDIA_LAB_HOME": str(tmp_path / "home"), "GUARDIA_LAB_RUN": short}
        done = subprocess.run(argv, env=os.environ | folders, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
