"""Break a practice machine for real, and heal it again.

Each fault works through the lab's own way in, so faults add up: `web-stopped` and then `ssh-key-refused` is a
site that is down and a machine that lets nobody in. Healing works whatever has been done meanwhile.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.lab.damage import (
    CHANGE_OWNER,
    RETURN_OWNER,
    SPOIL_CONTROL_FILE,
    delete_sales,
    fill_disk,
    fill_disk_by_wal,
    garble_heap,
    kept,
    put_back,
    restart,
    run_away,
    script,
    signal,
    statement,
    truncate_heap,
)
from tests.lab.database import COMPOSE
from tests.lab.home import LabError
from tests.lab.vps import PracticeVps, wait_healthy


@dataclass(frozen=True)
class Fault:
    """Something to break: `symptom` is what a visitor gets (a status, "timeout", "refused", "healthy")."""

    name: str
    what_breaks: str
    symptom: str
    inject: Callable[[PracticeVps], object]
    heal: Callable[[PracticeVps], object]


def inject(vps: PracticeVps, name: str) -> None:
    """Break the machine by the fault called `name`; LabError if there is no such fault or it would not break."""
    fault = _fault(name)
    _remember(vps, [*injected(vps), name])
    fault.inject(vps)


def heal(vps: PracticeVps, name: str | None = None) -> None:
    """Heal one fault, or all that were injected, last one first, and wait until the site is healthy again."""
    for each in [name] if name else list(reversed(injected(vps))):
        _fault(each).heal(vps)
        _remember(vps, [other for other in injected(vps) if other != each])
    if not injected(vps):
        vps.shell(f"{COMPOSE} up -d", timeout=120)
        wait_healthy(vps)


def injected(vps: PracticeVps) -> list[str]:
    """The faults that were injected and not healed, oldest first."""
    record = _record(vps)
    return list(json.loads(record.read_text())) if record.exists() else []


def _record(vps: PracticeVps) -> Path:
    return vps.ca_file.with_name("faults.json")


def _remember(vps: PracticeVps, names: list[str]) -> None:
    _record(vps).write_text(json.dumps(list(dict.fromkeys(names))))


def _fault(name: str) -> Fault:
    if name not in FAULTS:
        raise LabError(f"there is no fault {name!r}; there are: {', '.join(FAULTS)}")
    return FAULTS[name]


FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault("web-stopped", "The web container is stopped.", "502", script("COMPOSE stop web"), restart("web")),
        Fault(
            "web-hung",
            "The shop's processes are there but frozen: they accept connections and never answer.",
            "504",
            signal("web", "STOP"),
            restart("web"),
        ),
        Fault(
            "nginx-broken",
            "nginx is up for Docker but frozen: the TLS handshake never ends.",
            "timeout",
            signal("nginx", "STOP"),
            restart("nginx"),
        ),
        Fault("all-stopped", "Every container is stopped.", "refused", script("COMPOSE stop"), script("COMPOSE start")),
        Fault(
            "db-stopped",
            "The database is stopped; the shop runs and says that it cannot reach it.",
            "500",
            script("COMPOSE stop db"),
            script("COMPOSE start db"),
        ),
        Fault(
            "disk-full",
            "The disk is full of stopped containers and dangling images: the database cannot even start.",
            "500",
            fill_disk,
            script("docker system prune -f; COMPOSE restart db; COMPOSE up -d"),
        ),
        Fault(
            "disk-almost-full",
            "A forgotten file fills most of what the disk had free; the site still works.",
            "healthy",
            script("fallocate -l $(($(stat -f -c '%a*%S' /) * 4 / 5)) /var/backups/forgotten.tar"),
            script("rm -f /var/backups/forgotten.tar"),
        ),
        Fault(
            "memory-runaway",
            "Ever more small processes in the web container: the OOM killer keeps killing the shop's workers.",
            "502 or 504",
            run_away,
            restart("web"),
        ),
        Fault(
            "docker-wedged",
            "Docker is frozen, its commands hang, and the shop has died: only a reboot helps.",
            "502",
            script(
                "web=$(docker inspect -f '{{.State.Pid}}' ferreteria_web_prod); "
                "kill -STOP $(pidof dockerd); kill -9 $web"
            ),
            script("kill -CONT $(pidof dockerd); COMPOSE up -d"),
        ),
        Fault(
            "ssh-key-refused",
            "root's key is no longer accepted by sshd; the site is well.",
            "healthy",
            script("cd /root/.ssh; mv authorized_keys authorized_keys.away"),
            script("cd /root/.ssh; [ ! -e authorized_keys.away ] || mv authorized_keys.away authorized_keys"),
        ),
        Fault(
            "host-key-changed",
            "sshd shows another host key than the one that is pinned; the site is well.",
            "healthy",
            script(
                "cd /etc/ssh; mkdir away; mv ssh_host_ed25519_key* away; "
                "ssh-keygen -q -t ed25519 -N '' -f ssh_host_ed25519_key; systemctl restart ssh"
            ),
            script("cd /etc/ssh; [ ! -d away ] || { mv away/* .; rmdir away; systemctl restart ssh; }"),
        ),
        Fault(
            "unreachable",
            "The machine drops every packet from outside: SSH and the site time out.",
            "timeout",
            script("iptables -t raw -I PREROUTING -i eth0 -j DROP"),
            script("iptables -t raw -F PREROUTING"),
        ),
        Fault(
            "db-killed",
            "PostgreSQL's first process is killed; Docker starts it again, and it recovers.",
            "healthy",
            script("kill -9 $(docker inspect -f '{{.State.Pid}}' ferreteria_db_prod)"),
            restart("db"),
        ),
        Fault(
            "tenant-sales-deleted",
            "Everything that one tenant ever sold is deleted, with the payments, the ledger and the stock's moves.",
            "healthy",
            kept("tenant-sales-deleted", delete_sales),
            put_back("tenant-sales-deleted"),
        ),
        Fault(
            "column-overwritten",
            "An UPDATE without WHERE gave every product of every tenant the same price.",
            "healthy",
            kept("column-overwritten", statement("UPDATE product SET price = 9.99")),
            put_back("column-overwritten"),
        ),
        Fault(
            "table-dropped",
            "The table of payments is dropped, and the ledger's foreign key with it.",
            "healthy",
            kept("table-dropped", statement("DROP TABLE sale_payment CASCADE")),
            put_back("table-dropped"),
        ),
        Fault(
            "heap-truncated",
            "Two thirds of the file of the table of sales are cut off: the server runs, and reads what is left.",
            "healthy",
            kept("heap-truncated", truncate_heap),
            put_back("heap-truncated"),
        ),
        Fault(
            "heap-garbled",
            "A block of the table of sales is garbage: the server runs, and refuses to read the table.",
            "healthy",
            kept("heap-garbled", garble_heap),
            put_back("heap-garbled"),
        ),
        Fault(
            "cluster-corrupted",
            "The database's control file is damaged: the server refuses to start, again and again.",
            "500",
            kept("cluster-corrupted", SPOIL_CONTROL_FILE),
            put_back("cluster-corrupted"),
        ),
        Fault(
            "volume-owner",
            "The database's files belong to another user, and its service does not start as root.",
            "500",
            CHANGE_OWNER,
            RETURN_OWNER,
        ),
        Fault(
            "disk-full-by-wal",
            "A replica that nobody misses holds back PostgreSQL's log until it fills the disk: the server stops.",
            "500",
            kept("disk-full-by-wal", fill_disk_by_wal),
            put_back("disk-full-by-wal", "docker rm -f old-import || true"),
        ),
        Fault(
            "web-cron-gone",
            "The line that starts the site's own backup is commented out.",
            "healthy",
            script("sed -i '/backup_db.sh/s/^/# /' /etc/cron.d/ferreteria"),
            script("sed -i '/backup_db.sh/s/^[# ]*//' /etc/cron.d/ferreteria"),
        ),
    )
}
