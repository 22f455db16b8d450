"""The shop's database behind Guardia's back: statements as its owner, and the whole of it kept and put back.

`keep` copies the cluster while the shop goes on selling (1 s for 100 MB); `put_back` makes it what it was, whatever
has happened to the volume since: rows, databases, roles, files or their owner.
"""

from tests.lab.vps import PracticeVps

COMPOSE = "docker compose -f /root/ferreteria/docker-compose.prod.yml"
DB = "ferreteria_db_prod"
DATA = "/var/lib/docker/volumes/ferreteria_postgres_data/_data"
KEPT = "/var/lib/guardia-lab"  # on the machine's own disk; the audit does not look there
OWNER = "999:999"  # postgres in the image


def sql(vps: PracticeVps, text: str, database: str = "ferreteria_db", timeout: float = 120) -> str:
    """Run statements in one transaction and return what they print, unaligned; LabError if one fails."""
    psql = "psql -X -q -A -t -1 -v ON_ERROR_STOP=1 -U ferreteria_user -d"
    return vps.exec("docker", "exec", "-i", DB, *psql.split(), database, input=text, timeout=timeout).strip()


def keep(vps: PracticeVps, name: str) -> None:
    """Keep the cluster as it is now under a name; one that was kept under it before is gone.

    Raises LabError where the server does not run: only what works is worth keeping.
    """
    backup = "pg_basebackup -U ferreteria_user -D - -Ft -X fetch -c fast --no-manifest"
    vps.shell(
        f"set -e; mkdir -p {KEPT}; docker exec {DB} {backup} > {KEPT}/{name}.new; mv {KEPT}/{name}.new {_file(name)}",
        timeout=300,
    )


def put_back(vps: PracticeVps, name: str) -> None:
    """Make the cluster what `keep` kept and start the server; the copy is used up. Nothing kept: nothing done.

    The container is a new one, so that the log does not tell the next test of this one's damage; data folders that a
    playbook has moved aside are removed, for the disk is small.
    """
    vps.shell(
        f"""set -e
        [ -e {_file(name)} ] || exit 0
        {COMPOSE} rm --stop --force db
        rm -rf /var/backups/*/volumes
        mkdir -p {DATA}
        find {DATA} -mindepth 1 -delete
        tar -x -f {_file(name)} -C {DATA}
        chown -R {OWNER} {DATA}
        rm {_file(name)}
        {COMPOSE} up -d --no-deps --wait db""",
        timeout=300,
    )


def file_of(vps: PracticeVps, table: str) -> str:
    """Where on the machine a table's rows lie."""
    return f"{DATA}/" + sql(vps, f"SELECT pg_relation_filepath('{table}')")


def _file(name: str) -> str:
    return f"{KEPT}/{name}.tar"
