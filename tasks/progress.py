"""Show how far a long step is, in the Prefect UI."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast
from uuid import UUID

EVERY = 2.0  # seconds between two updates: each is a request to the server

Report = Callable[[float], None]


@contextmanager
def progress(key: str, what: str) -> Iterator[Report]:
    """Yield a function that takes the fraction done, 0 to 1, and shows it as a progress artifact called `key`."""
    from prefect.artifacts import create_progress_artifact, update_progress_artifact

    artifact = cast(UUID, create_progress_artifact(0.0, key=key, description=what))
    told = time.monotonic()

    def report(fraction: float) -> None:
        nonlocal told
        if time.monotonic() - told >= EVERY:
            told = time.monotonic()
            update_progress_artifact(artifact, round(100 * min(fraction, 0.99), 1))

    yield report
    update_progress_artifact(artifact, 100.0)
