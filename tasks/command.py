"""Commands and plans are data: what would run on the host, word for word, before anything runs.

This is the only place where words become shell text, and `shlex.join` does it.
"""

import hashlib
import json
import re
import shlex
from dataclasses import dataclass

from blocks.errors import ConfigError


@dataclass(frozen=True)
class Command:
    """One program on the host with its arguments.

    `changes` says whether it changes anything; `timeout` is in seconds, after which the host kills it.
    """

    argv: tuple[str, ...]
    changes: bool = False
    timeout: int = 60

    def __post_init__(self) -> None:
        if any("\0" in word for word in self.argv):
            raise ConfigError(f"{self.argv!r} holds a NUL byte.", "No command line can; correct the parameter.")

    @property
    def line(self) -> str:
        """The command as the guide would print it, safe to paste into a shell."""
        return shlex.join(self.argv)

    @property
    def bounded(self) -> str:
        """The command as it is sent: in plain English, and ended by the host itself, so that nothing is left there."""
        return f"env LC_ALL=C timeout --kill-after=5 {int(self.timeout)} {self.line}"


@dataclass(frozen=True)
class Pipeline:
    """Programs on the host, each reading what the one before it writes; it fails if any of them does.

    It must not run inside the database's container: a shell that dies there can take the server with it.
    """

    stages: tuple[Command, ...]
    timeout: int = 60

    @property
    def changes(self) -> bool:
        """Whether any of its programs changes anything."""
        return any(stage.changes for stage in self.stages)

    @property
    def line(self) -> str:
        """The pipeline as one would type it."""
        return " | ".join(stage.line for stage in self.stages)

    @property
    def bounded(self) -> str:
        """The pipeline as it is sent, ended by the host itself."""
        script = shlex.join(("bash", "-o", "pipefail", "-c", self.line))
        return f"env LC_ALL=C timeout --kill-after=5 {int(self.timeout)} {script}"


@dataclass(frozen=True)
class Statement:
    """One SQL statement of a plan, for people to read: what runs is built with parameters and quoted identifiers."""

    database: str
    sql: str
    changes: bool = True

    @property
    def line(self) -> str:
        """The statement and where it runs."""
        return f"{self.database}=# {self.sql}"


Runnable = Command | Pipeline
Step = Runnable | Statement


def programs(step: Step) -> tuple[Command, ...]:
    """The programs that a step of a plan runs on the host: none if it is SQL."""
    if isinstance(step, Pipeline):
        return step.stages
    return (step,) if isinstance(step, Command) else ()


@dataclass(frozen=True)
class Plan:
    """Exactly what an act would do, shown to the person who approves it.

    `facts` are what the plan rests on (what would be deleted, which boot it ends): with the commands and the
    cost they make the hash that an approval is bound to.
    """

    what: str
    where: str
    commands: tuple[Step, ...]
    cost: str
    facts: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        """12 hexadecimal digits that change whenever the plan does."""
        lines = [self.what, self.where, [c.line for c in self.commands], self.cost, self.facts]
        return hashlib.sha256(json.dumps(lines).encode()).hexdigest()[:12]

    @property
    def markdown(self) -> str:
        """At what cost, with which commands, resting on which facts."""
        commands = "\n".join(f"- {_code(command.line)}" for command in self.commands)
        facts = "\n".join(f"- {fact}" for fact in self.facts)
        return f"**Cost:** {self.cost}\n\n{commands}" + (f"\n\n**In detail:**\n\n{facts}" if facts else "")


def _code(line: str) -> str:
    """A list item's code that a phone can wrap; a block, which it cannot, where the line has line ends of its own."""
    ticks = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    if len(line.splitlines()) > 1:
        fence = max(ticks, "```")
        return re.sub("\r\n?|\n", "\n  ", f"{fence}\n{line}\n{fence}")
    pad = " " if "`" in line else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"
