"""Memory and speed of a sealed upload and its download: python -m tests.bench.s3 [MB] (needs the lab's SeaweedFS)."""

import resource
import sys
import tempfile
import time
from pathlib import Path

from tasks import s3, sealed
from tasks.streams import Read
from tests.lab.seaweed import seaweed

KEY, HERE = bytes(range(32)), b"bench"


def main(megabytes: int) -> None:
    """Upload zeros from a generator, and read them back, sealed; print MB/s and how far the memory grew."""
    with tempfile.TemporaryDirectory() as folder, seaweed(Path(folder, "weed")) as service:
        store = service.block(part_size=16)
        s3.upload(store, "warm", sealed.seal(_zeros(1 << 20), KEY, HERE))
        idle = _memory()
        started = time.monotonic()
        done = s3.upload(store, "x", sealed.seal(_zeros(megabytes << 20), KEY, HERE))
        up = time.monotonic() - started
        started = time.monotonic()
        size = sum(map(len, sealed.unseal(s3.stream(store, "x"), KEY, HERE)))
        down = time.monotonic() - started
    assert size == megabytes << 20
    print(f"{done.bytes / 1e6:.0f} MB: up {done.bytes / 1e6 / up:.0f} MB/s, down {done.bytes / 1e6 / down:.0f} MB/s, ")
    print(f"memory {idle:.0f} MB idle, at most {_memory() - idle:.0f} MB more")


def _zeros(size: int) -> Read:
    left = size

    def read(wanted: int) -> bytes:
        nonlocal left
        data = bytes(min(wanted, left))
        left -= len(data)
        return data

    return read


def _memory() -> float:
    """The most MB that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
