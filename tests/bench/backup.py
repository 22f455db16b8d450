"""How long a backup and its proof take, and how much memory: `python -m tests.bench.backup [--size 2GB] [--rounds 3]`.

On a practice VPS, in turns and several times over: `pg_dump` to /dev/null, the site's own script, and what
`daily_backup` does, with its manifest, upload and checksum; then a proof beside a bare pg_restore of the same archive.
The same backup of a tenth of the size tells whether memory is flat. A golden disk of 2 GB takes minutes, once.

Exit status: 0 if each promise is kept, 1 if not. They are made for 2 GB: of a small database connecting and looking
take as long, and weigh more.
"""

import argparse
import multiprocessing
import os
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from statistics import median
from typing import NamedTuple

from prefect.settings import PREFECT_API_URL
from prefect.testing.utilities import prefect_test_harness

from blocks.site import Site
from tasks import bucket, copies, drill, dump, keeping, proving, s3
from tests import sample
from tests.lab.database import DB
from tests.lab.golden import BYTES_A_SALE
from tests.lab.seaweed import Store, seaweed
from tests.lab.served import env_prod
from tests.lab.site import invariants
from tests.lab.vps import PracticeVps, down, up

SCRIPT = "/root/ferreteria/infra/backups/backup_db.sh"
SCRIPT_FILES = "/var/backups/ferreteria/daily/ferreteria_*.sql.gz"
UNITS = {"MB": 10**6, "GB": 10**9}
TIME, SIZE, MEMORY = 0.6, 1, 300  # promised: at most so much of the script's time and of its bytes, MB above idle


class Done(NamedTuple):
    """What one work of Guardia's took, in a process of its own; `bytes` is the archive's size."""

    seconds: float
    idle_mb: float
    more_mb: float
    bytes: int


def main(size: int, rounds: int) -> bool:
    """Print every figure as it is taken, and how it compares; whether what is promised is kept."""
    assert isinstance(sys.stdout, TextIOWrapper)
    sys.stdout.reconfigure(line_buffering=True)  # minutes lie between two lines
    with tempfile.TemporaryDirectory() as folder, seaweed(Path(folder, "weed")) as store, prefect_server():
        with practice(size // 10, store) as (_, site):
            small, _ = own_process(back_up, site)
        report(f"daily_backup of {size / 1e7:.0f} MB", small)
        with practice(size, store) as (vps, site):
            good = time_backups(vps, site, rounds, small)
            time_proof(vps, site)
    print("every promise is kept" if good else "NOT every promise is kept")
    return good


@contextmanager
def prefect_server() -> Iterator[None]:
    """A server that progress can be told to, for the processes that are started meanwhile."""
    os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
    with prefect_test_harness(server_startup_timeout=120):
        os.environ["PREFECT_API_URL"] = str(PREFECT_API_URL.value())
        yield


@contextmanager
def practice(size: int, store: Store) -> Iterator[tuple[PracticeVps, Site]]:
    """A VPS with a database of about so many bytes, and its site."""
    name = f"bench-{os.getpid()}"
    vps = up(name, size // BYTES_A_SALE)
    try:
        host = {
            "address": "127.0.0.1", "port": vps.ssh_port, "private_key": vps.key_file.read_text(),
            "host_key": vps.host_key,
        }  # fmt: skip
        database = {
            "name": env_prod("POSTGRES_DB"), "user": env_prod("POSTGRES_USER"),
            "password": env_prod("POSTGRES_PASSWORD"), "invariants": invariants.FILE.read_text(),
        }  # fmt: skip
        settings = store.settings(part_size=16, prefix=str(size))
        yield vps, sample.site(host=host, database=database, backups=settings)
    finally:
        down(name)


def time_backups(vps: PracticeVps, site: Site, rounds: int, small: Done) -> bool:
    """The three ways in turns; whether what is promised is kept."""
    plain(vps)  # once for the caches
    plains, scripts, sizes, ours = [], [], [], []
    for _ in range(rounds):
        rest()
        plains.append(plain(vps))
        rest()
        seconds, size = script(vps)
        scripts.append(seconds)
        sizes.append(size)
        rest()
        done, name = own_process(back_up, site)
        ours.append(done)
        remove(vps, site, name)
        print(f"pg_dump to /dev/null: {plains[-1]:.1f} s; the site's script: {seconds:.1f} s, {size / 1e6:.0f} MB")
        report("daily_backup", done)
    took, archive, more = median(d.seconds for d in ours), median(d.bytes for d in ours), max(d.more_mb for d in ours)
    floor, theirs = median(plains), median(scripts)
    print(f"medians: pg_dump to /dev/null {floor:.1f} s, the site's script {theirs:.1f} s, daily_backup {took:.1f} s")
    print(f"memory above idle: at most {more:.0f} MB, {small.more_mb:.0f} MB for a tenth of the database")
    return all([
        kept("time, daily_backup / script", took / theirs, TIME),
        kept("size, daily_backup / script", archive / median(sizes), SIZE),
        kept("MB above idle", more, MEMORY),
    ])  # fmt: skip


def rest() -> None:
    """Let what was written before reach the disk: the copy of the golden disk alone is gigabytes."""
    os.sync()


def kept(what: str, found: float, promised: float) -> bool:
    """Print a figure beside the most that is promised; whether it is no more."""
    good = found <= promised
    print(f"{what}: {found:.4g}, promised at most {promised}: {'kept' if good else 'NOT kept'}")
    return good


def time_proof(vps: PracticeVps, site: Site) -> None:
    """A proof, and pg_restore alone into an empty server that is as the proof's."""
    _, name = own_process(back_up, site)
    bare = bare_restore(vps, site, name)
    done, _ = own_process(prove, site, name)
    report("verify_backup", done)
    print(f"bare pg_restore -j2: {bare:.1f} s; verify_backup / bare: {done.seconds / bare:.2f}")


# --- what is timed --------------------------------------------------------------------------------------------


def plain(vps: PracticeVps) -> float:
    """Seconds of a dump that is thrown away: the floor."""
    user, name = env_prod("POSTGRES_USER"), env_prod("POSTGRES_DB")
    return seconds_of(lambda: vps.shell(f"docker exec {DB} pg_dump -U {user} -d {name} > /dev/null", timeout=3600))


def script(vps: PracticeVps) -> tuple[float, int]:
    """Seconds of the site's own script, and the bytes of its file."""
    seconds = seconds_of(lambda: vps.exec(SCRIPT, timeout=3600))
    size = int(vps.shell(f"cat {SCRIPT_FILES} | wc -c; rm {SCRIPT_FILES}"))
    return seconds, size


def bare_restore(vps: PracticeVps, site: Site, name: str) -> float:
    """Seconds of pg_restore in a drill, from a file that lies there already."""
    with drill.drill(site) as server:
        inside = f"docker exec -i {server.container}"
        copy = f"zstd -dcq {copies.folder(site)}/{name}.dump.zst"
        vps.shell(f"{copy} | {inside} dd of=/tmp/archive bs=1M status=none", timeout=3600)
        vps.shell(f"{inside} createdb -U {server.user} -T template0 bare")
        restore = f"{inside} pg_restore -j2 -e -U {server.user} -d bare /tmp/archive"
        return seconds_of(lambda: vps.shell(restore, timeout=3600))


def back_up(site: Site) -> tuple[int, str]:
    """What `daily_backup` does but for retention; the archive's bytes and the backup's name."""
    name = bucket.new_name(datetime.now(UTC))
    made = dump.dump.fn(site, name, "daily", dump.space.fn(site))
    keeping.commit.fn(site, made)
    copies.prune.fn(site, name)
    return made.archive.stored_bytes, name


def prove(site: Site, name: str) -> tuple[int, str]:
    """What `verify_backup` does."""
    proof = proving.prove.fn(site, name)
    assert proof.verdict == "proven", proof
    return 0, name


def remove(vps: PracticeVps, site: Site, name: str) -> None:
    """Remove a backup and its copy."""
    assert site.backups is not None
    s3.delete(site.backups, [entry.key for entry in s3.keys(site.backups, site.backups.prefix)])
    vps.exec("rm", "-f", f"{copies.folder(site)}/{name}.dump.zst")


# --- a process of its own -------------------------------------------------------------------------------------


def own_process(work: Callable[..., tuple[int, str]], *args: object) -> tuple[Done, str]:
    """Do it as a worker would, in a fresh process; what it took, and the name it returned."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measured, (work, *args))


def measured(work: Callable[..., tuple[int, str]], *args: object) -> tuple[Done, str]:
    """Time and memory of this process, from where all is loaded that a flow run has loaded before its first step."""
    warnings.simplefilter("ignore", FutureWarning)  # of Prefect: progress that belongs to no flow run
    idle, started = memory("VmRSS"), time.monotonic()
    size, name = work(*args)
    return Done(time.monotonic() - started, idle, memory("VmHWM") - idle, size), name


def memory(what: str) -> float:
    """MB that this process has (VmRSS), or had at most (VmHWM)."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def seconds_of(work: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.monotonic()
    work()
    return time.monotonic() - started


def report(what: str, done: Done) -> None:
    """Print one line."""
    size = f", {done.bytes / 1e6:.0f} MB" if done.bytes else ""
    print(f"{what}: {done.seconds:.1f} s{size}, memory {done.idle_mb:.0f} MB idle + {done.more_mb:.0f} MB")


def in_bytes(text: str) -> int:
    """`200MB` or `2GB` as a number."""
    return int(float(text[:-2]) * UNITS[text[-2:].upper()])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.bench.backup", description=main.__doc__)
    parser.add_argument("--size", type=in_bytes, default="2GB", help="of the database: 200MB, 2GB")
    parser.add_argument("--rounds", type=int, default=3, help="of which the medians are taken")
    given = parser.parse_args()
    sys.exit(0 if main(given.size, given.rounds) else 1)
