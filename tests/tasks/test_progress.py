"""Progress is for people to see; a server that is away does not stop what is shown."""

import logging

import prefect.artifacts
import pytest

from tasks import progress


def fail(*_: object, **__: object) -> None:
    raise OSError("the server is away")


@pytest.mark.parametrize("broken", ["create_progress_artifact", "update_progress_artifact"])
def test_what_cannot_be_shown_is_logged_and_does_not_stop_the_work(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    monkeypatch.setattr(prefect.artifacts, "create_progress_artifact", lambda *_, **__: 1)
    monkeypatch.setattr(prefect.artifacts, broken, fail)
    monkeypatch.setattr(progress, "EVERY", 0.0)
    with caplog.at_level(logging.WARNING), progress.progress("backup", "Backup") as report:
        report(0.5)
    assert "could not be shown: the server is away" in caplog.text


def test_the_fraction_is_shown_and_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[float] = []
    monkeypatch.setattr(prefect.artifacts, "create_progress_artifact", lambda *_, **__: 7)
    monkeypatch.setattr(prefect.artifacts, "update_progress_artifact", lambda _, percent: shown.append(percent))
    monkeypatch.setattr(progress, "EVERY", 0.0)
    with progress.progress("backup", "Backup") as report:
        report(0.5)
        report(7)
    assert shown == [50.0, 99.0, 100.0]
