"""Check, changing nothing, every connection and permission that a playbook will need."""

from collections.abc import Callable, Iterator

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from blocks.errors import CommandFailed, ConfigError, GuardiaError
from blocks.site import Site
from tasks import (
    backups,
    compose,
    docker,
    drill,
    dump,
    host,
    http,
    inventory,
    notify,
    own_dumps,
    postgres,
    s3,
    ssh,
)
from tasks.command import Command

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
    yield from _of_data(site)
    for person in {id(p): p for p in site.on_call.told("P1")}.values():
        for channel in person.channels:
            yield f"{person.name}: {channel}", lambda channel=channel: _channel(site, channel)  # type: ignore[misc]
    yield "one flow at a time acts on the site", lambda: _limit(site)
    yield "incident records can be written", _records


def _of_data(site: Site) -> Iterator[Check]:
    """What backups and restores need."""
    if site.database:
        yield "the database, its rights, and that it can be backed up exactly", lambda: _database(site)
    if site.backups:
        yield "the bucket can be read and written", lambda: s3.check(site.backups) if site.backups else ""
        yield "the newest backup is as young as promised, and proven", lambda: _fresh(site)
        yield "the VPS compresses with zstd", lambda: _zstd(site)
        yield "the image for drills", lambda: _drill(site)
    if site.own_scripts:
        yield "the files of the site's own backup script", lambda: f"{len(own_dumps.files(site))} files"


def _database(site: Site) -> str:
    assert site.database is not None
    with postgres.connect(postgres.production(site), site.database.name, application="guardia-doctor") as connection:
        inventory.refuse_inexact(connection)
        query = "SELECT rolsuper, pg_size_pretty(pg_database_size(current_database())) FROM pg_roles"
        superuser, size = connection.execute(f"{query} WHERE rolname = current_user").fetchone() or (False, "?")
        version = connection.info.server_version // 10000  # unknown once it is closed
    if not superuser:
        raise ConfigError(
            f"{site.database.user} is no superuser: backups work, restoring beside the live database does not.",
            f"As a superuser: ALTER ROLE {site.database.user} SUPERUSER, as the official image makes it.",
        )
    return f"PostgreSQL {version}, {size}"


def _fresh(site: Site) -> str:
    seen = backups.seen(site)
    if not seen.ok:
        raise ConfigError(f"{seen.problem}.", seen.cure)
    return seen.summary


def _zstd(site: Site) -> str:
    if dump.compression(site) != "zstd":
        raise ConfigError("it has no zstd: backups take four times as long.", "Install it there: apt install zstd.")
    return "yes"


def _drill(site: Site) -> str:
    return drill.image_for(site)[:19]


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
