"""What the lab's tests counted, printed at the end of a session: sweeps, damages, what each fault took to heal.

The tests of a session run in two processes side by side, and what a module counted is in that which ran it.
"""

import sys
from typing import Any

import pytest

HEALED = ("fault", "path taken", "gates asked", "s to healthy")
Counted = tuple[list[str], list[tuple[str, ...]]]  # lines, and rows of the table of healed faults
_handed: list[Counted] = []


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of pytest-xdist hands over what it counted."""
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["counted"] = _counted()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a worker counted; one that died says nothing."""
    if "counted" in (output := getattr(node, "workeroutput", {})):
        _handed.append(output["counted"])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print it."""
    counted = [_counted(), *_handed]
    for line in sorted(line for lines, _ in counted for line in lines):
        terminalreporter.write_line(line)
    rows = [HEALED, *(row for _, table in counted for row in table)]
    if len(rows) > 1:
        terminalreporter.section("healed by the site-down playbook (seconds include the wait for each answer)")
        widths = [max(len(row[column]) for row in rows) for column in range(len(HEALED))]
        for row in rows:
            terminalreporter.write_line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))


def _counted() -> Counted:
    """Of the modules of this process: the lines of their `summary`, and the rows of the healed faults."""
    modules = [module for name, module in sorted(sys.modules.items()) if name.startswith("tests.lab.test_")]
    lines = [line for module in modules for line in getattr(module, "summary", list)()]
    return lines, getattr(sys.modules.get("tests.lab.test_site_down"), "ROWS", [])
