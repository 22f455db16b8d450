"""Show how far a long step is, in the Prefect UI."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

EVERY = 5.0  # seconds between two updates: each is a request to the server, for which the stream waits
log = logging.getLogger("guardia.progress")

Report = Callable[[float], None]


@contextmanager
def progress(key: str, what: str) -> Iterator[Report]:
    """Yield a function that takes the fraction done, 0 to 1, and shows it as a progress artifact called `key`.

    What cannot be shown is no reason to stop a backup: it is logged.
    """
    from prefect.artifacts import create_progress_artifact, update_progress_artifact

    artifact = _tried(create_progress_artifact, 0.0, key=key, description=what)
    told = time.monotonic()

    def report(fraction: float) -> None:
        nonlocal told
        if artifact is not None and time.monotonic() - told >= EVERY:
            told = time.monotonic()
            _tried(update_progress_artifact, artifact, round(100 * min(fraction, 0.99), 1))

    yield report
    if artifact is not None:
        _tried(update_progress_artifact, artifact, 100.0)


def _tried(show: Callable[..., Any], *words: Any, **more: Any) -> Any:
    try:
        return show(*words, **more)
    except Exception as error:  # noqa: BLE001 - whatever it is, the work matters more
        log.warning("The progress could not be shown: %s", error)
        return None
