"""A real S3 service for tests: SeaweedFS, one process on 127.0.0.1, with an identity and a bucket."""

import json
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from botocore.exceptions import BotoCoreError, ClientError

from blocks.backup_store import BackupStore
from blocks.errors import StoreError
from tasks import s3, s3_client
from tests.lab.home import LabError
from tests.lab.machine import free_ports

BUCKET = "guardia"
WEED = Path(sys.executable).parent / "weed"
_START = 60.0  # seconds that it may take; usual are 3 to 8
_PORTS = tuple(f"{part}.port{kind}" for part in ("s3", "master", "volume", "filer") for kind in ("", ".grpc"))


@dataclass(frozen=True)
class Store:
    """A running service: its address, its one identity's keys, its bucket."""

    endpoint: str
    key: str
    secret: str
    bucket: str = BUCKET

    def settings(self, **changes: Any) -> dict[str, Any]:
        """[backups] of a site file that uses it."""
        keys = {"access_key_id": self.key, "secret_access_key": self.secret}
        return {
            "endpoint": self.endpoint,
            "bucket": self.bucket,
            "addressing": "path",
            "part_size": 5,
            **keys,
        } | changes

    def block(self, **changes: Any) -> BackupStore:
        """The block of such a file."""
        return BackupStore.model_validate(self.settings(**changes))


@contextmanager
def seaweed(folder: Path, port: int | None = None, *, object_lock: bool = False) -> Iterator[Store]:
    """Run the service with its data in `folder`, which is removed at the end; yields how to reach it.

    `port` is where S3 answers, any free one if None; `object_lock`: the bucket can lock objects. LabError if it does
    not come up.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ports = free_ports(_PORTS) | ({"s3.port": port} if port else {})
    store = Store(f"http://127.0.0.1:{ports['s3.port']}", secrets.token_hex(10), secrets.token_hex(20))
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(_argv(folder, store, ports), stdout=log, stderr=log, cwd=folder)
    try:
        _make_bucket(store, server, folder, object_lock)
        yield store
    finally:
        server.kill()  # what it has is thrown away, and asked politely it takes 10 s and more
        server.wait()
        shutil.rmtree(folder)


def _argv(folder: Path, store: Store, ports: dict[str, int]) -> list[str]:
    identity = {"accessKey": store.key, "secretKey": store.secret}
    roles = {"identities": [{"name": "guardia", "credentials": [identity], "actions": ["Admin"]}]}
    (folder / "s3.json").write_text(json.dumps(roles))
    (folder / "data").mkdir()
    listening = [f"-{name}={port}" for name, port in ports.items()]
    return [
        str(WEED), "server", f"-dir={folder}/data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3",
        f"-s3.config={folder}/s3.json", "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false",
        "-s3.autoCreateBucket=false", *listening,
        "-master.electionTimeout=1s", "-master.heartbeatInterval=100ms", "-master.volumeSizeLimitMB=1024",
        "-volume.preStopSeconds=0", "-volume.max=0", "-master.telemetry=false",
    ]  # fmt: skip


def _make_bucket(store: Store, server: "subprocess.Popen[bytes]", folder: Path, object_lock: bool) -> None:
    """Make the bucket once the service takes it, and wait until an object can be written."""
    deadline, last = time.monotonic() + _START, "no answer"
    while server.poll() is None and time.monotonic() < deadline:
        try:
            httpx.get(store.endpoint, timeout=1)
            with suppress(ClientError):  # it is there already
                s3_client.client(store.block()).create_bucket(
                    Bucket=store.bucket, ObjectLockEnabledForBucket=object_lock
                )
            s3.put(store.block(), "started", b"yes")
            s3.delete(store.block(), ["started"])
            return
        except (httpx.HTTPError, BotoCoreError, StoreError) as error:
            last = str(error)
            time.sleep(0.2)
    tail = (folder / "log").read_text(errors="replace")[-800:]
    raise LabError(f"SeaweedFS did not come up: {last}\n{tail}")
