"""Show on the terminal which backups there are, and what proves them."""

from datetime import UTC, datetime

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from blocks.errors import ConfigError, GuardiaError
from blocks.site import Site
from flows.backup_steps import age, row
from tasks import backups, own_dumps


def show(site: Site, console: Console) -> None:
    """Print the backups in the bucket, newest first, and the files of the site's own script.

    Raises ConfigError if the site has no bucket, StoreError if it does not answer.
    """
    if site.backups is None:
        raise ConfigError(f"{site.name} has no [backups] in its site file.", "See docs/site-file.md.")
    now = datetime.now(UTC)
    found = backups.every(site)
    table = Table(title=f"Backups of {escape(site.name)} in {site.backups.bucket}", title_justify="left")
    for column in ("backup", "age", "size", "seconds", "proof", "RTO"):
        table.add_column(column)
    for backup in found:
        table.add_row(*(escape(cell) for cell in row(backup, now).values()))
    console.print(table if found else "There is no backup yet: guardia backup")
    if site.own_scripts is not None:
        _show_own(site, site.own_scripts.folder, now, console)


def _show_own(site: Site, folder: str, now: datetime, console: Console) -> None:
    """The VPS may be what is lost: then the bucket's list alone must do."""
    try:
        files = own_dumps.files(site)
    except GuardiaError as error:
        console.print(f"[yellow]The site's own files cannot be listed:[/] {escape(str(error))}")
        return
    table = Table("file", "age", "size", title="Files of the site's own script, on the VPS", title_justify="left")
    for file in files:
        table.add_row(escape(file.name), age((now - file.modified).total_seconds()), f"{file.bytes / 1e6:,.1f} MB")
    console.print(table if files else f"The site's own script has left no file in {folder}.")
