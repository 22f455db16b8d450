"""Make a backup and prove one: what the scheduled jobs and the playbooks that need a backup share."""

from datetime import UTC, datetime

from prefect.artifacts import create_table_artifact

from blocks.errors import GuardiaError
from blocks.site import Site
from tasks import backups, copies, drill, dump, keeping, own_dumps, proving, timeline
from tasks.backup import Backup, Proof
from tasks.dump import Kind


def back_up(site: Site, kind: Kind = "daily", attempt: int = 1) -> str:
    """Dump, commit, prune; returns the backup's name. Raises GuardiaError, and leaves nothing that looks like one.

    In one run there is one backup, however often it is retried, unless `attempt` says that another is wanted.
    """
    if timeline.planning():
        timeline.record("act", f"would make a {kind} backup")
        return f"a new {kind} backup"
    name = dump.name_it(site, kind, attempt)
    found = dump.space(site)
    keeping.commit(site, dump.noted(dump.dump(site, name, kind, found)))
    try:
        _tidy(site, name)
    except GuardiaError as error:  # the backup is whole; a restore that it was made for must not wait for this
        if kind == "daily":
            raise type(error)(f"{name} is in the bucket and whole. Afterwards: {error.what}", error.cure) from error
        timeline.record("note", f"old backups could not be removed: {error}", ok=False)
    return name


def _tidy(site: Site, name: str) -> None:
    copies.prune(site, name)
    keeping.prune(site, name)
    show_history(site)


def prove(site: Site, name: str) -> Proof:
    """Restore a backup into a throwaway container, compare it, and keep the verdict beside it.

    The site's own dumps lie on the VPS, where nothing is written: their verdict is in the run alone. So is that on a
    backup whose manifest does not open.
    """
    proof = proving.prove(site, name)
    if name.endswith(own_dumps.SUFFIX):
        return proof
    if proof.manifest_sha256:  # else it never counts, and one that counts with the right key would be lost under it
        keeping.keep_proof(site, name, proof)
    show_history(site)
    return proof


def left_behind(site: Site) -> str:
    """Why a copy of the data may still lie where it was proven, in words, or nothing."""
    try:
        left = drill.left_behind(site)
    except GuardiaError as error:
        return f"Whether the restored copy of the data was removed cannot be told: {error}"
    return "" if left.ok else left.summary


def show_history(site: Site) -> None:
    """The table of backups as an artifact of the run: age, size, seconds, proven or not."""
    now = datetime.now(UTC)
    rows = [row(backup, now) for backup in backups.every(site)]
    create_table_artifact(rows, key=f"backups-{site.name}", description=f"Backups of {site.name}, newest first")


def row(backup: Backup, now: datetime) -> dict[str, str]:
    """One backup, for people."""
    manifest, proof = backup.manifest, backup.proof
    if manifest is None:
        return {"backup": backup.name, "age": "", "size": "", "seconds": "", "proof": backup.problem, "RTO": ""}
    return {
        "backup": backup.name,
        "age": age((now - manifest.snapshot_at).total_seconds()),
        "size": f"{manifest.archive.stored_bytes / 1e6:,.1f} MB",
        "seconds": f"{manifest.seconds:.0f}",
        "proof": f"{proof.verdict} {proof.at:%Y-%m-%d %H:%M}" if proof else "not yet",
        "RTO": f"{proof.restore_seconds:.0f} s" if proof and proof.verdict == "proven" else "",
    }


def age(seconds: float) -> str:
    """In the unit that a person thinks in."""
    hours = seconds / 3600
    if hours < 2:
        return f"{seconds / 60:.0f} min"
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"
