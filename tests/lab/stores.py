"""What S3 does on a bad day: a proxy before a real store that refuses, stalls, dies in an upload or answers errors.

It passes bytes, not requests: signatures hold, since the store behind sees the address that was signed. Wrong
credentials need no proxy: `dataclasses.replace(store, secret="another")`. `lose` and `overwrite` are what happens to
objects behind everybody's back.
"""

import math
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from tests.lab.machine import free_ports
from tests.lab.seaweed import Store

RESET = struct.pack("ii", 1, 0)  # linger for 0 s: closing sends a reset
PIECE = 1 << 16
TICK = 0.05  # seconds until a connection notices that it is over


class Proxy:
    """The same store at another port, `store`, which passes everything until it is told otherwise.

    Each method takes effect at once and resets the connections that are open; `well` undoes them all. `uploaded`
    counts the bytes that clients sent, `answered` the errors that the proxy gave in the store's place.
    """

    def __init__(self, behind: Store) -> None:
        self._behind = (urlsplit(behind.endpoint).hostname, urlsplit(behind.endpoint).port)
        self._port = free_ports(("s3",))["s3"]
        self._lock, self._pace = threading.Lock(), threading.Lock()
        self.store = replace(behind, endpoint=f"http://127.0.0.1:{self._port}")
        self._listener: socket.socket | None = None
        self._serving: list[threading.Thread] = []
        self._epoch = self.uploaded = self.answered = 0
        self.well()

    def well(self) -> None:
        """Pass everything again."""
        self._become()

    def refuse(self) -> None:
        """Refuse connections: nobody listens."""
        self._become(listening=False)

    def slow(self, rate: int) -> None:
        """Pass no more than `rate` bytes a second, all connections and both directions together."""
        self._become(rate=rate)

    def cut_after(self, count: int) -> None:
        """Reset all connections, once, when `count` more bytes were uploaded."""
        self._become(left=count)

    def die_after(self, count: int) -> None:
        """Reset all connections when `count` more bytes were uploaded, and refuse from then on."""
        self._become(left=count, dies=True)

    def busy(self, times: float = math.inf) -> None:
        """Answer the next requests with 503 SlowDown."""
        self._become(answer=_error(503, "SlowDown", "Please reduce your request rate."), times=times)

    def skew_clock(self) -> None:
        """Answer as S3 does to a client whose clock is wrong by more than 15 minutes."""
        message = "The difference between the request time and the server's time is too large."
        self._become(answer=_error(403, "RequestTimeTooSkewed", message))

    def _become(
        self, *, listening: bool = True, rate: float = math.inf, left: float = math.inf, dies: bool = False,
        answer: bytes = b"", times: float = math.inf,
    ) -> None:  # fmt: skip
        with self._lock:
            self._epoch += 1  # the connections of before reset themselves
            self._rate, self._left, self._dies, self._answer, self._times = rate, left, dies, answer, times
            if listening:
                self._listen()
            else:
                self._close()
            serving, self._serving = self._serving, []
        for thread in serving:
            thread.join(5)

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self._port), backlog=128)
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _close(self) -> None:
        if self._listener is not None:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # wakes `accept`, which would go on listening
            self._listener.close()
            self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                with self._lock:
                    thread = threading.Thread(target=self._serve, args=(client, self._epoch), daemon=True)
                    self._serving = [each for each in self._serving if each.is_alive()] + [thread]
                    thread.start()

    def _serve(self, client: socket.socket, epoch: int) -> None:
        with client, suppress(OSError):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            if self._answer and self._times > 0:
                self._times -= 1
                self._say(client)
            else:
                with socket.create_connection(self._behind) as store:
                    self._pass(client, store, epoch)

    def _pass(self, client: socket.socket, store: socket.socket, epoch: int) -> None:
        other = {client: store, store: client}
        while True:
            ready, _, _ = select.select([client, store], [], [], TICK)
            if epoch != self._epoch:
                return
            for source in ready:
                data = source.recv(int(min(PIECE, max(1, self._rate / 10))))
                if not data:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
                    return
                if source is client and not self._counts(len(data)):
                    return
                with self._pace:
                    time.sleep(len(data) / self._rate)
                other[source].sendall(data)

    def _counts(self, count: int) -> bool:
        """Count what was uploaded; False when that was too much."""
        with self._lock:
            self.uploaded += count
            self._left -= count
            if self._left >= 0:
                return True
            self._left, self._epoch = math.inf, self._epoch + 1
            if self._dies:
                self._close()
            return False

    def _say(self, client: socket.socket) -> None:
        """Read a request's head, answer it, and read what else comes, so that the answer is not lost in a reset."""
        client.settimeout(2)
        head = b""
        while b"\r\n\r\n" not in head:
            if not (data := client.recv(PIECE)):
                return
            head += data
        self.answered += 1
        client.sendall(self._answer)
        client.shutdown(socket.SHUT_WR)
        while client.recv(PIECE):
            pass


@contextmanager
def proxy(behind: Store) -> Iterator[Proxy]:
    """A proxy before a store until the block ends."""
    broken = Proxy(behind)
    try:
        yield broken
    finally:
        broken.refuse()


def lose(store: Store, key: str) -> None:
    """Delete an object as a store loses one: nobody is told."""
    s3(store).delete_object(Bucket=store.bucket, Key=key)


def fetch(store: Store, key: str) -> bytes:
    """What an object holds."""
    return bytes(s3(store).get_object(Bucket=store.bucket, Key=key)["Body"].read())


def overwrite(store: Store, key: str, data: bytes) -> None:
    """Put other bytes into an object: damaged, or forged."""
    s3(store).put_object(Bucket=store.bucket, Key=key, Body=data)


def keys(store: Store, prefix: str = "") -> list[str]:
    """The keys of all objects below a prefix."""
    pages = s3(store).get_paginator("list_objects_v2").paginate(Bucket=store.bucket, Prefix=prefix)
    return sorted(item["Key"] for page in pages for item in page.get("Contents", []))


def unfinished(store: Store, prefix: str = "") -> list[str]:
    """The keys of multipart uploads that were neither completed nor aborted."""
    page = s3(store).list_multipart_uploads(Bucket=store.bucket, Prefix=prefix)
    return sorted(item["Key"] for item in page.get("Uploads", []))


def s3(store: Store) -> Any:
    """A client of the test's own, which does not try again."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3", endpoint_url=store.endpoint, aws_access_key_id=store.key, aws_secret_access_key=store.secret,
        region_name="us-east-1",
        config=Config(
            s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=15,
            request_checksum_calculation="when_required", response_checksum_validation="when_required",
        ),
    )  # fmt: skip


def _error(status: int, code: str, message: str) -> bytes:
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    head = (
        f"HTTP/1.1 {status} {code}", "Content-Type: application/xml", f"Content-Length: {len(body)}",
        "Connection: close",
    )  # fmt: skip
    return "\r\n".join([*head, "", body]).encode()
