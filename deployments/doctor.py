"""Check, changing nothing, every connection and permission that a playbook will need."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from blocks.errors import CommandFailed, ConfigError, GuardiaError
from blocks.site import Site
from tasks import compose, cron, docker, free_space, host, http, notify, postgres, rebuild, ssh, volume
from tasks.command import Command, Plan, Step, programs
from tasks.free_space import Occupied
from tasks.host import BootId
from tasks.rebuild import Choice
from tasks.volume import Folder, Wrong

Check = tuple[str, Callable[[], str]]


def examine(site: Site, console: Console) -> bool:
    """Run every check and print a table of them; whether all are well."""
    table = Table("", "check", "found", title=escape(f"{site.name}: {site.url}"), title_justify="left")
    well = True
    for title, check in checks(site):
        console.print(f"[dim]{escape(title)}…[/]")
        try:
            table.add_row("[green]✓[/]", escape(title), escape(check()))
        except (GuardiaError, OSError, ValueError) as error:
            well = False
            table.add_row("[red]✗[/]", escape(title), escape(str(error)))
    console.print(table)
    return well


def checks(site: Site) -> Iterator[Check]:
    """What to check, in the order in which a playbook needs it."""
    yield "the site answers from outside", lambda: _outside(site)
    for url in site.controls:
        yield f"{url} answers (tells an outage from our own network)", lambda url=url: _control(str(url))  # type: ignore[misc]
    yield "SSH with the pinned host key", lambda: _said(site, host.uptime())
    yield "Docker answers", lambda: "Docker " + _said(site, docker.ping())
    yield "the compose file and its services", lambda: _services(site)
    yield "the env file", lambda: _env_file(site)
    yield "disk and memory can be read", lambda: _resources(site)
    yield "systemctl and the right to reboot", lambda: _reboot(site)
    for person in {id(p): p for p in site.on_call.told("P1")}.values():
        for channel in person.channels:
            yield f"{person.name}: {channel}", lambda channel=channel: _channel(site, channel)  # type: ignore[misc]
    yield "one flow at a time acts on the site", lambda: _limit(site)
    yield "incident records can be written", _records


def print_commands(site: Site, console: Console) -> None:
    """Print the catalogue of commands, those that change something marked with *."""
    for command in catalogue(site):
        console.print(f"{'*' if command.changes else ' '} {escape(command.line)}")


def catalogue(site: Site) -> list[Command]:
    """Every command that Guardia can run on the host, for this site."""
    acts = [compose.restart_services.plan(site), host.reboot.plan(site, BootId(boot_id=""))]
    acts += [compose.prune_leftovers.plan(site, docker.Leftovers(containers=[], images=[]))]
    looks: list[Step] = [host.uptime(), host.read_boot_id(), host.disk_space(), host.disk_inodes(), host.memory()]
    looks += [host.user_id(), host.systemctl_version()]
    looks += [compose.config_services(site), compose.ps(site), docker.stopped_containers(), docker.dangling_images()]
    looks += [compose.logs(site, service) for service in site.services.all()]
    looks += [docker.journal()]
    looks += [compose.env_file(site)] if site.env_file else []
    looks += _looks_at_data(site)
    acts += _acts_on_data(site)
    steps = looks + [step for plan in acts for step in plan.commands]
    return list(dict.fromkeys(command for step in steps for command in programs(step)))


# Words that stand for what only the VPS knows.
_DATA = Folder(path="/DATA", uid=999, gid=999, container="CONTAINER")
_FULL = Occupied(slots=["SLOT"], copies=["COPY"], device="DEVICE", reserved=1)
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
_CHOICE = Choice(
    backup="BACKUP", snapshot_at=_LONG_AGO, proven_at=_LONG_AGO, restore_seconds=0, folder=_DATA, aside="/ASIDE/DATA"
)


def _looks_at_data(site: Site) -> list[Step]:
    """How the database's container, its data folder and the site's own backups are looked at."""
    path, scripts = _DATA.path, site.own_scripts
    looks: list[Step] = [compose.ps(site, site.services.db), postgres.container(site)]
    looks += [volume.inspect(_DATA.container), volume.users(_DATA.container), volume.wrong_files(path, _DATA.uid)]
    looks += [free_space.wal_size(path), free_space.list_slots(path), free_space.device(path)]
    looks += [free_space.reserve("DEVICE"), rebuild.same_place(path, "/var/backups"), rebuild.is_there(_CHOICE.aside)]
    looks += [cron.read_end(scripts.log)] if scripts and scripts.log else []
    looks += [cron.read_table(scripts.cron_file)] if scripts and scripts.cron_file else []
    return looks


def _acts_on_data(site: Site) -> list[Plan]:
    """How a lost database and a missing cron line are put right."""
    acts = [compose.restart_database.plan(site), volume.give_back.plan(site, Wrong(folder=_DATA))]
    acts += [free_space.free_space.plan(site, docker.Leftovers(), _FULL)]
    acts += [rebuild.rebuild.plan(site, _CHOICE)] if site.database else []
    acts += [cron.add_line.plan(site, cron.Own())] if site.own_scripts and site.own_scripts.cron_line else []
    return acts


def _outside(site: Site) -> str:
    seen = http.observe(site)
    if not seen.healthy:
        raise ConfigError(seen.summary, "If the site is up, correct url, health_path or address in the site file.")
    return seen.summary


def _control(url: str) -> str:
    import httpx

    try:
        return str(httpx.head(url, timeout=10).status_code)
    except httpx.HTTPError as error:
        raise ConfigError(
            f"no answer ({error}).", "Set `controls` in the site file to addresses that answer."
        ) from None


def _said(site: Site, command: Command) -> str:
    try:
        return ssh.run(site.host, command).stdout.strip()
    except CommandFailed as error:
        raise compose.explain(site, error) from None


def _services(site: Site) -> str:
    found = compose.services.fn(site)
    if found.silent:
        raise ConfigError(found.silent, "Look at `systemctl status docker` on the VPS.")
    return found.summary


def _env_file(site: Site) -> str:
    if not site.env_file:
        return "none is used"
    text = ssh.run(site.host, compose.env_file(site), quiet=True).stdout
    return f"{len(text.splitlines())} lines"


def _resources(site: Site) -> str:
    found = host.resources.fn(site)
    if found.unknown:
        raise ConfigError(found.unknown, "Guardia needs `df` of coreutils and `free` of procps there.")
    return found.summary


def _reboot(site: Site) -> str:
    _said(site, host.systemctl_version())
    uid = _said(site, host.user_id())
    if uid != "0":
        raise ConfigError(f"{site.host.user} is not root (uid {uid}).", "Use a user who may run `systemctl reboot`.")
    return f"{site.host.user} may"


def _channel(site: Site, channel: str) -> str:
    """The notification block is there; a mailbox is logged into and left, with nothing sent."""
    notify.notifier(site, channel)
    if "@" not in channel:
        return "the block is there (nothing was sent)"
    assert site.mailbox is not None
    return site.mailbox.log_in()


def _limit(site: Site) -> str:
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    from tasks.steps import acting_limit

    with get_client(sync_client=True) as client:
        try:
            limit = client.read_global_concurrency_limit_by_name(acting_limit(site.name))
        except ObjectNotFound:
            raise ConfigError(f"the limit {acting_limit(site.name)} is gone.", "Run `guardia apply` again.") from None
    if limit.limit != 1 or not limit.active:
        raise ConfigError(f"the limit {limit.name} is {limit.limit}.", "Run `guardia apply` again after deleting it.")
    return f"{limit.name}: {limit.active_slots} of {limit.limit} in use"


def _records() -> str:
    import os

    from tasks.report import folder

    place = folder()
    parent = next(path for path in (place, *place.parents) if path.exists())
    if not os.access(parent, os.W_OK):
        raise ConfigError(f"{place} cannot be written.", "Set GUARDIA_INCIDENTS to a folder that can.")
    return str(place)
