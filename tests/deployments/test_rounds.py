"""What looks at the server again and again outlives a server that is away."""

import logging
import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from deployments import rounds


class _Nothing:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def test_a_round_that_fails_is_logged_and_the_next_one_tries_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stop, began = threading.Event(), list[datetime]()

    def failing(_: Any, since: datetime) -> None:
        began.append(since)
        if len(began) == 2:
            stop.set()
        raise OSError("the server is away")

    monkeypatch.setattr(rounds, "get_client", lambda **_: _Nothing())
    before = datetime.now(UTC)
    rounds.go(stop, 0.01, failing, logging.getLogger("guardia.test"))
    assert len(began) == 2 and before <= began[0] == began[1]
    assert "A round failed; it is tried again in 0.01 s" in caplog.text and "the server is away" in caplog.text
