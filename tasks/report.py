"""Write the record: messages from the guide's templates, and the incident as Markdown.

Serves "Communication Templates", "Post-Incident" and "Post-Incident Checklist".
"""

import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel

from blocks.errors import ConfigError
from blocks.on_call import Severity
from tasks.masking import mask
from tasks.timeline import Entry

Status = Literal["Investigating", "Identified", "Fixing", "Monitoring"]
EndsAs = Literal["open", "resolved", "false alarm", "unresolved", "refused", "planned"]

T = TypeVar("T", bound=BaseModel)

_CHECKLIST = (
    "Root cause analysis completed",
    "Post-mortem meeting scheduled",
    "Preventive measures identified",
    "Tickets created for preventive measures",
    "Communication sent to affected users",
    "Runbook updated if needed",
    "Monitoring/alerts improved",
)
_VERBS = {
    "look": "", "act": "**did** ", "asked": "**asked** ", "answered": "**answered** ",
    "escalated": "escalated: ", "message": "told ", "note": "", "closed": "closed: ",
}  # fmt: skip


class Case(BaseModel):
    """What is known of an incident, as messages and the record need it."""

    run_id: UUID
    playbook: str
    section: str
    severity: Severity
    site: str
    url: str
    opened: datetime
    closed: datetime | None = None
    outcome: EndsAs = "open"
    summary: str = ""
    impact: str = "being looked at"
    affected: str = "All users"
    root_cause: str = "not yet known"
    run_url: str = ""
    links: list[tuple[str, str]] = []

    @property
    def duration(self) -> str:
        """How long until it was closed, or until now, in words."""
        seconds = round(((self.closed or datetime.now(UTC)) - self.opened).total_seconds())
        return f"{seconds} seconds" if seconds < 120 else f"{seconds // 60} minutes"


def message(template: Literal["initial", "update", "resolution", "approval"], case: Case, **words: Any) -> str:
    """One of the guide's messages, filled in; secrets masked."""
    return mask(_templates().get_template(f"{template}.txt").render(case=case, **words)).strip() + "\n"


def letter(**words: Any) -> str:
    """The letter to the owner of one affected tenant."""
    return str(_templates().get_template("letter.txt").render(**words)).strip() + "\n"


def markdown(case: Case, entries: Sequence[Entry], secrets: frozenset[str] = frozenset()) -> str:
    """The incident's record: facts, timeline, commands, checklist, evidence; secrets masked."""
    shown = [_masked(entry, secrets) for entry in entries]
    return str(
        _templates()
        .get_template("report.md")
        .render(
            case=_masked(case, secrets),
            entries=shown,
            evidence=[entry for entry in shown if entry.text],
            checklist=checklist(entries),
            links=[(name, mask(link, secrets)) for name, link in case.links],
            verbs=_VERBS,
        )
    )


def checklist(entries: Sequence[Entry]) -> list[tuple[str, bool]]:
    """The guide's post-incident checklist; ticked is only what the timeline shows as done."""
    told = any(
        entry.kind == "message" and entry.ok and entry.detail.get("template") == "resolution" for entry in entries
    )
    done = {"Communication sent to affected users": told}
    return [("Incident documented in `incidents/` folder", True)] + [
        (item, done.get(item, False)) for item in _CHECKLIST
    ]


def actions(entries: Sequence[Entry]) -> list[str]:
    """What was done so far, for an update."""
    return [f"{entry.what}: {entry.outcome}" for entry in entries if entry.kind == "act"]


def folder() -> Path:
    """Where records are kept: `GUARDIA_INCIDENTS`, else `incidents` in the folder that Guardia was started from."""
    return Path(os.environ.get("GUARDIA_INCIDENTS", "incidents")).absolute()


def write(case: Case, text: str) -> Path:
    """Write `incidents/YYYY-MM-DD-<summary>.md`; never over another incident's record.

    Raises ConfigError if the folder cannot be written.
    """
    stem = f"{case.opened:%Y-%m-%d}-{case.site}-{case.playbook}"
    try:
        folder().mkdir(parents=True, exist_ok=True)
        for number in range(1, 1000):
            path = folder() / (f"{stem}.md" if number == 1 else f"{stem}-{number}.md")
            if not path.exists() or str(case.run_id) in path.read_text(encoding="utf-8"):
                path.write_text(text, encoding="utf-8")
                return path
    except OSError as error:
        raise ConfigError(f"The record cannot be written: {error}.", "Set GUARDIA_INCIDENTS to a folder.") from None
    raise ConfigError(f"{folder()} holds 1000 records named {stem}.", "Move old ones away.")


def _masked(model: T, secrets: frozenset[str]) -> T:
    """Mask before the words are made Markdown: an escaped secret is no longer known, and a mask may eat a fence."""
    return model.model_copy(update={name: mask(value, secrets) for name, value in model if isinstance(value, str)})


@cache
def _templates() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(  # noqa: S701 - plain text and Markdown, not HTML
        loader=PackageLoader("tasks"), undefined=StrictUndefined, keep_trailing_newline=False
    )
    environment.filters.update(moment=_moment, cell=_cell, code=_code, block=_block)
    return environment


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _cell(text: str) -> str:
    """One line that cannot break out of a Markdown table."""
    return " ".join(str(text).split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")[:600]


def _code(text: str) -> str:
    if "\\|" in text:
        return _cell(text)  # the one thing that code in a table cell cannot hold
    return "`" + " ".join(text.split()).replace("`", "'").replace("|", "\\|") + "`"


def _block(text: str) -> str:
    """A fence longer than any that the text holds."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}\n{text.rstrip()}\n{fence}"
