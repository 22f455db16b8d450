"""A PostgreSQL server as the tasks reach one: over SSH, in what docker would call a container."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import SecretStr

from tasks import ssh
from tasks.postgres import Server
from tests.postgres_server import PASSWORD, USER, PostgresServer
from tests.ssh_server import SshServer

PROGRAMS = ("bash", "dd", "df", "find", "rm", "stat", "zstd")
# `docker exec [--interactive] CONTAINER PROGRAM …` runs the program here; `docker inspect` says where the server is.
DOCKER = """
case "$1" in
inspect) echo running host;;
exec) shift; [ "$1" = --interactive ] && shift; shift; PGHOST={folder} PATH=$PATH:{bin} exec "$@";;
esac
"""


@contextmanager
def contained(ssh_server: SshServer, postgres: PostgresServer) -> Iterator[Server]:
    """The unit tests' server in a container that `docker` pretends to know."""
    ssh_server.stub("docker", DOCKER.format(folder=postgres.folder, bin=postgres.bin))
    for name in PROGRAMS:
        program = ssh_server.folder / "bin" / name
        if not program.exists():
            program.symlink_to(str(shutil.which(name)))
    host = ssh_server.host()
    try:
        yield Server(host, "db", USER, SecretStr(PASSWORD), postgres.port, "db of tandil")
    finally:
        ssh.close(host)
