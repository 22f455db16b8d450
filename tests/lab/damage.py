"""The ways to break a machine, and to restart what was broken."""

import time
from collections.abc import Callable
from pathlib import Path

from tests.lab import database
from tests.lab.database import COMPOSE, DATA, DB, OWNER
from tests.lab.home import LabError
from tests.lab.vps import PracticeVps

DELETE_SALES = """
    \set tenant 3
    DELETE FROM receipt_mail WHERE tenant_id = :tenant;
    DELETE FROM finance_ledger WHERE tenant_id = :tenant AND payment_id IS NOT NULL;
    DELETE FROM stock_move WHERE tenant_id = :tenant AND sale_line_id IS NOT NULL;
    DELETE FROM sale_payment WHERE tenant_id = :tenant;
    DELETE FROM sale_line WHERE tenant_id = :tenant;
    DELETE FROM sale WHERE tenant_id = :tenant;
    """


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
    _write_until_full(vps)


def _write_until_full(vps: PracticeVps) -> None:
    """Log records alone, many and fast: the log outgrows the segments that could be used again."""
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


def fill_disk_by_wal(vps: PracticeVps) -> None:
    """Let a replica that nobody misses hold the log back until the disk is full of it.

    A stopped container that can be pruned takes most of the space first, so that this does not take minutes.
    """
    vps.shell(
        "docker run --name old-import ferreteria/base sh -c"
        """ 'fallocate -l $(($(stat -f -c "%a*%S" /) - 500000000)) /import.csv'"""
    )
    database.sql(vps, "SELECT pg_create_physical_replication_slot('forgotten_replica', true)")
    _write_until_full(vps)


def delete_sales(vps: PracticeVps) -> None:
    """Delete everything that one tenant ever sold, in the order that the foreign keys want."""
    database.sql(vps, DELETE_SALES)


def truncate_heap(vps: PracticeVps) -> None:
    """Cut the file of the table `sale` to a third of its blocks, as a file system's repair may do."""
    file = database.file_of(vps, "sale")
    vps.shell(
        f"set -e; {COMPOSE} stop db; "
        f"truncate -s $(($(stat -c %s {file}) / 3 / 8192 * 8192)) {file}; {COMPOSE} up -d --no-deps --wait db",
        timeout=120,
    )


def garble_heap(vps: PracticeVps) -> None:
    """Overwrite a block in the middle of the table `sale`, as a disk does that dies: the server refuses to read it."""
    file = database.file_of(vps, "sale")
    vps.shell(
        f"set -e; {COMPOSE} stop db; head -c 8192 /dev/zero | tr '\\0' '\\377' | "
        f"dd of={file} bs=8192 seek=$(($(stat -c %s {file}) / 8192 / 2)) conv=notrunc status=none; "
        f"{COMPOSE} up -d --no-deps --wait db",
        timeout=120,
    )


def kept(name: str, spoil: Callable[[PracticeVps], object]) -> Callable[[PracticeVps], None]:
    """Keep the database before it is spoilt; `put_back` is the cure."""

    def step(vps: PracticeVps) -> None:
        database.keep(vps, name)
        spoil(vps)

    return step


def put_back(name: str, before: str = "true") -> Callable[[PracticeVps], None]:
    """Put back what was kept under `name`, after a script."""

    def step(vps: PracticeVps) -> None:
        script(before)(vps)
        database.put_back(vps, name)

    return step


def statement(text: str) -> Callable[[PracticeVps], object]:
    """A step that is nothing but SQL in the shop's database."""
    return lambda vps: database.sql(vps, text)


# Started as its own user, the image cannot give the files back to it as it would when started as root.
AS_OWNER = f'user: "{OWNER}"'
CHANGE_OWNER = script(
    f"sed -i '/container_name: {DB}/a \\    {AS_OWNER}' /root/ferreteria/docker-compose.prod.yml; "
    f"COMPOSE stop db; chown -R 1000:1000 {DATA}; COMPOSE up -d --no-deps db"
)
RETURN_OWNER = script(
    f"sed -i '/{AS_OWNER}/d' /root/ferreteria/docker-compose.prod.yml; "
    f"chown -R {OWNER} {DATA}; COMPOSE up -d --no-deps --force-recreate --wait db"
)
# In the middle, so that the versions at its beginning are right and the checksum at its end is not.
SPOIL_CONTROL_FILE = script(
    f"COMPOSE stop db; dd if=/dev/zero of={DATA}/global/pg_control bs=1 seek=64 count=64 conv=notrunc status=none; "
    "COMPOSE up -d --no-deps db"
)
