"""Why the database does not start, from its log, its disk and its files.

Serves the guide's "Database Connection Lost", steps 3 and 4: the common issues.
"""

import re
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Literal

from pydantic import BaseModel

from blocks.errors import CommandError
from blocks.site import Site
from tasks import compose, host, ssh, volume
from tasks.steps import look

Kind = Literal["disk full", "wrong permissions", "corrupted", "damaged table", "not the database", "unknown"]

NEARLY_NOTHING = 32 << 20  # bytes: less than two segments of the log, and PostgreSQL cannot start
RECENT = timedelta(minutes=5)  # before the log's last line; a server that cannot start says so each minute
_SIGNS: dict[Kind, str] = {
    "disk full": r"No space left on device|Disk quota exceeded",
    "wrong permissions": r"Permission denied|Operation not permitted|has (?:wrong ownership|invalid permissions)",
    "corrupted": r"invalid (?:primary )?checkpoint record|could not locate a valid checkpoint|could not read block|"
    r"incorrect checksum in control file|is not a valid data directory|invalid page in block|WAL contains references|"
    r"relation mapping file .* contains|could not (?:open|read|find) .*(?:pg_control|pg_filenode|redo)|"
    r'could not open (?:file|directory) "(?:base|global|pg_\w+)[/"].*No such file|database system identifier|'
    r"could not access status of transaction|missing chunk number",
}
_ADVICE: dict[Kind, str] = {
    "damaged table": "The server runs, but a table cannot be read: start the playbook data-corruption.",
    "not the database": "The database runs and takes connections: start the playbook site-down.",
    "unknown": "The database does not start, for a reason that the guide does not know.",
}
_PHASES = r"ready to accept connections|starting PostgreSQL|database system is shut down"


class Cause(BaseModel):
    """Why it does not start, and the lines of its log, or the files, that show it."""

    kind: Kind
    lines: list[str]

    @property
    def ok(self) -> bool:
        """Whether the timeline shows it as good news."""
        return False

    @property
    def summary(self) -> str:
        """One line for the timeline."""
        return self.kind + (f": {self.lines[-1]}" if self.lines else "")

    @property
    def advice(self) -> str:
        """What a person can do where the playbook cannot."""
        return f"{_ADVICE.get(self.kind, 'What the guide knows was tried.')} The database: {self.summary}"

    @property
    def text(self) -> str:
        """Evidence."""
        return "\n".join(self.lines)


@look("Find out why the database does not start", kept=True)
def why(site: Site) -> Cause:
    """Which of the guide's common issues it is; kept, because the cure takes the signs away.

    (Database Connection Lost, steps 3 and 4.)
    """
    log = compose.read_log(site, compose.logs(site, site.services.db), compose.site_secrets(site))
    containers = compose.parse_ps(ssh.run(site.host, compose.ps(site, site.services.db)).stdout)
    wrong: list[str] = []
    size = free = 0
    with suppress(CommandError):  # then the log must do
        found = volume.permissions.fn(site)
        wrong = found.files
        size, free = host.space_at(ssh.run(site.host, host.disk_space()).stdout, found.folder.path)
    return cause(
        log, well=bool(containers) and all(container.ok for container in containers),
        free=free if size else None, wrong=wrong,
    )  # fmt: skip


def cause(log: str, *, well: bool, free: int | None, wrong: list[str]) -> Cause:
    """The newest sign in the log decides; without one the disk, then the files.

    `well` is what Docker says of the container, `free` the bytes left if known, `wrong` the files with another owner
    or mode.
    """
    lines = recent(log)
    signs = [(kind, line) for line in lines if (kind := _sign(line))]
    last = re.findall(_PHASES, "\n".join(lines))[-1:]
    if last == ["ready to accept connections"] or (not last and well):
        damaged = [line for kind, line in signs if kind == "corrupted"]
        return Cause(kind="damaged table" if damaged else "not the database", lines=damaged or lines[-3:])
    if signs:
        newest = signs[-1][0]
        return Cause(kind=newest, lines=list(dict.fromkeys(line for kind, line in signs if kind == newest))[-5:])
    if free is not None and free < NEARLY_NOTHING:
        return Cause(kind="disk full", lines=[f"{free >> 20} MiB are free"])
    if wrong:
        return Cause(kind="wrong permissions", lines=wrong)
    told = [line for line in lines if re.search(r"FATAL|PANIC|[Ee]rror", line)]
    return Cause(kind="unknown", lines=(told or lines)[-5:])


def _sign(line: str) -> Kind | None:
    """The reason that a line gives counts more than the file that it was met at, so the order is as written."""
    return next((kind for kind, words in _SIGNS.items() if re.search(words, line)), None)


def recent(log: str) -> list[str]:
    """The lines written shortly before the last one: what was wrong last week says nothing."""
    dated = [(_moment(line), line) for line in log.splitlines()]
    last = max((at for at, _ in dated if at), default=None)
    return [line for at, line in dated if last is None or at is None or last - at <= RECENT]


def _moment(line: str) -> datetime | None:
    """When Docker got the line: `db-1  | 2026-11-24T20:26:35.123456789Z …`."""
    found = re.search(r"\|? *(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\S*Z ", line[:120])
    return datetime.fromisoformat(found[1]) if found else None
