"""The ways to break a machine, and to restart what was broken."""

import time
from collections.abc import Callable
from pathlib import Path

from tests.lab.home import LabError
from tests.lab.vps import PracticeVps

COMPOSE = "docker compose -f /root/ferreteria/docker-compose.prod.yml"


def script(text: str) -> Callable[[PracticeVps], str]:
    """A step that is nothing but a script on the machine; COMPOSE in it stands for the site's command."""
    return lambda vps: vps.shell(f"set -eo pipefail; {text.replace('COMPOSE', COMPOSE)}", timeout=120)


def signal(service: str, signal: str) -> Callable[[PracticeVps], str]:
    """Send a signal to every process of a service."""
    return script(f"kill -{signal} $(docker top ferreteria_{service}_prod -eo pid | tail -n +2)")


def restart(service: str) -> Callable[[PracticeVps], str]:
    """Restart a service, in whatever state it is."""
    return script(f"COMPOSE up -d --no-deps {service}; COMPOSE restart {service}")


def fill_disk(vps: PracticeVps) -> None:
    """Fill the disk with what Docker leaves behind, then let an import write until the database dies of it."""
    vps.shell(
        """set -e
        docker run --name old-import ferreteria/base fallocate -l 300M /import.csv
        docker run --name old-build ferreteria/base fallocate -l 200M /build.bin
        docker commit old-build > /dev/null
        docker run --name old-report ferreteria/base sh -c \
            'fallocate -l $(($(stat -f -c "%f*%S" /) - 64000000)) /report; cat /dev/zero > /log' 2> /dev/null || true
        """,
        timeout=180,
    )
    # Log records alone, many and fast: the log outgrows the segments that could be used again.
    write = "SELECT count(pg_logical_emit_message(true, 'import', repeat('x', 16000000))) FROM generate_series(1, 60)"
    vps.shell(f'{COMPOSE} exec -T db psql -q -U ferreteria_user -d ferreteria_db -c "{write}"', check=False)
    deadline = time.monotonic() + 60
    while "No space left" not in vps.shell("docker logs --tail 30 ferreteria_db_prod 2>&1"):
        if time.monotonic() > deadline:
            raise LabError(f"the database of {vps.name} lives on although its disk should be full")
        time.sleep(0.5)


def run_away(vps: PracticeVps) -> None:
    """Start the program `runaway.py` in the web container."""
    program = Path(__file__).with_name("runaway.py").read_text()
    vps.exec("docker", "exec", "--detach", "ferreteria_web_prod", "python3", "-c", program)
