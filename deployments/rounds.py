"""Look at the Prefect server again and again beside the flows."""

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime

from prefect.client.orchestration import SyncPrefectClient, get_client


def go(
    stop: threading.Event,
    every: float,
    round_trip: Callable[[SyncPrefectClient, datetime], None],
    log: logging.Logger,
) -> None:
    """One round each `every` seconds until told to stop; a round is told when the rounds began.

    One that fails is logged, and the next one tries again.
    """
    began = datetime.now(UTC)
    while not stop.wait(every):
        try:
            with get_client(sync_client=True) as client:
                round_trip(client, began)
        except Exception:
            log.exception("A round failed; it is tried again in %s s", every)
