"""A real PostgreSQL for unit tests, from Debian's package: a cluster of its own on a socket and a port."""

import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any, Self

import psycopg

USER = "ferreteria_user"
PASSWORD = "practice-only-7f3a9c"


class PostgresServer:
    """A cluster in a folder; gone with the block."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, folder / "data"
        self.bin = _programs()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._as = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []

    def __enter__(self) -> Self:
        self.folder.mkdir(exist_ok=True)
        if self._as:
            self.folder.chmod(0o711)
            shutil.chown(self.folder, "postgres", "postgres")
        (self.folder / "password").write_text(PASSWORD)
        (self.folder / "password").chmod(0o644)
        self.run(
            "initdb", f"--username={USER}", f"--pwfile={self.folder}/password", "--auth-local=trust",
            "--auth-host=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "-D", str(self.data),
        )  # fmt: skip
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off -c jit=off"
        self.run("pg_ctl", "-w", "-D", str(self.data), "-o", options, "-l", f"{self.folder}/log", "start")
        return self

    def __exit__(self, *_: object) -> None:
        self.run("pg_ctl", "-w", "-m", "immediate", "-D", str(self.data), "stop")

    def run(self, program: str, *words: str, **options: Any) -> subprocess.CompletedProcess[Any]:
        """Run one of PostgreSQL's programs, as the user that the cluster belongs to."""
        argv = [*self._as, str(self.bin / program), *words]
        return subprocess.run(argv, check=True, cwd="/", **({"stdout": subprocess.DEVNULL} | options))

    def dsn(self, database: str = "postgres") -> str:
        """How to connect to a database, over TCP with the password."""
        return f"host=127.0.0.1 port={self.port} user={USER} password={PASSWORD} dbname={database}"

    def connect(self, database: str = "postgres", **options: Any) -> "psycopg.Connection[Any]":
        """A connection; each statement is its own transaction unless `autocommit=False`."""
        return psycopg.connect(self.dsn(database), **({"autocommit": True} | options))

    def create(self, database: str, script: str = "") -> None:
        """Make an empty database, after dropping one of that name, and run a script in it."""
        with self.connect() as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')
            connection.execute(f'CREATE DATABASE "{database}" TEMPLATE template0')
        with self.connect(database) as connection:
            connection.execute(script)


def _programs() -> Path:
    """Debian keeps each major version's programs in a folder of its own, off the path."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    found = [folder for folder in folders if (folder / "initdb").exists()]
    if not found:
        raise FileNotFoundError("no PostgreSQL server on this machine: install the package postgresql")
    return found[-1]
