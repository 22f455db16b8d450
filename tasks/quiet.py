"""Expected errors are one line in Prefect's logs, not a traceback: they name the cure, and a stack hides it."""

import logging

from prefect.exceptions import FailedRun

from blocks.errors import GuardiaError


def expected_errors() -> None:
    """Leave out the stack of expected errors in this process's run logs; those of defects stay."""
    for name in ("prefect.task_runs", "prefect.flow_runs"):
        logger = logging.getLogger(name)
        if _without_stack not in logger.filters:
            logger.addFilter(_without_stack)


def _without_stack(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, GuardiaError | FailedRun):
        record.exc_info = None
        record.exc_text = None
    return True
