"""The `guardia` command line."""

import getpass
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter
from rich.console import Console

from blocks.errors import ConfigError, GuardiaError
from deployments.home import PORT, point_at_server

console = Console(soft_wrap=True, highlight=False)
app = App(
    name="guardia",
    help="Guardia runs your incident response guide: it looks, proposes, waits for you where a step can hurt, acts, "
    "proves from outside that it worked, tells people and writes the record.\n\n"
    "First time: write a site file (docs/site-file.md), `guardia up --site-file site.toml`, then `guardia doctor`.",
    version=metadata.version("guardia"),
    version_flags=["--version"],
)
Site = Annotated[str | None, Parameter(help="The site's name; may be left out if there is only one.")]


@app.command
def up(
    *,
    site_file: Annotated[list[Path] | None, Parameter(help="Site files to apply first; may be repeated.")] = None,
    host: Annotated[str, Parameter(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="Port of the Prefect UI and API.")] = PORT,
) -> None:
    """Run Guardia: the Prefect server (or the one that PREFECT_API_URL names) and the playbooks, until Ctrl-C.

    Keeps its database in GUARDIA_HOME (default ~/.guardia) and writes incidents to GUARDIA_INCIDENTS (default
    ./incidents).
    """
    from deployments import serve

    serve.up(site_file or [], host, port, console.print)


@app.command
def apply(site_file: Annotated[Path, Parameter(help="The site file, e.g. site.toml.")]) -> None:
    """Register a site: check its file and write it as Prefect blocks, limits and deployments.

    Secrets come from where the file points to: environment, files or Secret blocks. A file with a mistake changes
    nothing.
    """
    point_at_server()
    from blocks import site_file as files
    from deployments import catalog, limits
    from tasks.ssh_connection import load_key

    site = files.read(site_file)
    load_key(site.host)
    for slug in files.register(site):
        console.print(f"Registered {slug}")
    limits.ensure([site.name])
    catalog.register(files.names())
    console.print(f"Next: guardia doctor --site {site.name}")


@app.command
def respond(
    playbook: Annotated[str, Parameter(help="E.g. site-down.")],
    *,
    site: Site = None,
    reason: Annotated[str, Parameter(help="Why, for the record.")] = "",
    follow: Annotated[bool, Parameter(help="Show the run's steps until it ends.")] = True,
) -> None:
    """Start a playbook and follow it. Exit status: 0 if it ended well, 1 if the site is still down.

    A run that waits for an approval says how to answer it; leaving it with Ctrl-C does not stop it.
    """
    point_at_server()
    from deployments import catalog
    from deployments import follow as following

    run_id = catalog.start(catalog.known(playbook), _site(site), reason=reason)
    if follow:
        sys.exit(following.follow(run_id, console))
    console.print(run_id)


@app.command
def plan(playbook: Annotated[str, Parameter(help="E.g. site-down.")], *, site: Site = None) -> None:
    """Do the looks of a playbook now and print the commands that each act would run. Changes nothing."""
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")  # the terminal shows the timeline instead
    point_at_server()
    from deployments import catalog
    from deployments import follow as following

    following.plan(catalog.PLAYBOOKS[catalog.known(playbook)], _site(site), console)


@app.command
def approve(
    run: Annotated[
        str | None, Parameter(help="The run's id, its beginning, or its name; see `guardia status`.")
    ] = None,
    *,
    refuse: Annotated[bool, Parameter(negative=(), help="Refuse instead: the playbook ends there.")] = False,
    by: Annotated[str | None, Parameter(name="--as", help="Your name, for the record.")] = None,
    reason: Annotated[str, Parameter(help="Why, for the record.")] = "",
    plan: Annotated[str | None, Parameter(help="Answer only if the plan still has this hash.")] = None,
    choose: Annotated[
        Literal["whole restore", "rescue", "rescue with changed rows"] | None,
        Parameter(help="Where the run asks how to get data back."),
    ] = None,
    backup: Annotated[str | None, Parameter(help="With --choose: this backup rather than the one compared.")] = None,
    only: Annotated[
        list[str] | None, Parameter(help="With --choose rescue: only this table or tenant; may be repeated.")
    ] = None,
) -> None:
    """Approve (or refuse) the plan that a run waits with. Without RUN, show what waits.

    Where a run asks how to get data back: --choose "whole restore", or --choose rescue.
    """
    point_at_server()
    from deployments import follow as following

    if run is None:
        following.show_waiting(console)
        return
    if (only and choose in {None, "whole restore"}) or (backup and not choose):
        raise ConfigError("--only goes with --choose rescue, --backup with --choose.", "See `guardia approve --help`.")
    words: dict[str, Any] = {"decision": "refuse" if refuse else choose or "approve"}
    words |= {"approver": by or getpass.getuser(), "reason": reason}
    if choose:
        words |= {"only": ", ".join(only or [])} | ({"backup": backup} if backup else {})
    following.answer(run, words, plan, console)


@app.command
def backups(*, site: Site = None) -> None:
    """List the backups: age, size, how long each took, whether it is proven, and how long a restore took (RTO).

    Below them, the files of the site's own backup script on the VPS, which can be verified and restored too.
    """
    point_at_server()
    from blocks import site_file
    from deployments import backups as listing

    listing.show(site_file.load(_site(site)), console)


@app.command
def backup(*, site: Site = None) -> None:
    """Make a backup now and follow it. Exit status: 0 if it is in the bucket, 1 if not."""
    _job("daily-backup", site)


@app.command
def verify(
    backup: Annotated[str, Parameter(help="As `guardia backups` lists it; left out: the newest, if not bad.")] = "",
    *,
    site: Site = None,
) -> None:
    """Prove a backup by restoring it into a throwaway container and comparing it exactly. Changes nothing live.

    Exit status: 0 if it is proven, 1 if it is bad, or the drill broke or was not removed.
    """
    _job("verify-backup", site, backup=backup)


@app.command
def restore(
    backup: Annotated[str, Parameter(help="As `guardia backups` lists it.")],
    *,
    site: Site = None,
    rescue: Annotated[bool, Parameter(negative=(), help="Put back only rows that are missing.")] = False,
    changed: Annotated[bool, Parameter(negative=(), help="With --rescue: rows that were changed, too.")] = False,
    only: Annotated[
        list[str] | None, Parameter(help="With --rescue: only this table or tenant; may be repeated.")
    ] = None,
    reason: Annotated[str, Parameter(help="Why, for the record.")] = "",
) -> None:
    """Start the data-corruption playbook with the choice made: this backup, restored whole unless --rescue.

    The live database stays as it is until you approve the exact plan. A whole restore keeps it: `guardia undo-restore`.
    """
    if (changed or only) and not rescue:
        raise ConfigError("--changed and --only choose what a rescue puts back.", "Add --rescue, or leave them out.")
    how = "whole restore" if not rescue else "rescue with changed rows" if changed else "rescue"
    _job("data-corruption", site, backup=backup, how=how, only=", ".join(only or []), reason=reason)


@app.command
def undo_restore(*, site: Site = None, reason: Annotated[str, Parameter(help="Why, for the record.")] = "") -> None:
    """Swap back to the database that the last restore replaced, after an approval; the restored one is kept."""
    _job("undo-restore", site, reason=reason)


@app.command
def status() -> None:
    """Show the server, the sites, the open incidents and what waits for an approval."""
    point_at_server()
    from deployments import follow as following

    following.show_status(console)


@app.command
def doctor(*, site: Site = None) -> None:
    """Check every connection and permission that a playbook will need. Changes nothing.

    Exit status: 0 if all is well, 1 if something needs a cure, which is printed.
    """
    point_at_server()
    from blocks import site_file
    from deployments import doctor as checks

    sys.exit(0 if checks.examine(site_file.load(_site(site)), console) else 1)


@app.command
def commands(*, site: Site = None) -> None:
    """Print every command that Guardia can run on the VPS; those that change something are marked with *."""
    point_at_server()
    from blocks import site_file
    from deployments import command_list

    command_list.print_commands(site_file.load(_site(site)), console)


def _job(flow: str, site: str | None, **parameters: Any) -> None:
    """Start a run and follow it to its end."""
    point_at_server()
    from deployments import catalog
    from deployments import follow as following

    sys.exit(following.follow(catalog.start(flow, _site(site), **parameters), console))


def _site(name: str | None) -> str:
    from blocks import site_file
    from blocks.errors import ConfigError

    if name is not None:
        return site_file.load(name).name
    names = site_file.names()
    if len(names) == 1:
        return names[0]
    known = ", ".join(names) or "none; register one with `guardia apply site.toml`"
    raise ConfigError("Which site?", f"Say --site NAME; registered: {known}.")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; an expected error becomes one sentence on standard error and exit status 1."""
    try:
        app(arguments)
    except GuardiaError as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]guardia:[/] {_escaped(error)}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        problem = _of_server(error)
        if not problem:
            raise
        Console(stderr=True, soft_wrap=True).print(f"[bold red]guardia:[/] {problem}")
        sys.exit(1)


def _escaped(error: Any) -> str:
    from rich.markup import escape

    return escape(str(error))


def _of_server(error: BaseException | None) -> str:
    """What is wrong with the Prefect server, if that is it; Prefect wraps the connection's error once or twice."""
    import httpx

    while error is not None:
        if isinstance(error, httpx.TransportError) or "Failed to reach API" in str(error):
            return "The Prefect server does not answer. Start it with `guardia up`, or set PREFECT_API_URL."
        if isinstance(error, httpx.HTTPStatusError) and error.response.status_code == httpx.codes.UNAUTHORIZED:
            return "The Prefect server asks for a password. Set PREFECT_API_AUTH_STRING to USER:PASSWORD."
        error = error.__cause__ or error.__context__
    return ""


if __name__ == "__main__":
    main()
