"""The backup script that the site had before: what its log says, and the line of cron that starts it.

Serves the guide's "Backup Failed", steps 1 and 4.
"""

import re

from pydantic import BaseModel

from blocks.backup_store import OwnScripts
from blocks.errors import CommandError, ConfigError
from blocks.site import Site
from tasks import ssh
from tasks.command import Command, Plan
from tasks.docker import QUICK
from tasks.steps import act, look

# --- commands -------------------------------------------------------------------------------------------------


def read_end(log: str) -> Command:
    """The last 100 lines of the script's log."""
    return Command(("tail", "--lines=100", log), timeout=QUICK)


def read_table(file: str) -> Command:
    """A crontab file."""
    return Command(("cat", file), timeout=QUICK)


def append(file: str) -> Command:
    """Add a line, which it is fed, to a crontab file; cron reads the file again within a minute."""
    return Command(("tee", "--append", file), changes=True, timeout=QUICK)


# --- looks ----------------------------------------------------------------------------------------------------


class Own(BaseModel):
    """What is wrong with the site's own script: the end of its log, and whether cron still starts it."""

    problems: list[str] = []
    line_missing: bool = False
    table: str = ""
    text: str = ""

    @property
    def ok(self) -> bool:
        """Nothing is wrong, or there is no such script."""
        return not self.problems

    @property
    def summary(self) -> str:
        """One line for the timeline."""
        return "; ".join(self.problems) or "in order"


@look("Read the log and the cron line of the site's own backup script")
def own_script(site: Site) -> Own:
    """Findings, not errors. (Backup Failed, steps 1 and 4.)"""
    scripts = site.own_scripts or OwnScripts()
    problems, text, table, missing = [], "", "", False
    if scripts.log:
        try:
            text = ssh.run(site.host, read_end(scripts.log)).stdout
            problems += wrong_in(text, scripts.log)
        except CommandError as error:
            text = f"(no log yet: {error.what})"  # it has not run since the log was rotated, or ever
    if scripts.cron_file and scripts.cron_line:
        try:
            table = ssh.run(site.host, read_table(scripts.cron_file)).stdout
        except CommandError:
            table = ""  # then it is as empty
        if missing := not has(table, scripts.cron_line):
            problems.append(f"{scripts.cron_file} does not hold the line that starts the site's own backup")
    return Own(problems=problems, line_missing=missing, table=table, text=text)


def wrong_in(log: str, path: str) -> list[str]:
    """What went wrong in the last run that the log tells of.

    The script's well-known defect is none: it ends with exit status 1 after it has pruned a file, so that its last
    words are missing, but the backup is there.
    """
    last = re.split(r"^.*Starting backup.*$", log, flags=re.M)[-1].strip()
    if re.search(r"Backup (?:finished|completed|created)", last) and not re.search(r"\bERROR\b", last):
        return []
    said = next((line for line in reversed(last.splitlines()) if line.strip()), "nothing")
    return [f"the last run in {path} did not end well; it said: {said}"]


def has(table: str, wanted: str) -> bool:
    """Whether a crontab holds a line; blanks between its words do not matter."""
    return wanted.split() in [line.split() for line in table.splitlines()]


# --- acts -----------------------------------------------------------------------------------------------------


def _append(plan: Plan, site: Site, found: Own) -> str:
    """Nothing if the line is there by now; a last line without its end gets one first."""
    (command,) = plan.commands
    assert isinstance(command, Command)
    scripts = _configured(site)
    table = ssh.run(site.host, read_table(scripts[0])).stdout if found.table else ""
    if has(table, scripts[1]):
        return "the line was there already"
    before = "" if table.endswith("\n") or not table else "\n"
    ssh.feed(site.host, command, [f"{before}{scripts[1]}\n".encode()])
    return "done"


@act("Put the cron line back", gate="schedule", do=_append, by=("site",))
def add_line(site: Site, found: Own) -> Plan:
    """Add the line that starts the site's own backup. (Backup Failed, step 4.)"""
    file, line = _configured(site)
    facts = [f"adds the line `{line}`"]
    facts += ["what is there stays as it is"] if found.table.strip() else [f"{file} is new or was empty"]
    return Plan(
        what="Put the cron line of the site's own backup back",
        where=site.host.address,
        commands=(append(file),),
        cost="None: the script runs at its next time.",
        facts=tuple(facts),
    )


def _configured(site: Site) -> tuple[str, str]:
    if site.own_scripts is None or not site.own_scripts.cron_file or not site.own_scripts.cron_line:
        raise ConfigError(f"{site.name} has no cron_line in its site file.", "Add it to [own_scripts].")
    return site.own_scripts.cron_file, site.own_scripts.cron_line
